"""One contender's program: `python -m scoring NAME ORDER ANSWER`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from scoring.job import Job

CONTENDERS = {
    "torch": "scoring.ours:with_torch",
    "torch_loop": "scoring.peers:torch_loop",
    "udf": "scoring.peers:pandas_udf",
    "ray": "scoring.peers:ray_data",
    "keras": "scoring.ours:with_keras",
    "keras_loop": "scoring.peers:keras_loop",
    "onnx": "scoring.ours:with_onnx",
    "onnx_loop": "scoring.peers:onnx_loop",
    "openvino": "scoring.ours:with_openvino",
    "openvino_loop": "scoring.peers:openvino_loop",
    "int8": "scoring.ours:with_int8",
    "int8_loop": "scoring.peers:int8_loop",
}
MODELS = "scoring.models:write_models"


def main(name: str, order: str, answer: str) -> None:
    module, _, function = {**CONTENDERS, "models": MODELS}[name].partition(":")
    found = getattr(importlib.import_module(module), function)(Job.read(order))
    Path(answer).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
