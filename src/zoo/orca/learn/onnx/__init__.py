"""Score with ONNX Runtime: model files that predict on Spark data, and conversion to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.errors import load_extra

if TYPE_CHECKING:
    from zoo.orca.learn.onnx.convert import to_onnx
    from zoo.orca.learn.onnx.estimator import Estimator

__all__ = ["Estimator", "to_onnx"]

# Every module beside this one needs it, and Python comes by here first.
load_extra("onnxruntime", "onnx")


def __getattr__(name: str) -> object:
    # Lazily: tasks import the modules beside this one, and need nothing of the driver's side.
    if name == "Estimator":
        from zoo.orca.learn.onnx.estimator import Estimator

        return Estimator
    if name == "to_onnx":
        from zoo.orca.learn.onnx.convert import to_onnx

        return to_onnx
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
