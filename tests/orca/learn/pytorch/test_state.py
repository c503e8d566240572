"""The file of a state: what it holds, what it goes into, and what is refused."""

import io
import zipfile
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, StepLR

from zoo.errors import InputError
from zoo.orca.learn import optimizers as orca
from zoo.orca.learn.driver.snapshots import seal, unseal
from zoo.orca.learn.pytorch.operator.several import OptimizerList
from zoo.orca.learn.pytorch.recipe import Built, Recipe, build
from zoo.orca.learn.pytorch.state import (
    apply_state,
    load_state,
    read_state,
    save_state,
    write_state,
)
from zoo.orca.learn.steps import Position


def built(optimizer: type[torch.optim.Optimizer] = torch.optim.Adam, **given: Any) -> Built:
    def make(model: nn.Module, config: Any) -> torch.optim.Optimizer:
        return optimizer(model.parameters(), lr=0.1)

    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    return build(Recipe(model, make, nn.MSELoss(), **given))


def train(one: Built, steps: int = 2) -> None:
    for step in range(steps):
        one.optimizer.zero_grad()
        loss = one.model(torch.eye(2) + step).square().sum()
        loss.backward()
        one.optimizer.step()
        if one.scheduler is not None:
            one.scheduler.step()


def edited(blob: bytes, **changes: Any) -> bytes:
    tree = torch.load(io.BytesIO(blob), weights_only=True)
    return saved({k: v for k, v in (tree | changes).items() if v is not None})


def saved(tree: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def assert_same(left: Built, right: Built) -> None:
    pairs = zip(left.model.state_dict().values(), right.model.state_dict().values(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, atol=0, rtol=0)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.SGD])
def test_training_goes_on_from_a_file(kind: type[torch.optim.Optimizer]) -> None:
    one, other = built(kind), built(kind)
    train(one)
    assert load_state(other, save_state(one, Position(1, 2, 6))) == Position(1, 2, 6)
    train(one)
    train(other)
    assert_same(one, other)


def step_schedule(optimizer: Any, config: Any) -> Any:
    return StepLR(optimizer, step_size=3, gamma=0.5)


def lambda_schedule(optimizer: Any, config: Any) -> Any:
    return LambdaLR(optimizer, lambda step: 0.9**step)


def cycle(optimizer: Any, config: Any) -> Any:
    return OneCycleLR(optimizer, max_lr=0.5, total_steps=20, cycle_momentum=False)


@pytest.mark.parametrize("make", [step_schedule, lambda_schedule, cycle])
@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
def test_schedule_goes_on(make: Any) -> None:
    one, other = built(scheduler_creator=make), built(scheduler_creator=make)
    train(one, 4)
    load_state(other, save_state(one, Position()))
    assert other.learning_rate == one.learning_rate
    train(one, 3)
    train(other, 3)
    assert other.learning_rate == one.learning_rate
    assert_same(one, other)


def test_scaler_of_half_precision_goes_on() -> None:
    one, other = built(precision="fp16"), built(precision="fp16")
    assert one.scaler is not None
    assert other.scaler is not None
    one.scaler.load_state_dict(one.scaler.state_dict() | {"scale": 512.0, "_growth_tracker": 7})
    load_state(other, save_state(one, Position()))
    assert other.scaler.state_dict() == one.scaler.state_dict()
    assert other.scaler.state_dict()["scale"] == 512.0


def test_extras_come_back() -> None:
    extras = {"begun": {"epoch": 2, "loss_sum": 0.5}, "callbacks": {}, "history": [{"epoch": 1}]}
    state = read_state(save_state(built(), Position(1, 2, 6), extras))
    assert state.extras == extras
    assert state.whole


def test_a_buffer_takes_one_state_after_the_other() -> None:
    one, other, buffer = built(), built(), io.BytesIO()
    train(one)
    write_state(buffer, one, Position(9, 9, 99), {"history": [{"epoch": k} for k in range(500)]})
    train(one)
    write_state(buffer, one, Position(1, 2, 6), {"history": []})
    train(one)
    assert len(buffer.getvalue()) == pytest.approx(len(save_state(one, Position())), rel=0.05)
    state = read_state(unseal(seal(buffer.getvalue())))
    assert apply_state(other, state) == Position(1, 2, 6)
    assert state.extras == {"history": []}
    train(other)
    assert_same(one, other)


def test_other_files_of_the_process_keep_their_checksums() -> None:
    before = torch.serialization.get_crc32_options()
    write_state(io.BytesIO(), built(), Position())
    with pytest.raises((AttributeError, TypeError)):
        write_state(io.BytesIO(), built(), Position(), {"bad": (k for k in [])})
    assert torch.serialization.get_crc32_options() == before
    assert zipfile.ZipFile(io.BytesIO(save_state(built(), Position()))).testzip() is None


def test_position_of_a_state_is_not_shared() -> None:
    state = read_state(save_state(built(), Position(1, 2, 6)))
    apply_state(built(), state).step = 9
    assert state.position.step == 2


def test_file_can_be_read_without_pickle() -> None:
    tree = torch.load(io.BytesIO(save_state(built(), Position(1))), weights_only=True)
    assert tree["epoch"] == 1
    assert tree["optimizer_kind"] == "Adam"


def test_weights_alone_are_taken() -> None:
    one, other = built(), built()
    train(one)
    buffer = io.BytesIO()
    torch.save(one.model.state_dict(), buffer)
    state = read_state(buffer.getvalue())
    assert not state.whole
    assert apply_state(other, state) == Position()
    assert_same(one, other)


def test_file_of_the_first_format_is_taken() -> None:
    one, other = built(), built()
    train(one)
    blob = edited(
        save_state(one, Position(3, 0, 12)),
        format="zoo-torch-1",
        step=None,
        extras=None,
        scaler=None,
    )
    assert load_state(other, blob) == Position(3, 0, 12)
    assert_same(one, other)


@pytest.mark.parametrize(
    ("blob", "said"),
    [(b"", "EOFError|RuntimeError"), (b"no state at all", "Error")],
    ids=["empty", "garbage"],
)
def test_what_is_no_state_is_refused(blob: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_state(blob)
    assert "Cannot load the PyTorch model" in str(caught.value)


def test_saved_tensor_is_refused() -> None:
    buffer = io.BytesIO()
    torch.save(torch.zeros(3), buffer)
    with pytest.raises(InputError, match="a saved Tensor"):
        read_state(buffer.getvalue())


def test_code_in_a_file_is_not_run() -> None:
    buffer = io.BytesIO()
    torch.save({"format": "zoo-torch-2", "model": Loud()}, buffer)
    with pytest.raises(InputError, match="Unsupported|Weights only"):
        read_state(buffer.getvalue())


class Loud:
    def __reduce__(self) -> Any:
        return pytest.fail, ("code of a file was run",)


def test_state_that_lacks_its_position_is_refused() -> None:
    with pytest.raises(InputError, match="a state without 'iteration'"):
        read_state(edited(save_state(built(), Position()), iteration=None))


def test_state_of_another_optimizer_is_refused() -> None:
    blob = save_state(built(torch.optim.SGD), Position())
    with pytest.raises(InputError, match="the state of another optimizer, SGD"):
        load_state(built(), blob)


def test_state_of_another_model_is_refused() -> None:
    other = build(Recipe(nn.Linear(5, 1), lambda m, c: torch.optim.Adam(m.parameters())))
    with pytest.raises(InputError, match="RuntimeError"):
        load_state(other, save_state(built(), Position()))


def test_state_without_a_part_is_refused() -> None:
    with pytest.raises(InputError, match="KeyError: 'optimizer'"):
        load_state(built(), edited(save_state(built(), Position()), optimizer=None))


def all_of(one: Built) -> bytes:
    return save_state(one, Position())


def missing(tree: dict[str, Any]) -> None:
    del tree["model"]["0.bias"]


def too_many(tree: dict[str, Any]) -> None:
    tree["model"]["2.weight"] = torch.ones(1)


def other_shape(tree: dict[str, Any]) -> None:
    tree["model"]["1.bias"] = torch.ones(4)


def no_tensor(tree: dict[str, Any]) -> None:
    tree["model"]["1.bias"] = [1.0, 2.0, 3.0]


def other_groups(tree: dict[str, Any]) -> None:
    tree["optimizer"]["param_groups"].append(tree["optimizer"]["param_groups"][0])


def other_parameters(tree: dict[str, Any]) -> None:
    tree["optimizer"]["param_groups"][0]["params"].pop()


def other_schedule(tree: dict[str, Any]) -> None:
    tree["scheduler"] = {"last_epoch": 3}


FAULTS = [missing, too_many, other_shape, no_tensor, other_groups, other_parameters, other_schedule]


@pytest.mark.parametrize("spoil", FAULTS)
def test_a_refused_state_changes_nothing(spoil: Any) -> None:
    def make() -> Built:
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        return build(Recipe(model, orca.Adam(learningrate_decay=0.1), nn.MSELoss()))

    one, other = make(), make()
    train(one)
    train(other, 3)
    tree = torch.load(io.BytesIO(save_state(one, Position(1))), weights_only=True)
    spoil(tree)
    before = all_of(other)
    with pytest.raises(InputError, match="Cannot load the PyTorch model"):
        load_state(other, saved(tree))
    assert all_of(other) == before


def test_state_of_another_number_of_optimizers_changes_nothing() -> None:
    def make(count: int) -> Built:
        one = built()
        parts = [torch.optim.SGD(one.model.parameters(), lr=0.1 * (k + 1)) for k in range(count)]
        one.optimizer = OptimizerList(parts)
        return one

    other = make(2)
    before = all_of(other)
    with pytest.raises(InputError, match="Cannot load the PyTorch model"):
        load_state(other, save_state(make(3), Position()))
    assert all_of(other) == before


class Renamed(nn.Linear):
    """Takes files of an older version of itself, as many modules do."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}weight", state_dict.pop(f"{prefix}kernel", None))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def test_older_names_that_the_model_knows_are_taken() -> None:
    one = build(Recipe(Renamed(2, 1), None))
    load_state(one, saved({"kernel": torch.ones(1, 2), "bias": torch.zeros(1)}))
    assert one.model.weight.tolist() == [[1.0, 1.0]]


def test_tied_weights_that_differ_in_the_file_are_refused() -> None:
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    one, before = build(Recipe(tied, None)), tied[0].weight.tolist()
    with pytest.raises(InputError, match=r"other weights for '1.weight' than for '0.weight'"):
        load_state(one, saved({"0.weight": torch.ones(2, 2), "1.weight": torch.zeros(2, 2)}))
    assert one.model[0].weight.tolist() == before
    load_state(one, saved({"0.weight": torch.ones(2, 2), "1.weight": torch.ones(2, 2)}))
    assert one.model[1].weight.tolist() == torch.ones(2, 2).tolist()
