"""Losses of rows that have weights: a row of weight 3 is three such rows."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.learner import TorchLearner
from zoo.orca.learn.pytorch.losses import LossPerOutput, weigh_loss
from zoo.orca.learn.pytorch.recipe import Recipe, build
from zoo.orca.learn.pytorch.row_losses import RowLossError, require_row_losses
from zoo.orca.learn.steps import StepSums

ROWS, COLUMNS = 7, 4
GENERATOR = torch.Generator().manual_seed(11)


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


@dataclass
class Given:
    """What was built, as far as losses go."""

    loss: Any


TIMES = torch.tensor([1, 3, 0, 2, 1, 4, 1])
SCORES, CHANCES = numbers(ROWS, COLUMNS), numbers(ROWS, COLUMNS).sigmoid()
CLASSES = torch.tensor([0, 1, 2, 3, 1, 1, 0])
MAPS = torch.arange(ROWS * 3).reshape(ROWS, 3) % COLUMNS
SIGNS = numbers(ROWS).sign()
RARE = torch.tensor([1.0, 2.5, 0.0, 4.0], dtype=torch.float64)
TO_CLASSES = [
    nn.CrossEntropyLoss(),
    nn.CrossEntropyLoss(RARE),
    nn.CrossEntropyLoss(ignore_index=1),
    nn.CrossEntropyLoss(RARE + 0.5, ignore_index=3, label_smoothing=0.2),
    nn.CrossEntropyLoss(RARE, reduction="sum"),
    nn.MultiMarginLoss(weight=RARE),
]
TO_NUMBERS = [
    nn.MSELoss(),
    nn.L1Loss(),
    nn.HuberLoss(delta=0.5),
    nn.SmoothL1Loss(beta=0.3),
    nn.BCEWithLogitsLoss(pos_weight=RARE),
    nn.MultiLabelSoftMarginLoss(),
    nn.PoissonNLLLoss(),
    nn.SoftMarginLoss(),
    nn.HingeEmbeddingLoss(),
    nn.KLDivLoss(reduction="batchmean"),
    nn.MSELoss(reduction="sum"),
]
CASES = [
    *((loss, SCORES, CLASSES) for loss in TO_CLASSES),
    *((loss, SCORES, CHANCES) for loss in TO_NUMBERS),
    (nn.BCELoss(), CHANCES, (SCORES > 0).double()),
    (nn.NLLLoss(RARE), SCORES.log_softmax(1), CLASSES),
    (nn.CrossEntropyLoss(RARE), SCORES, CHANCES / CHANCES.sum(1, keepdim=True)),
    (nn.CrossEntropyLoss(RARE, ignore_index=2), numbers(ROWS, COLUMNS, 3), MAPS),
    (nn.MSELoss(), numbers(ROWS, 1), numbers(ROWS)),
    (lambda o, t: functional.cross_entropy(o, t, reduction="none"), SCORES, CLASSES),
    (lambda o, t: (o - t).abs().sum(1), SCORES, CHANCES),
    (None, numbers(ROWS, 2), None),
]


def weighed(loss: Any, output: Any, target: Any, weights: torch.Tensor | None = None) -> Any:
    targets = () if target is None else (target,)
    return weigh_loss(Given(loss), output, targets, len(output), weights)


@pytest.mark.parametrize(("loss", "output", "target"), CASES)
def test_weight_of_a_row_is_how_often_it_counts(loss: Any, output: Any, target: Any) -> None:
    again = None if target is None else target.repeat_interleave(TIMES, 0)
    expected = weighed(loss, output.repeat_interleave(TIMES, 0), again)
    found = weighed(loss, output, target, TIMES.double())
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-12, atol=0)
    assert found.known


@pytest.mark.parametrize(("loss", "output", "target"), CASES)
def test_weights_of_parts_add_up(loss: Any, output: Any, target: Any) -> None:
    weights = torch.rand(ROWS, dtype=torch.float64, generator=GENERATOR)
    whole = weighed(loss, output, target, weights)
    cuts = [slice(0, 2), slice(2, 3), slice(3, ROWS)]
    parts = [
        weighed(loss, output[p], None if target is None else target[p], weights[p]) for p in cuts
    ]
    if getattr(loss, "reduction", "mean") == "sum":
        total = sum(float(part.loss) for part in parts)
    else:
        total = sum(float(part.loss) * part.weight for part in parts)
        total /= sum(part.weight for part in parts)
    assert total == pytest.approx(float(whole.loss), rel=1e-12)


def test_rows_of_weight_zero_have_no_loss_together() -> None:
    found = weighed(nn.MSELoss(), SCORES, CHANCES, torch.zeros(ROWS))
    assert (float(found.loss), found.weight) == (0.0, 0.0)


def test_losses_of_a_list_are_weighed_each() -> None:
    loss = LossPerOutput([nn.MSELoss(), nn.CrossEntropyLoss()])
    weights = torch.rand(ROWS, dtype=torch.float64, generator=GENERATOR)
    found = weigh_loss(Given(loss), (SCORES, SCORES), (CHANCES, CLASSES), ROWS, weights)
    first, second = (
        weighed(one, SCORES, target, weights)
        for one, target in ((nn.MSELoss(), CHANCES), (nn.CrossEntropyLoss(), CLASSES))
    )
    torch.testing.assert_close(found.loss, first.loss + second.loss, rtol=1e-12, atol=0)
    assert (found.weight, found.known) == (first.weight, True)


def test_loss_of_several_outputs_is_weighed() -> None:
    weights = torch.rand(ROWS, dtype=torch.float64, generator=GENERATOR)
    output = (numbers(ROWS, 3), numbers(ROWS, 3))
    found = weigh_loss(Given(nn.CosineEmbeddingLoss()), output, (SIGNS,), ROWS, weights)
    each = functional.cosine_embedding_loss(*output, SIGNS, reduction="none")
    assert float(found.loss) == pytest.approx(float((weights * each).sum() / weights.sum()))


def test_function_may_give_the_losses_of_rows_without_weights_too() -> None:
    found = weighed(lambda o, t: ((o - t) ** 2).mean(1), SCORES, CHANCES)
    assert float(found.loss) == pytest.approx(float(nn.MSELoss()(SCORES, CHANCES)))
    assert (found.weight, found.known) == (ROWS, True)


@pytest.mark.parametrize(
    ("loss", "received"),
    [
        (lambda o, t: ((o - t) ** 2).mean(), r"shape \(\)"),
        (lambda o, t: (o - t) ** 2, r"shape \(7, 4\)"),
        (lambda o, t: ((o - t).sum(), 7.0), "tuple"),
    ],
)
def test_other_functions_cannot_be_weighed(loss: Any, received: str) -> None:
    with pytest.raises(RowLossError, match=f"a loss for each of 7 rows.*{received}"):
        weighed(loss, SCORES, CHANCES, torch.ones(ROWS))


def test_loss_of_the_model_itself_has_to_be_of_rows() -> None:
    with pytest.raises(RowLossError, match="a loss for each of 7 rows"):
        weigh_loss(Given(None), SCORES.mean(), (), ROWS, torch.ones(ROWS))


def test_losses_of_torch_without_rows_are_refused_by_name() -> None:
    require_row_losses([nn.MSELoss(), None, lambda o, t: o])
    with pytest.raises(RowLossError, match="a loss of single rows.*CTCLoss"):
        require_row_losses([nn.CTCLoss()])


# A step

X, Y = numbers(12, 2), torch.tensor([0, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1])
WEIGHTS = torch.rand(12, dtype=torch.float64, generator=GENERATOR) * torch.tensor([1, 0, 5, 1] * 3)
LOSSES = [
    nn.CrossEntropyLoss(),
    nn.CrossEntropyLoss(torch.tensor([1.0, 9.0], dtype=torch.float64)),
    nn.CrossEntropyLoss(reduction="sum"),
    lambda o, t: functional.cross_entropy(o, t, reduction="none"),
]


def step(loss: Any, cuts: list[int], parts: int = 1) -> tuple[torch.Tensor, float]:
    """Weights and loss after one step whose rows are cut between ranks."""
    ranks = []
    for low, high in zip(cuts, cuts[1:], strict=False):
        torch.manual_seed(1)
        model = nn.Linear(2, 2).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        built = build(Recipe(model, optimizer, loss, accumulate=parts))
        place: Any = SimpleNamespace(rank=0, size=len(cuts) - 1)
        one = SimpleNamespace(model=model, made=TorchLearner(built, place, seed=0), sums=StepSums())
        one.arrays = one.made.buffers()
        one.made.backward(
            Batch((X[low:high],), (Y[low:high],), high - low, WEIGHTS[low:high]), one.sums
        )
        ranks.append(one)
    for several in [*zip(*(one.arrays for one in ranks), strict=True)]:
        total = np.sum(several, axis=0)
        for array in several:
            array[:] = total
    sums = StepSums(np.sum([one.sums.array for one in ranks], axis=0))
    ranks[0].made.update(sums)
    return torch.cat([p.detach().flatten() for p in ranks[0].model.parameters()]), sums.loss


def plain(loss: Any) -> torch.Tensor:
    """The same step in plain torch, with the weights by hand."""
    torch.manual_seed(1)
    model = nn.Linear(2, 2).double()
    own = WEIGHTS.clone()
    if isinstance(loss, nn.Module) and loss.weight is not None:
        own *= loss.weight[Y]
    total = (own * functional.cross_entropy(model(X), Y, reduction="none")).sum()
    adds_up = getattr(loss, "reduction", "mean") == "sum"
    (total if adds_up else total / own.sum()).backward()
    with torch.no_grad():
        return torch.cat([(p - 0.5 * p.grad).flatten() for p in model.parameters()])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("cuts", [[0, 12], [0, 6, 12], [0, 2, 12], [0, 1, 2, 12]])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_any_ranks_and_parts_give_the_step_of_plain_torch(
    loss: Any, cuts: list[int], parts: int
) -> None:
    found, mean = step(loss, cuts, parts)
    torch.testing.assert_close(found, plain(loss), atol=1e-12, rtol=0)
    assert mean == pytest.approx(step(loss, [0, 12])[1], abs=1e-12)


def test_reduction_none_of_torch_is_refused_still() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(InputError, match="reduction='none'"):
        build(Recipe(model, None, nn.MSELoss(reduction="none")))
