"""A model of ONNX Runtime, on its way as bytes and at work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from zoo.errors import InputError, load_extra
from zoo.orca.data.storage import Location, is_local
from zoo.orca.learn.driver.snapshots import read_bytes
from zoo.orca.learn.score.ports import OpenModel, Port, numpy_dtype

__all__ = ["opened", "read_whole"]

_TYPES = {
    "tensor(bool)": "bool",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16)},
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (32, 64)},
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
_ERRORS = 3


def read_whole(place: Location) -> bytes:
    """The content of a file, with weights that lie in other files put into it.

    Raises:
        InputError: They cannot be read.
    """
    blob = read_bytes(place)
    if b"location" not in blob:  # a key that names a file of weights
        return blob
    onnx = load_extra("onnx", "onnx")
    try:
        model = onnx.load_model_from_string(blob)
        tensors = [*model.graph.initializer]
        if not any(map(onnx.external_data_helper.uses_external_data, tensors)):
            return blob
        if not is_local(place):
            raise OSError("its weights lie in other files")
        # It refuses files outside the folder of the model.
        onnx.load_external_data_for_model(model, str(place.parent))
        return bytes(model.SerializeToString())
    except Exception as exc:  # noqa: BLE001 - whatever it is, there is no model
        raise InputError(
            "an ONNX file, with its weights in it or in local files beside it", str(exc),
            "Export it again, with external_data=False.",
        ) from exc  # fmt: skip


def opened(blob: bytes, threads: int = 0) -> OpenModel:
    """A model, ready to run in this process.

    Args:
        blob: Of the file, with its weights in it.
        threads: That it computes with; 0 for as many as there are cores.

    Raises:
        InputError: ONNX Runtime cannot run it here.
        NotYetError: Its inputs or outputs are no tensors of numbers.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _ERRORS
    # Threads that wait in a loop take the cores from other tasks.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # its errors have no base of their own
        raise InputError(
            "a model that ONNX Runtime can run", str(exc).strip().splitlines()[-1],
            "Check the file; export the model again, without operators of your own.",
        ) from exc  # fmt: skip
    inputs = [_port(node) for node in session.get_inputs()]
    for node in session.get_outputs():
        numpy_dtype(node.type, _TYPES, f"output '{node.name}'")
    names = [port.name for port in inputs]

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        # A session keeps nothing of a run: threads may call at once.
        made: list[np.ndarray] = session.run(None, dict(zip(names, arrays, strict=True)))
        return made

    return OpenModel(inputs, run)


def _port(node: Any) -> Port:
    sizes = [size if isinstance(size, int) and size >= 0 else None for size in node.shape]
    return Port(node.name, numpy_dtype(node.type, _TYPES, f"input '{node.name}'"), tuple(sizes))
