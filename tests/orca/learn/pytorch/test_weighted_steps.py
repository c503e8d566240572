"""A step with a loss that divides by weights: the same in parts, and shared by ranks."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.learner import TorchLearner
from zoo.orca.learn.pytorch.losses import say_unknown_weight
from zoo.orca.learn.pytorch.recipe import Recipe, build
from zoo.orca.learn.steps import StepSums

WEIGHT = torch.tensor([1.0, 9.0], dtype=torch.float64)
GENERATOR = torch.Generator().manual_seed(3)
X = torch.randn(12, 2, dtype=torch.float64, generator=GENERATOR)
Y = torch.tensor([0, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1])


def in_function(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(output, target, weight=WEIGHT)


def sum_and_weight(output: torch.Tensor, target: torch.Tensor) -> tuple[Any, Any]:
    total = functional.cross_entropy(output, target, weight=WEIGHT, reduction="sum")
    return total, WEIGHT[target].sum()


def ignoring(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(output, target, ignore_index=0)


LOSSES = [nn.CrossEntropyLoss(WEIGHT), in_function, sum_and_weight, ignoring, nn.CrossEntropyLoss()]


def learner(loss: Any, ranks: int = 1, parts: int = 1) -> Any:
    torch.manual_seed(1)
    model = nn.Linear(2, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    built = build(Recipe(model, optimizer, loss, accumulate=parts))
    made = TorchLearner(built, SimpleNamespace(rank=0, size=ranks), seed=0)  # type: ignore[arg-type]
    return SimpleNamespace(model=model, made=made, arrays=made.buffers(), sums=StepSums())


def rows(low: int, high: int) -> Batch:
    return Batch((X[low:high],), (Y[low:high],), high - low)


def step(loss: Any, cuts: list[int], parts: int = 1) -> tuple[torch.Tensor, float]:
    """Weights and loss after one step whose rows are cut between ranks."""
    ranks = [learner(loss, len(cuts) - 1, parts) for _ in cuts[1:]]
    for one, low, high in zip(ranks, cuts, cuts[1:], strict=False):
        one.made.backward(rows(low, high), one.sums)
    for several in [*zip(*(one.arrays for one in ranks), strict=True)]:
        total = np.sum(several, axis=0)
        for array in several:
            array[:] = total
    sums = StepSums(np.sum([one.sums.array for one in ranks], axis=0))
    ranks[0].made.update(sums)
    return torch.cat([p.detach().flatten() for p in ranks[0].model.parameters()]), sums.loss


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("cuts", [[0, 6, 12], [0, 2, 12], [0, 1, 5, 12]])
def test_any_number_of_ranks_gives_the_same_step(loss: Any, cuts: list[int]) -> None:
    whole, mean = step(loss, [0, 12])
    shared, same = step(loss, cuts)
    torch.testing.assert_close(shared, whole, atol=1e-12, rtol=0)
    assert same == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("parts", [2, 5, 12])
def test_parts_of_a_batch_give_the_same_step(loss: Any, parts: int) -> None:
    whole, mean = step(loss, [0, 12])
    shared, same = step(loss, [0, 12], parts)
    torch.testing.assert_close(shared, whole, atol=1e-12, rtol=0)
    assert same == pytest.approx(mean, abs=1e-12)


def test_unknown_weights_are_told_where_they_matter(caplog: pytest.LogCaptureFixture) -> None:
    say_unknown_weight.cache_clear()

    def own(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        each = functional.cross_entropy(output, target, reduction="none")
        return (each * WEIGHT[target]).sum() / WEIGHT[target].sum()

    step(own, [0, 12])
    assert "(sum, weight)" not in caplog.text
    step(own, [0, 6, 12])
    step(own, [0, 12], parts=2)
    assert caplog.text.count("let it return (sum, weight)") == 1
