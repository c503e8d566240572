"""The digits of scikit-learn as image files."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_digits"]


def write_digits(folder: str) -> str:
    """Write the 1,797 scanned digits, 8 by 8 pixels, into the folders 0 to 9 of this one."""
    # Here: the process that only reads the model needs neither.
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = Path(folder, str(digit), f"{number:04}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).astype("uint8")).save(file)
    return folder
