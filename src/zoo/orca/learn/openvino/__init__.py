"""Score with OpenVINO: model files that predict on Spark data, conversion to them, int8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.errors import load_extra
from zoo.orca.learn.openvino.silence import without_telemetry

if TYPE_CHECKING:
    from zoo.orca.learn.openvino.convert import to_openvino
    from zoo.orca.learn.openvino.estimator import Estimator

__all__ = ["Estimator", "to_openvino"]

# Every module beside this one needs it, and Python comes by here first.
with without_telemetry():
    load_extra("openvino", "openvino")


def __getattr__(name: str) -> object:
    # Lazily: tasks import the modules beside this one, and need nothing of the driver's side.
    if name == "Estimator":
        from zoo.orca.learn.openvino.estimator import Estimator

        return Estimator
    if name == "to_openvino":
        from zoo.orca.learn.openvino.convert import to_openvino

        return to_openvino
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
