"""`get_params`, `set_params` and `clone`, as scikit-learn means them."""

from typing import Any

import pytest
import torch
from sklearn.base import clone
from torch import nn

from zoo.errors import InputError
from zoo.orca.learn.metrics import MAE
from zoo.orca.learn.pytorch import Estimator


def adam(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=config.get("lr", 0.01))


def estimator(**given: Any) -> Any:
    return Estimator.from_torch(
        **{"model": nn.Linear(1, 1), "optimizer": adam, "loss": nn.MSELoss(), **given}
    )


def weights(est: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in est.get_model().parameters()])


def test_parameters_are_what_was_given() -> None:
    loss = nn.MSELoss()
    params = estimator(loss=loss, config={"lr": 0.1}).get_params()
    assert params["loss"] is loss
    assert (params["config__lr"], params["gradient_accumulation"]) == (0.1, 1)
    assert "config__lr" not in estimator(config={"lr": 0.1}).get_params(deep=False)


@pytest.mark.parametrize("way", [clone, lambda est: est.clone()])
def test_a_clone_is_made_of_the_same_and_has_trained_nothing(way: Any) -> None:
    model = nn.Linear(1, 1)
    est = estimator(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    with torch.no_grad():
        for parameter in est.get_model(live=True).parameters():
            parameter.add_(1.0)
    made = way(est)
    assert made is not est
    assert type(made) is type(est)
    assert made.get_params() == est.get_params()
    torch.testing.assert_close(weights(made), weights(est) - 1.0)


def test_parameters_can_be_set() -> None:
    est = estimator(config={"lr": 0.1, "depth": 2})
    est.set_l2_norm_gradient_clipping(2.0)
    limits = est._limits
    assert est.set_params(config__lr=0.5, metrics=[MAE()], precision="bf16") is est
    params = est.get_params()
    assert params["config"] == {"lr": 0.5, "depth": 2}
    assert params["precision"] == "bf16"
    assert est._training.built.optimizer.param_groups[0]["lr"] == 0.5
    assert est._limits is limits


@pytest.mark.parametrize("given", [{"epochs": 3}, {"precision": "int8"}, {"min_workers": 0}])
def test_what_cannot_be_set_is_refused_and_changes_nothing(given: dict[str, Any]) -> None:
    est = estimator()
    before = est.get_params()
    with pytest.raises(InputError):
        est.set_params(**given)
    assert est.get_params() == before


def test_what_is_trained_is_not_thrown_away(tmp_path: Any) -> None:
    est = estimator()
    est.load(est.save(str(tmp_path / "model")))
    with pytest.raises(InputError, match="has trained nothing.*est.clone"):
        est.set_params(precision="bf16")
    assert est.clone().set_params(precision="bf16").get_params()["precision"] == "bf16"
