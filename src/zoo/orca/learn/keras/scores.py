"""What an evaluation gave, which also answers to the names that older programs ask for."""

from __future__ import annotations

from typing import Any

__all__ = ["Scores"]

_ACCURACY = ("accuracy", "acc", "Accuracy")


class Scores(dict[str, Any]):
    """Loss and metrics by name: `val_loss`, `accuracy`, `num_samples`.

    Asked for, there are besides `loss` and `validation_loss`, `validation_<metric>`, and
    `acc Top1Accuracy` of a model with an accuracy.

    Example:
        >>> scores = Scores(val_loss=0.5, accuracy=0.9)
        >>> scores["validation_loss"], scores["acc Top1Accuracy"]
        (0.5, 0.9)
    """

    def __missing__(self, name: str) -> Any:
        plain = name.removeprefix("validation_")
        names = {"loss": ("val_loss",), "acc Top1Accuracy": _ACCURACY}.get(plain, (plain,))
        for known in names:
            if known in self:
                return self[known]
        raise KeyError(name)
