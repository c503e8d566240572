"""Where only the base is installed, each optional part says which extra brings it."""

import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PROGRAM = """
import sys

blocked = "matplotlib mlflow sklearn tensorboardX tensorflow torch torchmetrics"
sys.modules.update(dict.fromkeys(blocked.split()))  # an import of it fails
from zoo.errors import MissingExtraError
from zoo.orca.data.image import read_parquet
from zoo.orca.learn.history import History
from zoo.orca.learn.mlflow_logger import MLflowLogger
from zoo.orca.learn.tensorboard import TensorBoardSummary

def torch_name(name):
    from zoo.orca.learn import pytorch
    return getattr(pytorch, name)

for use in (
    lambda: torch_name("Estimator"),
    lambda: torch_name("TrainingOperator"),
    lambda: History([{"epoch": 1, "train_loss": 1.0}]).plot(),
    lambda: MLflowLogger("runs"),
    lambda: TensorBoardSummary("logs", "app").log(1, {"loss": 1.0}, kind="train", wall_time=0.0),
    lambda: read_parquet("tf_dataset", "nowhere"),
    lambda: read_parquet("dataloader", "nowhere"),
):
    try:
        use()
    except MissingExtraError as error:
        print(error.extra)
"""


@pytest.fixture(scope="module")
def named(
    fresh_python: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[str]:
    place = f"import os\nos.chdir({str(tmp_path_factory.mktemp('bare'))!r})\n"
    done = fresh_python(place + PROGRAM)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_what_is_missing_is_named(named: list[str]) -> None:
    assert named == ["torch", "torch", "plot", "mlflow", "tensorboard", "tensorflow", "torch"]


def test_the_extras_that_are_named_exist(named: list[str]) -> None:
    assert set(named) <= set(EXTRAS)
