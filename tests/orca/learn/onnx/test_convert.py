"""Torch modules become ONNX files that compute the same, or there are none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from zoo.errors import ContractError, InputError
from zoo.orca.learn.onnx import Estimator, to_onnx

pytestmark = pytest.mark.slow  # torch loads its exporter
ROWS = np.random.default_rng(0).random((6, 4))


class Both(nn.Module):
    """Two inputs of unequal kinds, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.top = nn.Embedding(10, 4), nn.Linear(4, 2)

    def forward(self, item: torch.Tensor, rest: torch.Tensor) -> Any:
        return {"top": self.top(self.items(item) + rest), "sums": rest.sum(1)}


class Forgetful(nn.Module):
    """Adds other numbers each time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    model, items = Both(), np.arange(6)
    path = to_onnx(model, tmp_path / "m.onnx", sample=[items, ROWS])
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    est = Estimator.from_onnx(model_path=path)
    for rows in (1, 2, 6):
        rest = torch.from_numpy(ROWS[:rows]).float()
        wanted = model(torch.from_numpy(items[:rows]), rest)
        top, sums = est.predict([items[:rows], ROWS[:rows]])
        np.testing.assert_allclose(top, wanted["top"].detach(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(sums, wanted["sums"], rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "said"), [(Forgetful(), "a difference of"), (nn.Linear(3, 1), "can export")]
)
def test_what_computes_something_else_leaves_no_file(
    tmp_path: Path, model: nn.Module, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        to_onnx(model, tmp_path / "m.onnx", sample=ROWS)
    with pytest.raises(ContractError, match=r"ends in \.onnx"):
        to_onnx(model, tmp_path / "m.xml", sample=ROWS)
    assert not [*tmp_path.iterdir()]
