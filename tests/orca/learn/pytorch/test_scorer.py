"""Metrics of batches."""

from typing import Any

import pytest
import torch
from torch import nn

from zoo.errors import InputError
from zoo.orca.learn.metrics import MAE, Accuracy
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.recipe import Recipe, build
from zoo.orca.learn.pytorch.scorer import Scorer, running_metrics


class Apart:
    """A user's own metric, which compares what it is given."""

    total, rows = torch.zeros(1, dtype=torch.float64), 0

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        self.total = self.total + (preds - targets).abs().mean().double()

    def compute(self) -> torch.Tensor:
        return self.total[0]

    def state(self) -> torch.Tensor:
        return self.total

    def load_state(self, vector: torch.Tensor) -> None:
        self.total = vector

    def reset(self) -> None:
        self.total = torch.zeros(1, dtype=torch.float64)


def scores(model: nn.Module, metric: Any, target: torch.Tensor) -> dict[str, float]:
    scorer = Scorer(build(Recipe(model, None, nn.MSELoss())), running_metrics(metric))
    with torch.no_grad():
        scorer.add(Batch((torch.ones(4, 2),), (target,), 4))
    return scorer.result([scorer.sums()])


def column() -> nn.Module:
    model = nn.Linear(2, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def test_one_column_is_compared_number_by_number() -> None:
    found = scores(column(), [MAE(), Accuracy()], torch.tensor([0, 0, 0, 2]))
    assert found == {"MAE": 0.5, "Accuracy": 0.75, "val_loss": 1.0}


@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
def test_metrics_of_the_user_do_not_compare_rows_with_other_rows(kind: torch.dtype) -> None:
    with pytest.raises(InputError, match=r"of one shape.*\(4, 1\) and \(4,\)"):
        scores(column(), [Apart()], torch.ones(4, dtype=kind))
    flat = nn.Sequential(column(), nn.Flatten(0))
    assert scores(flat, [Apart()], torch.ones(4, dtype=kind))["Apart"] == 1.0


def test_metrics_of_several_outputs_are_compared_likewise() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = column()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.layer(x), x

    scorer = Scorer(build(Recipe(Both(), None, None)), running_metrics([[Apart()], [MAE()]]))
    batch = Batch((torch.ones(4, 2),), (torch.ones(4), torch.ones(4, 2)), 4)
    with pytest.raises(InputError, match=r"\(4, 1\) and \(4,\)"):
        scorer.add(batch)
