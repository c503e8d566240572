"""What goes wrong while ranks train: each is one clear error, of its own type. No Spark."""

import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from pyspark.sql import types as T
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from local_round import run_round, write_shards
from zoo.errors import InputError, RankError
from zoo.orca.data.tensors.plan_columns import plan_columns
from zoo.orca.learn.metrics import MAE, Accuracy
from zoo.orca.learn.order import LoaderSource, Order, Source, TensorSource
from zoo.orca.learn.pytorch.recipe import Recipe, build, takes_one_input
from zoo.orca.learn.pytorch.scorer import running_metrics
from zoo.orca.learn.pytorch.state import save_state
from zoo.orca.learn.steps import Position

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("warm_launcher")


class Oddity(Exception):
    """An error that only a user's code has."""


class Lines(nn.Module):
    def __init__(self, width: int = 1, outputs: int = 1, *, squeeze: bool = True) -> None:
        super().__init__()
        self.layer, self.squeeze = nn.Linear(width, outputs), squeeze

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x.reshape(len(x), -1).float())
        return out.squeeze(-1) if self.squeeze else out


class Twins(Lines):
    def forward(self, x: torch.Tensor) -> Any:
        out = super().forward(x)
        return out, out


def fails(*_: Any, **__: Any) -> Any:
    raise Oddity("of the user")


def exits(output: Any, target: Any) -> Any:
    sys.exit(3)


def dies(output: Any, target: Any) -> Any:
    os._exit(3)


ROWS = np.arange(8.0)
KINDS = {"f": T.DoubleType(), "i": T.LongType()}


def source_of(
    folder: Path, model: nn.Module, features: list[np.ndarray], labels: list[np.ndarray]
) -> TensorSource:
    """Eight rows in two shards, laid out as for a frame with a column for each array."""
    columns = {f"x{k}": a for k, a in enumerate(features)}
    columns |= {f"y{k}": a for k, a in enumerate(labels)}
    fields = [T.StructField(name, kind_of(a)) for name, a in columns.items()]
    names = list(columns)
    plan = plan_columns(
        T.StructType(fields),
        names[: len(features)],
        names[len(features) :],
        assemble=takes_one_input(model),
        need_labels=bool(labels),
    )
    tensors = [[columns[c.name] for c in t.columns] for t in plan.tensors]
    whole = [np.column_stack(t) if len(t) > 1 else t[0] for t in tensors]
    layout = [
        (spec.dtype or "float32", a.shape[1:]) for spec, a in zip(plan.tensors, whole, strict=True)
    ]
    plan = plan.resolved(layout)
    shards = write_shards(folder, plan, [[a[:4] for a in whole], [a[4:] for a in whole]])
    return TensorSource(plan, shards, batch_size=4, seed=0)


def kind_of(array: np.ndarray) -> T.DataType:
    kind = KINDS[array.dtype.kind]
    return T.ArrayType(kind) if array.ndim > 1 else kind


def train(
    source: Source, *, ranks: int = 1, metrics: Any = None, checked: Any = None, **given: Any
) -> None:
    """A round of one epoch."""
    recipe = Recipe(**({"loss": nn.MSELoss(), "optimizer": sgd} | given))
    order = Order(
        framework="pytorch",
        recipe=cloudpickle.dumps(recipe),
        state=save_state(build(recipe), Position()),
        source=source,
        validation=checked,
        metrics=running_metrics(metrics),
        until=1,
    )
    run_round(order, ranks)


def sgd(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-4)


class Bad:
    """A fit that fails.

    Args:
        kind: Of its error.
        says: What the error says.
        features: Of its rows.
        labels: The same.
        model: Made anew.
        ranks: How many.
        validates: On the same rows.
        given: To the recipe.
    """

    def __init__(
        self,
        kind: type[BaseException],
        says: str,
        *,
        features: tuple[np.ndarray, ...] = (ROWS,),
        labels: tuple[np.ndarray, ...] = (ROWS,),
        model: Callable[[], nn.Module] = Lines,
        validates: bool = False,
        ranks: int = 1,
        **given: Any,
    ) -> None:
        self.kind, self.says, self.given = kind, says, given
        self.rows, self.model = (list(features), list(labels)), model
        self.validates, self.ranks = validates, ranks

    def run(self, folder: Path) -> None:
        """Train."""
        model = self.model()
        source = source_of(folder, model, *self.rows)
        checked = source if self.validates else None
        train(source, checked=checked, ranks=self.ranks, **({"model": model} | self.given))


wide = partial(Lines, squeeze=False)
three = partial(Lines, outputs=3, squeeze=False)
four = partial(Lines, outputs=4, squeeze=False)

STEPS = {
    "real labels for cross entropy": Bad(
        RuntimeError, "Long", model=three, loss=nn.CrossEntropyLoss()),
    "class out of range": Bad(
        IndexError, "Target . is out of bounds", labels=(np.arange(8),), model=three,
        loss=nn.CrossEntropyLoss()),
    "class below zero": Bad(
        IndexError, "Target -1 is out of bounds", labels=(np.full(8, -1),), model=three,
        loss=nn.CrossEntropyLoss()),
    "output (N, 3), target (N)": Bad(
        ValueError, r"one shape.*\(4, 3\) and \(4,\).*label_cols=\[\['y'\]\]", model=three),
    "output (N, 3), target (N) for binary cross entropy": Bad(
        ValueError, "one shape", model=three, loss=nn.BCEWithLogitsLoss()),
    "output (N, 4), target (N) for a function": Bad(
        ValueError, "one shape", model=four, loss=nn.functional.mse_loss),
    "output (N), target (N, 2)": Bad(
        ValueError, r"one shape.*\(4,\) and \(4, 2\)", labels=(ROWS, ROWS)),
    "loss with several numbers a row": Bad(
        ValueError, "one number.*Take its mean", loss=lambda o, t: torch.stack([o, t], dim=1)),
    "loss that is no tensor": Bad(
        ValueError, "as a tensor; received float", loss=lambda o, t: 1.0),
    "loss without gradient": Bad(RuntimeError, "grad", loss=lambda o, t: t.mean()),
    "two outputs and no loss": Bad(
        ValueError, "loss.*tuple", model=Twins, labels=(), loss=None),
    "wrong width": Bad(
        RuntimeError, "shapes", features=(np.ones((8, 3)),), model=partial(Lines, width=2)),
    "loss raises": Bad(Oddity, "of the user", loss=fails),
    "two ranks, loss raises": Bad(Oddity, "of the user", loss=fails, ranks=2),
    "rank exits": Bad(RankError, "SystemExit: 3", loss=exits),
    "rank dies": Bad(RankError, "lost without a word", loss=dies),
    "metric of another shape": Bad(
        RuntimeError, "shape|size", model=partial(Lines, outputs=2, squeeze=False), metrics=[MAE()],
        loss=lambda o, t: o.mean(), validates=True),
    "metric of another rank": Bad(
        ValueError, "[Ss]hape|dim", labels=(np.arange(8),), loss=lambda o, t: o.mean(),
        model=lambda: nn.Sequential(four(), nn.Unflatten(1, (1, 2, 2))), metrics=[Accuracy()],
        validates=True),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_step_that_fails_is_one_clear_error(name: str, tmp_path: Path) -> None:
    bad = STEPS[name]
    with pytest.raises(bad.kind, match=f"(?s){bad.says}"):
        bad.run(tmp_path)


@pytest.mark.parametrize("ranks", [1, 2])
def test_error_of_a_rank_tells_where(tmp_path: Path, ranks: int) -> None:
    with pytest.raises(Oddity) as caught:
        Bad(Oddity, "", loss=fails, ranks=ranks).run(tmp_path)
    note = caught.value.__notes__[0]
    assert re.match(r"Raised by rank [01] on \S+ \(process \d+\):\n", note)
    assert "in fails" in note


# Loaders


def loader(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.ones(8, 1), torch.ones(8)), batch_size=batch_size)


LOADERS: dict[str, tuple[Callable[..., Any], type[BaseException], str]] = {
    "raises": (fails, Oddity, "of the user"),
    "returns a list": (lambda config, size: [1], InputError, "DataLoader.*list"),
    "returns a dataset": (lambda c, b: loader(c, b).dataset, InputError, "DataLoader.*TensorData"),
    "takes nothing": (lambda: None, TypeError, "positional"),
    "has no rows": (lambda c, b: DataLoader([], batch_size=b), InputError, "empty dataset"),
    "has no targets": (
        lambda c, b: DataLoader(torch.ones(8, 1), batch_size=b),
        InputError, "feature, ..., target"),
    "has a dataset that raises": (
        lambda c, b: DataLoader([1] * 8, batch_size=b, collate_fn=fails), Oddity, "of the user"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADERS)
def test_loader_that_fails_is_one_clear_error(name: str) -> None:
    creator, kind, says = LOADERS[name]
    with pytest.raises(kind, match=f"(?s){says}"):
        train(LoaderSource(creator, {}, batch_size=4, seed=0), model=Lines())
