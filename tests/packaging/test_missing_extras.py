"""Whoever touches what needs a package that is not installed is told which extra brings it."""

import json
import subprocess
from collections.abc import Callable

import pytest

# By package: the extra, and programs that need it.
TOUCHES = {
    "torch": (
        "torch",
        [
            "from zoo.orca.learn.pytorch import Estimator",
            "from zoo.orca.learn.pytorch import TrainingOperator",
            "import zoo.orca.learn.pytorch.pytorch_metrics",
            "from zoo.orca.learn.metrics import MAE; MAE().get_metric('pytorch')",
            "from zoo.orca.learn.framework import framework_for; framework_for('pytorch')",
            "from zoo.orca.data.image.reading.dataloader import read_as_dataloader as read; "
            "read('nowhere')",
        ],
    ),
    "keras": (
        "keras",
        [
            "from zoo.orca.learn.tf.estimator import Estimator",
            "from zoo.orca.learn.tf2 import Estimator",
            "from zoo.orca.learn.framework import framework_for as f; f('keras-tensorflow')",
        ],
    ),
    "tensorflow": (
        "tensorflow",
        [
            "from zoo.orca.data.image.reading.tf_reader import read_as_tf_dataset as read; "
            "read('nowhere')",
            "import numpy; from zoo.orca.data.tf.variable import VariableArrays as V; "
            "V(numpy.dtype('float32'), None).signature()",
        ],
    ),
    "openvino": (
        "openvino",
        [
            "from zoo.orca.learn.openvino import Estimator",
            "from zoo.orca.learn.openvino import to_openvino",
        ],
    ),
    "onnxruntime": (
        "onnx",
        ["from zoo.orca.learn.onnx import Estimator", "from zoo.orca.learn.onnx import to_onnx"],
    ),
    "onnxscript": (
        "onnx",
        ["from zoo.orca.learn.onnx import to_onnx; to_onnx(None, 'a.onnx', sample=None)"],
    ),
    "nncf": (
        "quantization",
        ["from zoo.orca.learn.openvino.quantize import load_nncf; load_nncf()"],
    ),
    "matplotlib": (
        "plot",
        ["from zoo.orca.learn.history import History; History([{'train_loss': 1.0}]).plot()"],
    ),
    "mlflow": (
        "mlflow",
        ["from zoo.orca.learn.mlflow_logger import MLflowLogger; MLflowLogger('x')"],
    ),
    "tensorboardX": (
        "tensorboard",
        ["from zoo.orca.learn.tensorboard import TensorBoardSummary as T; T('.', 'x')"],
    ),
    "jinja2": (
        "report",
        [
            "from zoo.orca.learn.report_page import FitFacts, render_page; "
            "render_page(FitFacts(evaluation={'MAE': 1.0}), title='x')"
        ],
    ),
}
# Modules of each package cannot be found, as if it were not installed.
PROGRAM = """
import json, sys
missing, touches = {given}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import zoo.orca
told = []
for touch in touches:
    try:
        exec(touch)
    except ImportError as exc:
        told.append([type(exc).__name__, str(exc)])
    else:
        told.append(["nothing", touch])
print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.parametrize("package", TOUCHES)
def test_the_extra_is_named(
    fresh_python: Callable[..., subprocess.CompletedProcess[str]], package: str
) -> None:
    extra, touches = TOUCHES[package]
    done = fresh_python(PROGRAM.format(given=repr((package, touches))))
    assert done.returncode == 0, done.stderr
    message = f"{package} is needed here; run: pip install 'zoo[{extra}]'"
    assert json.loads(done.stdout) == [["MissingExtraError", message]] * len(touches)
