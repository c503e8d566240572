"""What was converted is compared with what was given."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from zoo.errors import ContractError, InputError
from zoo.orca.learn.score.conversion import GivenModel, require_same

SAMPLE = np.random.default_rng(0).random((5, 3))
NAMES = ("the model", "the runtime")


class Several(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return {"a": x + 1, "b": [x[:, 0], -x]}


def given(model: nn.Module) -> GivenModel:
    return GivenModel.of(model, SAMPLE)


def test_outputs_of_any_form_are_a_list_in_order() -> None:
    source = given(Several())
    x = SAMPLE.astype(np.float32)
    for found, wanted in zip(source([x]), [x + 1, x[:, 0], -x], strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_users_module_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout())
    source = given(model)
    assert model.training
    assert not source.model.training
    np.testing.assert_array_equal(source(source.sample)[0], source(source.sample)[0])


@pytest.mark.parametrize("error", [0.0, 5e-4, 2e-3])
def test_a_difference_above_the_limit_fails(error: float) -> None:
    source = given(nn.Identity())

    def made(arrays: Any) -> Any:
        out = arrays[0].copy()
        out[-1, -1] += error
        return out

    if error > 1e-3:
        with pytest.raises(InputError, match="a difference of 0.002 in the runtime on 5 rows"):
            require_same(source, made, 1e-3, NAMES)
    else:
        assert require_same(source, made, 1e-3, NAMES) == pytest.approx(error, rel=1e-3)


def test_one_row_alone_is_compared_too() -> None:
    with pytest.raises(InputError, match="on 1 rows"):
        require_same(given(nn.Identity()), lambda a: a[0] * (len(a[0]) > 1), 1e-3, NAMES)


def test_rows_that_are_built_in_fail() -> None:
    def made(arrays: Any) -> Any:
        return arrays[0].reshape(5, 3)

    with pytest.raises(InputError, match=r"takes 1 rows.*ValueError in the runtime"):
        require_same(given(nn.Identity()), made, 1e-3, NAMES)


@pytest.mark.parametrize(
    "made",
    [
        lambda a: a[0] * np.nan,
        lambda a: np.where(a[0] == a[0].max(), np.inf, a[0]),
        lambda a: a[0][:, :2],
        lambda a: [a[0], a[0]],
    ],
)
def test_other_forms_and_no_numbers_fail(made: Any) -> None:
    with pytest.raises(InputError, match="a difference of inf"):
        require_same(given(nn.Identity()), made, 1e-3, NAMES)


def test_nan_where_the_model_has_it_is_right() -> None:
    source = GivenModel(nn.Identity(), [np.array([[np.nan, 1.0], [np.inf, 2.0]], np.float32)])
    assert require_same(source, lambda a: a[0], 1e-3, NAMES) == 0.0


def test_what_is_no_model_or_no_sample_is_refused() -> None:
    with pytest.raises(InputError, match="one torch module or Keras model"):
        GivenModel.of([nn.Identity()], SAMPLE)
    with pytest.raises(InputError, match="sample as an array"):
        GivenModel.of(nn.Identity(), "rows")
    for rows in ([], np.zeros((1, 3)), [np.zeros(2), np.zeros(())]):
        with pytest.raises(ContractError, match="two rows or more"):
            GivenModel.of(nn.Identity(), rows)
