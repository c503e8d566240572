"""Files that Keras itself reads: whole models, and weights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from zoo.errors import InputError
from zoo.orca.data.storage import locate
from zoo.orca.learn.driver.keeper import write_whole
from zoo.orca.learn.driver.snapshots import read_bytes

__all__ = [
    "read_file",
    "read_model",
    "require_no_folder",
    "write_file",
    "write_saved_model",
]

_HDF5 = b"\x89HDF"


def write_file(
    path: str | os.PathLike[str], write: Callable[[Path], object], *, suffix: str, overwrite: bool
) -> str:
    """Have Keras write a file, on any file system; it appears whole or not at all.

    Args:
        path: Where.
        write: Writes it on a local disk.
        suffix: That Keras wants in its name.
        overwrite: A file that is there may go.

    Raises:
        InputError: There is one, and it may not.
    """
    if not overwrite and locate(path).exists():
        raise InputError("a new file", f"{path}, which is there", "Pass overwrite=True.")
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / f"file{suffix}"
        write(local)
        write_whole(path, local.read_bytes())
    return os.fspath(path)


def write_saved_model(model: keras.Model, path: str | os.PathLike[str], *, overwrite: bool) -> str:
    """Write the folder of a SavedModel, for TensorFlow Serving; it appears whole or not at all.

    Args:
        model: On the backend TensorFlow, with its weights.
        path: The folder, on a local disk.
        overwrite: One that is there may go.

    Raises:
        InputError: Keras cannot write it, or there is something that may not go.
    """
    place = Path(path)
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "Keras on TensorFlow, to write a SavedModel", f"on {keras.backend.backend()}",
            "Use to_onnx of zoo.orca.learn.onnx or to_openvino of zoo.orca.learn.openvino.",
        )  # fmt: skip
    if place.exists() and not (overwrite and (place / "saved_model.pb").exists()):
        raise InputError(
            "a new folder, or that of a SavedModel with overwrite=True", f"{path}, which is there",
            "Choose another path.",
        )  # fmt: skip
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as folder:
        made = Path(folder) / "model"
        model.export(made, format="tf_saved_model", verbose=False)
        if place.exists():
            place.rename(Path(folder) / "before")
        made.rename(place)
    return os.fspath(path)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The content of a file.

    Raises:
        InputError: It cannot be read, or is a folder.
    """
    require_no_folder(path)
    try:
        return read_bytes(locate(path))
    except OSError as exc:
        raise InputError("a file that Keras has written", str(exc), "Check the path.") from exc


def require_no_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a SavedModel, which is a folder.

    Raises:
        InputError: It is one.
    """
    if Path(path).is_dir():
        saved = (Path(path) / "saved_model.pb").exists()
        raise InputError(
            "a file: .keras, .weights.h5 or .h5",
            f"the folder of a SavedModel, {path}" if saved else f"a folder, {path}",
            "Keras 3 does not read SavedModel: load it with the Keras 2 that wrote it, and save "
            "it there as .h5." if saved else "Give the file in it.",
        )  # fmt: skip


def read_model(path: str | os.PathLike[str], **options: Any) -> keras.Model:
    """A model that Keras has saved whole; no code in the file is run.

    Args:
        path: Of a `.keras` or `.h5` file, on any file system.
        options: Of `keras.saving.load_model`, such as `custom_objects`.

    Raises:
        InputError: Keras cannot read it.
    """
    blob = read_file(path)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / ("model.h5" if blob.startswith(_HDF5) else "model.keras")
        local.write_bytes(blob)
        try:
            return keras.saving.load_model(local, **{"safe_mode": True, **options})
        except Exception as exc:
            said = " ".join(f"{type(exc).__name__}: {exc}".split())[:400]
            raise InputError(
                f"a model that Keras {keras.__version__} can read",
                f"{path}, of which it says: {said}",
                "Pass custom_objects={'Name': Name} for classes of your own. A file of Keras 2 "
                "may have to be loaded there; make the model anew, and load its weights.",
            ) from exc
