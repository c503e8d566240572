"""Several models, optimizers and schedules in the place of one."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from zoo.errors import InputError
from zoo.orca.learn.pytorch.operator.several import (
    Models,
    OptimizerList,
    SchedulerList,
    as_given,
    join,
    members,
    require_plain,
)


def pair() -> list[nn.Module]:
    torch.manual_seed(3)
    return [nn.Linear(2, 2), nn.Linear(2, 1)]


def optimizers(models: Models) -> list[torch.optim.Optimizer]:
    first, second = models
    return [
        torch.optim.Adam(first.parameters(), lr=0.02),
        torch.optim.SGD(second.parameters(), lr=0.1),
    ]


def test_several_are_saved_as_one() -> None:
    models, again = (Models(pair()) for _ in range(2))
    first, second = (OptimizerList(optimizers(m)) for m in (models, again))
    schedules = [SchedulerList([StepLR(o, 1, 0.5) for o in one.members]) for one in (first, second)]
    models[0](torch.ones(1, 2)).sum().backward()
    first.step()
    schedules[0].step()
    second.load_state_dict(first.state_dict())
    schedules[1].load_state_dict(schedules[0].state_dict())
    assert [g["lr"] for g in second.param_groups] == [0.01, 0.05]
    assert len(second.members[0].state) == 2


def test_a_schedule_among_several_cannot_watch_a_number() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(InputError, match="a ReduceLROnPlateau"):
        SchedulerList([plateau, StepLR(optimizer, 1)])


def test_a_pickled_list_still_trains_its_models() -> None:
    models = Models(pair())
    models, both = pickle.loads(pickle.dumps((models, OptimizerList(optimizers(models)))))
    before = models[0].weight.detach().clone()
    models[0](torch.ones(1, 2)).sum().backward()
    both.step()
    both.zero_grad()
    assert not torch.equal(models[0].weight, before)
    assert models[0].weight.grad is None


class Notes:
    """What an operator would remember."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def test_memory_is_saved_with_the_optimizers() -> None:
    first, second = (OptimizerList(optimizers(Models(pair())), Notes()) for _ in range(2))
    first.memory.state["played"] = 3  # type: ignore[union-attr]
    second.load_state_dict(first.state_dict())
    assert second.memory is not None
    assert second.memory.state_dict() == {"played": 3}


def test_another_number_of_optimizers_is_refused() -> None:
    both = OptimizerList(optimizers(Models(pair())))
    with pytest.raises(ValueError, match="argument 2 is longer"):
        OptimizerList(both.members[:1]).load_state_dict(both.state_dict())


def test_one_in_a_list_is_one() -> None:
    model = nn.Linear(1, 1)
    assert join([model], nn.Module, "model", custom=False) is model


def test_several_need_an_operator() -> None:
    with pytest.raises(InputError, match="one model with the default TrainingOperator"):
        join(pair(), nn.Module, "model", custom=False)


def test_creators_are_given_lists() -> None:
    models = join(pair(), nn.Module, "model", custom=True)
    assert members(models) == as_given(models) == list(models)
    alone = nn.Linear(1, 1)
    assert (as_given(alone), members(alone)) == (alone, [alone])


@pytest.mark.parametrize("value", [{"a": np.float64(1)}, {"a": [{1}]}, {"a": print}])
def test_a_state_that_could_not_be_read_back(value: Any) -> None:
    with pytest.raises(InputError, match=r"state_dict\(\)\['a'\]"):
        require_plain(value)
