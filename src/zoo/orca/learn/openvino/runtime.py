"""A model of OpenVINO, on its way as bytes and at work."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import openvino

from zoo.errors import InputError, NotYetError
from zoo.orca.learn.score.ports import OpenModel, Port, numpy_dtype

__all__ = ["core", "joined_files", "opened", "read_graph"]

_HEAD = 8
# Its plugin for processors cuts these to 32 bits, without a word.
_CUT = {"int64": "int32", "uint64": "int32", "uint32": "int32"}
_TYPES = {
    "boolean": "bool",
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
}


@cache
def core() -> Any:
    """The runtime of this process; models that it compiles are kept in no folder."""
    return openvino.Core()


def joined_files(xml: bytes, weights: bytes) -> bytes:
    """Both files of a model as one piece."""
    return len(xml).to_bytes(_HEAD, "little") + xml + weights


def read_graph(blob: bytes) -> Any:
    """The graph, not compiled.

    Args:
        blob: From `joined_files`.

    Raises:
        InputError: It is none that OpenVINO reads.
    """
    end = _HEAD + int.from_bytes(blob[:_HEAD], "little")
    xml, weights = blob[_HEAD:end], blob[end:]
    try:
        return core().read_model(xml, weights)
    except RuntimeError as exc:
        raise InputError(
            "a model in OpenVINO's form", str(exc).strip().splitlines()[-1],
            "Check both files, .xml and .bin; convert the model again.",
        ) from exc  # fmt: skip


def opened(blob: bytes, threads: int = 0) -> OpenModel:
    """A model, compiled for this process.

    Args:
        blob: From `joined_files`.
        threads: That it computes with; 0 for as many as there are cores.

    Raises:
        InputError: OpenVINO cannot run it here.
        NotYetError: Its tensors hold no numbers.
    """
    graph = read_graph(blob)
    if graph.get_variables():
        raise NotYetError(
            "a model whose output depends on its input alone", "one that remembers other rows",
            "Export it without state: rows come in any order, to many processes.",
        )  # fmt: skip
    inputs = [_port(port, k) for k, port in enumerate(graph.inputs)]
    for k, port in enumerate(graph.outputs):
        numpy_dtype(port.get_element_type().get_type_name(), _TYPES, f"output {k}")
    settings = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # Processes do not know of each other, and would all hold on to the first cores.
        "ENABLE_CPU_PINNING": False,
        # Else some processors compute in bfloat16, and their numbers are others.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        compiled = core().compile_model(graph, "CPU", settings)
    except RuntimeError as exc:
        raise InputError(
            "a model that OpenVINO can run on this processor",
            str(exc).strip().splitlines()[-1],
            "Convert it with fewer or other layers.",
        ) from exc
    return OpenModel(inputs, _Requests(compiled))


def _port(port: Any, number: int) -> Port:
    names = port.get_names()
    name = min(names) if names else port.get_node().get_friendly_name()
    kind = numpy_dtype(port.get_element_type().get_type_name(), _TYPES, f"input '{name}'")
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        raise NotYetError(
            "inputs with a known number of dimensions", f"'{name}', of any number",
            "Give the shape of the input when the model is converted.",
        )  # fmt: skip
    sizes = [None if d.is_dynamic else int(d.get_length()) for d in shape]
    return Port(name, kind, tuple(sizes), _CUT.get(kind))


class _Requests:
    """Runs a compiled model; every thread has a request of its own."""

    def __init__(self, compiled: Any) -> None:
        self._compiled, self._own = compiled, threading.local()

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        # Outputs are copied: the request writes the next ones over them.
        result = request.infer(list(arrays), share_inputs=True)
        return [result[k] for k in range(len(self._compiled.outputs))]
