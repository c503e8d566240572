"""A torch model on arrays."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from zoo.cluster.ranks.carried import pickled
from zoo.errors import InputError
from zoo.orca.data.tensors.plan import ColumnPlan, TensorPlan, TensorSpec
from zoo.orca.learn.metrics import MAE
from zoo.orca.learn.pytorch.outputs import evaluated, evaluator, local_predictor, predictor
from zoo.orca.learn.pytorch.recipe import Recipe, build
from zoo.orca.learn.pytorch.scorer import running_metrics
from zoo.orca.learn.score.packing import unpacked


class Says(nn.Module):
    """Returns what it is told to."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> Any:
        return self.answer(x)


def said(answer: Any) -> Any:
    return local_predictor(Says(answer))([np.ones(2, dtype="float32")])


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bool, torch.float16])
def test_type_of_the_output_is_kept(dtype: torch.dtype) -> None:
    assert said(lambda x: x.to(dtype)).dtype == torch.zeros(1, dtype=dtype).numpy().dtype


def test_bfloat16_becomes_what_holds_it() -> None:
    assert said(lambda x: x.bfloat16()).dtype == np.float32


def test_several_outputs_and_outputs_with_names() -> None:
    assert [a.tolist() for a in said(lambda x: (x, x + 1))] == [[1, 1], [2, 2]]
    assert {k: a.tolist() for k, a in said(lambda x: {"y": x}).items()} == {"y": [1, 1]}


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(InputError, match="a model that returns a tensor.*received str"):
        said(lambda x: "x")


def test_the_model_stays_in_its_mode() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1))
    model[0].eval()
    local_predictor(model)([np.ones((2, 1), dtype="float32")])
    assert [m.training for m in model.modules()] == [True, False, True]


def test_a_model_that_was_sent_predicts_without_dropout() -> None:
    predict = predictor(pickled(nn.Dropout(0.9).train(), "a model"))
    array = np.ones(50, dtype="float32")
    array.flags.writeable = False
    given: Any = predict([array])
    assert given.tolist() == [1.0] * 50


def test_evaluator_gives_the_sums_of_batches() -> None:
    built = build(Recipe(nn.Linear(1, 1), None, nn.MSELoss()))
    with torch.no_grad():
        built.model.weight.fill_(2.0)
        built.model.bias.fill_(0.0)
    metrics = running_metrics([MAE()])
    spec = TensorSpec((ColumnPlan("x", "scalar", "float32"),), "float32", ())
    made = evaluator(evaluated(built, metrics), TensorPlan((spec,), (spec,)))
    x, y = np.ones((3, 1), dtype="float32"), np.zeros(3, dtype="float32")
    made.run([(x, y), (x[:1], y[:1])])
    sums, state = made.sums()
    assert (sums, unpacked(state).tolist()) == ([4.0, 4.0, 16.0], [8.0, 4.0])
