"""What `load` takes, and what it refuses: one error that says so, and nothing is executed."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from zoo.orca.learn.pytorch import Estimator


def estimator(model: nn.Module | None = None) -> Any:
    model = model or nn.Linear(1, 1)
    return Estimator.from_torch(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0))


AGAIN = """
import torch
from torch import nn
from zoo.orca.learn.pytorch import Estimator

model = nn.Linear(1, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=9.0)
built = Estimator.from_torch(model=model, optimizer=optimizer).load({path!r})._built
optimizer = built.optimizer
print(built.model.weight.tolist(), optimizer.param_groups[0]["lr"], len(optimizer.state))
"""


@pytest.mark.slow
def test_saved_state_is_loaded_by_a_fresh_process(tmp_path: Path, fresh_python: Any) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    est = Estimator.from_torch(model=model, optimizer=optimizer)
    path = est.save(str(tmp_path / "deep" / "model"))
    done = fresh_python(AGAIN.format(path=path))
    assert done.stdout == f"{model.weight.tolist()} 0.05 2\n", done.stderr
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["model"]


def test_bare_weights_are_loaded(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    torch.save(model.state_dict(), tmp_path / "weights")
    assert torch.equal(estimator().load(str(tmp_path / "weights")).get_model().bias, model.bias)


class Malicious:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.touched),)


def test_missing_file_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Cannot load the PyTorch model"):
        estimator().load(str(tmp_path / "none"))


def test_folder_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Cannot load the PyTorch model"):
        estimator().load(str(tmp_path))


def test_corrupt_file_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model"
    estimator().save(str(path))
    for blob in (b"", b"no model", path.read_bytes()[:100]):
        path.write_bytes(blob)
        with pytest.raises(ValueError, match="Cannot load the PyTorch model"):
            estimator().load(str(path))


@pytest.mark.parametrize("what", [3, [1, 2], {"a": 1}, {"format": "zoo-torch-1"}])
def test_file_of_something_else_is_not_loaded(tmp_path: Path, what: Any) -> None:
    torch.save(what, tmp_path / "model")
    with pytest.raises(ValueError, match="Cannot load the PyTorch model"):
        estimator().load(str(tmp_path / "model"))


def test_file_of_another_model_is_not_loaded(tmp_path: Path) -> None:
    path = estimator(nn.Linear(2, 1)).save(str(tmp_path / "model"))
    with pytest.raises(ValueError, match="size mismatch.*Cannot load the PyTorch model"):
        estimator().load(path)


def test_file_of_another_optimizer_is_not_loaded(tmp_path: Path) -> None:
    path = estimator().save(str(tmp_path / "model"))
    model = nn.Linear(1, 1)
    before = model.weight.clone()
    other = Estimator.from_torch(model=model, optimizer=torch.optim.Adam(model.parameters()))
    with pytest.raises(ValueError, match="another optimizer, SGD.*Cannot load the PyTorch model"):
        other.load(path)
    assert torch.equal(model.weight, before)


def test_weights_are_loaded_without_an_optimizer(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    adam = torch.optim.Adam(model.parameters())
    path = Estimator.from_torch(model=model, optimizer=adam).save(str(tmp_path / "model"))
    other = Estimator.from_torch(model=lambda config: nn.Linear(1, 1)).load(path)
    assert torch.equal(other.get_model().weight, model.weight)


@pytest.mark.parametrize("dump", [pickle.dumps, lambda obj: saved(obj)])
def test_malicious_file_is_not_executed(tmp_path: Path, dump: Callable[[Any], bytes]) -> None:
    (tmp_path / "model").write_bytes(dump({"model": Malicious(tmp_path / "touched")}))
    with pytest.raises(ValueError, match="Cannot load the PyTorch model"):
        estimator().load(str(tmp_path / "model"))
    assert not (tmp_path / "touched").exists()


def saved(what: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(what, buffer)
    return buffer.getvalue()


def test_an_estimator_shows_how_far_it_is(tmp_path: Path) -> None:
    est = estimator()
    assert repr(est) == "<TorchEstimator on pytorch: nothing trained so far>"
    est.load(est.save(str(tmp_path / "model")))
    assert repr(est) == "<TorchEstimator on pytorch: 0 epochs trained>"
