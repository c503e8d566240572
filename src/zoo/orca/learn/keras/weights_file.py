"""Files of weights that Keras wrote: `.keras`, `.weights.h5`, and `.h5` of older versions."""

from __future__ import annotations

import io
import json
import logging
import tempfile
import warnings
import zipfile
from pathlib import Path

import h5py

from zoo.errors import InputError
from zoo.orca.learn.framework import State
from zoo.orca.learn.keras.built import Built
from zoo.orca.learn.steps import Position

__all__ = ["load_weights", "weights_state"]

_log = logging.getLogger(__name__)

_HDF5 = b"\x89HDF"
_WEIGHTS, _FACTS = "model.weights.h5", "metadata.json"


def weights_state(blob: bytes) -> State | None:
    """The state that a file of Keras is, which has weights alone; None for other files.

    Raises:
        InputError: It is an archive of Keras without weights.
    """
    version = ""
    if blob.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            names = set(archive.namelist())
            if _FACTS not in names:
                return None
            version = str(json.loads(archive.read(_FACTS)).get("keras_version", ""))
            if _WEIGHTS not in names:
                raise InputError(
                    "a .keras file with its weights", f"one of Keras {version} without",
                    "Save it again with model.save(path).",
                )  # fmt: skip
            blob = archive.read(_WEIGHTS)
    if not blob.startswith(_HDF5):
        return None
    return State(Position(), {"hdf5": blob, "version": version}, whole=False)


def load_weights(built: Built, state: State) -> None:
    """Put weights into the model, all of them or none; those of its optimizer if they fit.

    Raises:
        InputError: They are of another model, or the model has no weights yet.
    """
    model, blob = built.model, state.tree["hdf5"]
    if not built.ready():
        raise InputError(
            "a model that knows the shapes of its inputs, to load weights into",
            "one without",
            "Begin it with keras.Input(shape=...).",
        )
    with h5py.File(io.BytesIO(blob), "r") as file:
        legacy = "layer_names" in file.attrs or "model_weights" in file
        has_optimizer = "optimizer" in file
        said = file.attrs.get("keras_version") or file.get("model_weights", file).attrs.get(
            "keras_version", state.tree["version"]
        )
    optimizer = built.optimizer
    kept = [*model.weights, *(optimizer.variables if optimizer is not None else [])]
    before = [variable.numpy() for variable in kept]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        path = Path(folder) / ("model.h5" if legacy else "model.weights.h5")
        path.write_bytes(blob)
        try:
            model.load_weights(path)
        except Exception as exc:
            for variable, value in zip(kept, before, strict=True):
                variable.assign(value)
            writer = f" of Keras {said}" if said else ""
            reason = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
            raise InputError(
                "a file with the weights of this model",
                f"one{writer}, of which Keras says: {reason}",
                "Check that the model is the same. A file of Keras 2 may have to be loaded there, "
                "and its model.get_weights() be set here.",
            ) from exc
    skipped = any("loading for optimizer" in str(warning.message) for warning in told)
    if optimizer is not None and (skipped or not has_optimizer):
        _log.warning(
            "the file has no state of the optimizer: %s begins anew, with moments of 0 and as "
            "after 0 steps", type(optimizer).__name__,
        )  # fmt: skip
