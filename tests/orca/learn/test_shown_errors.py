"""What is seen of an error of the user: one traceback, few lines, the line that raised it."""

import re
import subprocess
from collections.abc import Callable

import pytest

PROGRAM = """
import sys
import traceback

import numpy as np
import pandas as pd
import torch
from torch import nn

from zoo.orca import OrcaContext, init_orca_context, stop_orca_context
from zoo.orca.data import XShards
from zoo.orca.data.pandas import read_csv
from zoo.orca.learn.pytorch import Estimator


class Mine(Exception):
    pass


def fails(*args):
    raise Mine("said by the user")


def fails_long(shard):
    error = Mine("long " + "x" * 100_000)
    error.add_note("a note of the user")
    raise error


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    def forward(self, x):
        if len(x) > 3:
            fails()
        return self.inner(x).sum(1)


class BadMetric:
    def __call__(self, preds, targets):
        fails()
    def compute(self):
        return torch.zeros(())
    def state(self):
        return torch.zeros(1, dtype=torch.float64)
    def load_state(self, vector):
        pass
    def reset(self):
        pass


def two_layers():
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(4, 1)), nn.Flatten(0))


def estimator(**changes):
    given = {"model": nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), "loss": nn.MSELoss()}
    return Estimator.from_torch(
        optimizer=lambda m, c: torch.optim.SGD(m.parameters(), lr=0.1), **given | changes
    )


def lazy(est):
    est.predict(frame, feature_cols=["a", "b"]).collect()


init_orca_context(cores=2, conf={"spark.ui.enabled": "false"})
spark = OrcaContext.get_spark_session()
data = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=["a", "b", "y"])
frame = spark.createDataFrame(data).repartition(2)
columns = {"feature_cols": ["a", "b"], "label_cols": ["y"]}
shards = XShards.partition({"x": np.ones((40, 2), "float32"), "y": np.ones(40, "float32")}, 2)
with open("numbers.csv", "w") as file:
    file.write("n,m\\n" + "1,2\\n" * 50 + "many,3\\n")

CASES = {
    "fit: loss": lambda: estimator(loss=fails).fit(frame, batch_size=8, **columns),
    "fit: forward": lambda: estimator(model=Broken()).fit(frame, batch_size=8, **columns),
    "fit: layers": lambda: estimator(model=two_layers()).fit(shards, batch_size=8),
    "fit: creator": lambda: estimator().fit(fails, batch_size=8),
    "evaluate: metric": lambda: estimator(metrics=BadMetric()).evaluate(frame, **columns),
    "evaluate: forward": lambda: estimator(model=Broken()).evaluate(frame, **columns),
    "predict: pandas": lambda: estimator(model=Broken()).predict(data, feature_cols=["a", "b"]),
    "predict: lazy": lambda: lazy(estimator(model=Broken())),
    "predict: shards": lambda: estimator(model=Broken()).predict(shards),
    "transform_shard": lambda: shards.transform_shard(fails),
    "transform_shard: long": lambda: shards.transform_shard(fails_long),
    "read_csv: dtype": lambda: read_csv("numbers.csv", dtype={"n": "int64"}).collect(),
}
for name, case in CASES.items():
    if len(sys.argv) > 1 and sys.argv[1] not in name:
        continue
    print(f"=== {name}", file=sys.stderr, flush=True)
    try:
        case()
    except Exception:
        traceback.print_exc()
print("=== end", file=sys.stderr, flush=True)
stop_orca_context()
"""


def cases(shown: str) -> dict[str, str]:
    """What was printed for each case."""
    parts = re.split(r"^=== (.*)$", shown, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture(scope="module")
def shown(
    run_program: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    program = tmp_path_factory.mktemp("errors") / "program.py"
    program.write_text(f"import os\nos.chdir({str(program.parent)!r})\n{PROGRAM}")
    done = run_program(program)
    assert done.returncode == 0, done.stderr
    return cases(done.stderr)


# Lines at most, and what stands in them. Of a lazy frame Spark tells, when it computes.
EXPECTED = {
    "fit: loss": (20, ["Mine: said by the user", "Raised by rank 0", "in fails"]),
    "fit: forward": (20, ["Mine: said by the user", "Raised by rank", "in forward"]),
    "fit: layers": (30, ["ColumnError", "mat1 and mat2", "linear.py"]),
    "fit: creator": (20, ["Mine: said by the user", "in fails"]),
    "evaluate: metric": (20, ["Mine: said by the user", "Raised by partition", "in fails"]),
    "evaluate: forward": (20, ["Mine: said by the user", "in forward"]),
    "predict: pandas": (20, ["Mine: said by the user", "Raised by partition", "in forward"]),
    "predict: lazy": (40, ["Mine: said by the user", "Raised by partition", "in forward"]),
    "predict: shards": (20, ["Mine: said by the user", "Raised by shard 0", "in forward"]),
    "transform_shard": (20, ["Mine: said by the user", "Raised by shard 0", "in fails"]),
    "transform_shard: long": (25, ["Mine: long xxx", "a note of the user", "in fails_long"]),
    "read_csv: dtype": (20, ["numbers.csv", "many"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", EXPECTED)
def test_an_error_is_one_traceback(shown: dict[str, str], case: str) -> None:
    most, parts = EXPECTED[case]
    text = shown[case]
    assert not [part for part in parts if part not in text], text[-5_000:]
    # What the user's own call of Spark raises repeats the text of the task.
    tracebacks = 2 if case == "predict: lazy" else 1
    assert text.count("Traceback (most recent call last)") == tracebacks, text[-5_000:]
    assert len(text.splitlines()) <= most, text[-5_000:]
    assert "org.apache" not in text


def test_every_case_is_looked_at() -> None:
    assert set(re.findall(r'^    "([^"]+)": lambda', PROGRAM, re.MULTILINE)) == set(EXPECTED)
