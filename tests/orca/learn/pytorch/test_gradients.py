"""What ranks add up in a step, and clipping of what comes out."""

import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
import torch
from pyspark import cloudpickle
from pyspark.sql import DataFrame, SparkSession
from torch import nn

from zoo.orca.learn.pytorch import Estimator
from zoo.orca.learn.pytorch.gradients import (
    FlatGradients,
    RunningStatistics,
    clip,
    sparse_parameters,
)
from zoo.orca.learn.steps import GradientLimits

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS, BATCH = 64, 16


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> Iterator[DataFrame]:
    """64 rows in one partition, so that an unshuffled batch is the next 16 of them."""
    columns = ["sin(id) a", "cos(3 * id) b", "10 * sin(id) - 20 * cos(3 * id) + 1 y"]
    made = spark.range(0, ROWS, 1, 1).selectExpr(*columns).persist()
    yield made
    made.unpersist()


@pytest.fixture(scope="module")
def rows(frame: DataFrame) -> pd.DataFrame:
    return frame.toPandas()


def net(config: Any = None) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)).double()


def sgd(model: nn.Module, config: Any = None) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def estimator(ranks: int) -> Any:
    return Estimator.from_torch(
        model=net,
        optimizer=sgd,
        loss=nn.MSELoss(),
        workers_per_node=ranks,
        config={"shuffle": False},
    )


def fit(est: Any, frame: DataFrame, epochs: int = 2) -> None:
    columns = {"feature_cols": ["a", "b"], "label_cols": ["y"]}
    est.fit(frame, epochs=epochs, batch_size=BATCH, **columns)


def plain(rows: pd.DataFrame, *limits: GradientLimits | None, epochs: int = 2) -> nn.Module:
    """The same training in a loop; each fit has its own limits."""
    model = net()
    optimizer, loss = sgd(model), nn.MSELoss()
    x, y = torch.tensor(rows[["a", "b"]].to_numpy()), torch.tensor(rows["y"].to_numpy())
    for limit in limits:
        for at in list(range(0, ROWS, BATCH)) * epochs:
            optimizer.zero_grad()
            loss(model(x[at : at + BATCH]), y[at : at + BATCH]).backward()
            if limit is not None and limit.norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), limit.norm)
            elif limit is not None:
                for p in model.parameters():
                    p.grad = p.grad.clamp(limit.low, limit.high)  # type: ignore[union-attr]
            optimizer.step()
    return model


def assert_same(left: nn.Module, right: nn.Module) -> None:
    for one, other in zip(left.parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


# Clipping in a fit


@pytest.mark.spark
@pytest.mark.parametrize("ranks", [1, 2])
def test_clipping_by_norm_is_that_of_the_whole_batch(
    frame: DataFrame, rows: pd.DataFrame, ranks: int
) -> None:
    est = estimator(ranks)
    est.set_l2_norm_gradient_clipping(0.5)
    fit(est, frame)
    assert_same(est.get_model(), plain(rows, GradientLimits(norm=0.5)))


@pytest.mark.spark
@pytest.mark.parametrize("ranks", [1, 2])
def test_clipping_by_value_is_that_of_the_whole_batch(
    frame: DataFrame, rows: pd.DataFrame, ranks: int
) -> None:
    est = estimator(ranks)
    est.set_constant_gradient_clipping(-0.3, 0.1)
    fit(est, frame)
    assert_same(est.get_model(), plain(rows, GradientLimits(low=-0.3, high=0.1)))


@pytest.mark.spark
def test_clipping_counts_from_the_next_fit_on(frame: DataFrame, rows: pd.DataFrame) -> None:
    est = estimator(2)
    fit(est, frame, epochs=1)
    est.set_l2_norm_gradient_clipping(0.1)
    fit(est, frame, epochs=1)
    est.clear_gradient_clipping()
    fit(est, frame, epochs=1)
    expected = plain(rows, None, GradientLimits(norm=0.1), None, epochs=1)
    assert_same(est.get_model(), expected)


def test_parameters_without_gradient_are_not_clipped() -> None:
    used, unused = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    used.grad = torch.tensor([3.0, -4.0])
    clip([used, unused], GradientLimits(low=-1.0, high=2.0))
    assert used.grad.tolist() == [2.0, -1.0]
    used.grad = torch.tensor([3.0, 4.0])
    clip([used, unused], GradientLimits(norm=1.0))
    torch.testing.assert_close(used.grad, torch.tensor([0.6, 0.8]))
    assert unused.grad is None


# Flat gradients


def parameters() -> list[nn.Parameter]:
    """Of three types, one of them without a gradient."""
    made = [
        nn.Parameter(torch.zeros(2, 2)),
        nn.Parameter(torch.zeros(3, dtype=torch.float64)),
        nn.Parameter(torch.zeros(2, dtype=torch.float16)),
        nn.Parameter(torch.zeros(1)),
    ]
    for k, p in enumerate(made[:3]):
        p.grad = torch.full_like(p, k + 1.0)
    return made


def test_gradients_come_back_as_their_mean() -> None:
    params = parameters()
    flat = FlatGradients(params)
    flat.gather()
    for array in flat.arrays:
        array *= 2.0  # the other rank has the same
    flat.scatter(4.0)
    assert [p.grad.unique().item() for p in params[:3]] == [0.5, 1.0, 1.5]
    assert [p.grad.dtype for p in params[:3]] == [torch.float32, torch.float64, torch.float16]
    assert params[3].grad is None


def test_gradient_of_another_rank_reaches_a_parameter_without_one() -> None:
    params = parameters()
    flat = FlatGradients(params)
    flat.gather()
    flat.arrays[0][3] = 1.0
    flat.arrays[1][-1] = 8.0
    flat.scatter(2.0)
    assert params[3].grad is not None
    assert params[3].grad.item() == 4.0


def test_cleared_gradients_add_nothing() -> None:
    flat = FlatGradients(parameters())
    flat.gather()
    flat.clear()
    assert all(not array.any() for array in flat.arrays)


def test_sparse_gradients_are_gathered_dense() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1, 1])).sum().backward()
    flat = FlatGradients(list(table.parameters()))
    flat.gather()
    flat.scatter(1.0)
    assert table.weight.grad is not None
    assert table.weight.grad.tolist() == [[0, 0], [2, 2], [0, 0], [0, 0]]


# Running statistics


def norms() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm1d(2, affine=False)))


def test_sparse_gradients_come_back_for_the_rows_that_any_rank_looked_up() -> None:
    """Row 1 was looked up, and its gradient is zero: an optimizer moves it all the same."""
    ranks = [nn.Embedding(5, 2, sparse=True) for _ in range(2)]
    made = [FlatGradients([r.weight], sparse_parameters(r)) for r in ranks]
    for rank, item, scale in zip(ranks, (3, 1), (2.0, 0.0), strict=True):
        (rank(torch.tensor([item])).sum() * scale).backward()
    for gradients in made:
        gradients.gather()
    for own, other in zip(made[0].arrays, made[1].arrays, strict=True):
        own += other
    made[0].scatter(2.0)
    grad = ranks[0].weight.grad
    assert grad is not None
    assert grad.is_sparse
    assert grad.coalesce().indices().tolist() == [[1, 3]]
    assert grad.to_dense().tolist() == [[0, 0], [0, 0], [0, 0], [1, 1], [0, 0]]
    torch.optim.SparseAdam([ranks[0].weight]).step()


def test_running_statistics_are_a_mean_by_rows() -> None:
    first, second = norms(), norms()
    statistics = [RunningStatistics(first), RunningStatistics(second)]
    first(torch.randn(6, 2))
    second(torch.randn(3, 2))
    means = [m[0].running_mean.clone() for m in (first, second)]
    statistics[0].gather(6)
    statistics[1].gather(3)
    total = statistics[0].arrays[0] + statistics[1].arrays[0]
    for one in statistics:
        one.arrays[0][:] = total
        one.scatter(9)
    for model in (first, second):
        torch.testing.assert_close(model[0].running_mean, (6 * means[0] + 3 * means[1]) / 9)


def test_step_that_was_cut_off_leaves_no_trace() -> None:
    model = norms()
    statistics = RunningStatistics(model)
    model(torch.randn(6, 2))
    statistics.gather(6)
    statistics.scatter(6)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model(torch.randn(6, 2))
    assert model[0].num_batches_tracked == 2
    statistics.restore()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_model_without_running_statistics_adds_nothing_up() -> None:
    statistics = RunningStatistics(nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)))
    statistics.gather(3)
    statistics.scatter(3)
    statistics.restore()
    assert statistics.arrays == []


def test_it_knows_its_own_buffers() -> None:
    model = norms()
    statistics = RunningStatistics(model)
    assert statistics.holds(model[0].running_mean)
    assert not statistics.holds(torch.zeros(2))
