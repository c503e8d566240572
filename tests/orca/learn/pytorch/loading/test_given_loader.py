"""Loaders made on the driver: fit and evaluate take them, and ranks share their rows."""

import itertools
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pyspark import cloudpickle
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from zoo.errors import ContractError, InputError
from zoo.orca.learn.metrics import MAE
from zoo.orca.learn.order import LoaderSource
from zoo.orca.learn.pytorch import Estimator
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.loading.given_loader import GivenLoader
from zoo.orca.learn.pytorch.loading.loader_batches import (
    GivenBatches,
    LoaderBatches,
    open_loader,
)

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = 23
DATA = TensorDataset(torch.arange(ROWS), torch.arange(ROWS))
Made = GivenBatches | LoaderBatches


class Stream(IterableDataset[Any]):
    """The rows one after the other, in a random order where it is asked for."""

    def __init__(self, shuffled: bool = False) -> None:
        self.shuffled = shuffled

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(ROWS) if self.shuffled else torch.arange(ROWS)
        return iter([(row, row) for row in order])


class Buckets(Sampler[list[int]]):
    """Batches of unequal size, drawn by Python's own generator."""

    def __iter__(self) -> Iterator[list[int]]:
        rows = list(range(ROWS))
        random.shuffle(rows)
        return iter([rows[:1], rows[1:10], rows[10:]])


class Pieces(torch.utils.data.Dataset[Any]):
    """Each item is a whole batch."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.arange(ROWS)[item * 8 : item * 8 + 8]
        return rows, rows


class Member:
    """A rank among others that say the same, or what they are told."""

    def __init__(self, rank: int, size: int, others: Any = None) -> None:
        self.rank, self.size, self._others = rank, size, others

    def share(self, value: Any) -> list[Any]:
        return [value, *[value if self._others is None else self._others] * (self.size - 1)]


def opened(loader: DataLoader[Any], rank: int, size: int, others: Any = None) -> Made:
    creator = GivenLoader.of(loader)
    source = LoaderSource(creator, {}, creator.own_batch_size, 5)
    member: Any = Member(rank, size, others)
    made: Any = open_loader(source, member)
    return made


def rows_of(found: Iterator[Batch | None]) -> list[list[int]]:
    return [[] if batch is None else batch.features[0].tolist() for batch in found]


def steps(loader: DataLoader[Any], ranks: int, epoch: int = 0, start: int = 0) -> list[list[int]]:
    """The rows of each step, those of the first rank first."""
    each = [rows_of(opened(loader, rank, ranks).epoch(epoch, start)) for rank in range(ranks)]
    return [list(itertools.chain(*parts)) for parts in zip(*each, strict=True)]


WEIGHTED = WeightedRandomSampler(torch.arange(ROWS).double(), 40)
OWN = WeightedRandomSampler(torch.ones(ROWS), 40, generator=torch.Generator().manual_seed(1))
LOADERS: dict[str, DataLoader[Any]] = {
    "in order": DataLoader(DATA, batch_size=8),
    "shuffled": DataLoader(DATA, batch_size=8, shuffle=True),
    "weighted": DataLoader(DATA, batch_size=8, sampler=WEIGHTED),
    "with a generator": DataLoader(DATA, batch_size=8, sampler=OWN),
    "subset": DataLoader(DATA, batch_size=8, sampler=SubsetRandomSampler(range(11))),
    "buckets": DataLoader(DATA, batch_sampler=Buckets()),
    "worker": DataLoader(DATA, batch_sampler=Buckets(), num_workers=1),
    "batches in order": DataLoader(
        DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 5, drop_last=True)
    ),
    "stream": DataLoader(Stream(), batch_size=8),
    "shuffled stream": DataLoader(Stream(shuffled=True), batch_size=8),
    "items that are batches": DataLoader(Pieces(), batch_size=None, shuffle=True),
}


@pytest.mark.parametrize("name", LOADERS)
def test_ranks_share_the_batches_of_one(name: str) -> None:
    one = steps(LOADERS[name], 1)
    assert steps(LOADERS[name], 3) == one
    assert 0 < sum(map(len, one)) <= 40


@pytest.mark.parametrize("name", ["weighted", "with a generator", "buckets"])
def test_epochs_differ_and_come_again(name: str) -> None:
    loader = LOADERS[name]
    assert steps(loader, 2, epoch=1) != steps(loader, 2)
    assert steps(loader, 2, epoch=1) == steps(loader, 2, epoch=1)
    assert steps(loader, 2, epoch=1, start=2) == steps(loader, 2, epoch=1)[2:]


def test_batches_are_those_of_plain_torch() -> None:
    for name in ("batches in order", "stream"):
        plain = [features.tolist() for features, _ in LOADERS[name]]
        assert steps(LOADERS[name], 2) == plain


def test_randomness_of_the_program_is_left_alone() -> None:
    made, states = opened(LOADERS["buckets"], 0, 2), []
    for _ in range(2):
        states.append((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()))
        list(made.epoch(0))
    assert states[0][:2] == states[1][:2]


def test_samplers_that_differ_between_ranks_are_refused_by_name() -> None:
    made = opened(LOADERS["weighted"], 0, 2, others=0)
    with pytest.raises(InputError, match="draws the same rows.*WeightedRandomSampler in BatchSamp"):
        next(iter(made.epoch(0)))


def test_dicts_are_cut_and_counted_by_their_rows() -> None:
    def collate(cells: list[Any]) -> Any:
        rows = torch.stack([row for row, _ in cells])
        return {"ids": rows, "mask": rows > 0}, rows

    loader = DataLoader(Stream(), batch_size=8, collate_fn=collate)
    batches = [b for b in opened(loader, 1, 2).epoch(0) if b is not None]
    assert [batch.rows for batch in batches] == [4, 4, 4]
    assert batches[0].features[0]["ids"].tolist() == [4, 5, 6, 7]


def test_streams_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    GivenLoader.of(LOADERS["weighted"])
    assert not caplog.text
    GivenLoader.of(LOADERS["stream"])
    assert caplog.text.count("known only by going through it") == 1


def test_loaders_that_cannot_travel_are_refused(tmp_path: Any) -> None:
    with (tmp_path / "rows").open("w") as file:
        loader = DataLoader([(file, 0)], batch_size=1)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="a DataLoader that can be sent.*cannot be pickled"):
            GivenLoader.of(loader)


def test_loaders_that_were_used_can_travel() -> None:
    loader = DataLoader(DATA, batch_size=8, num_workers=1, persistent_workers=True)
    first = next(iter(loader))
    assert GivenLoader.of(loader)({}, 8).batch_size == 8
    assert len(first[0]) == 8


# In a fit


def tensors(rows: int = ROWS) -> TensorDataset:
    x = torch.linspace(-1, 1, rows, dtype=torch.float64).unsqueeze(1)
    return TensorDataset(x, (3 * x + 1).squeeze(1))


def estimator(ranks: int = 1) -> Any:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(1, 1), nn.Flatten(0)).double()
    return Estimator.from_torch(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss=nn.MSELoss(),
        metrics=[MAE()],
        workers_per_node=ranks,
    )


def trained(loader: DataLoader[Any], ranks: int, **given: Any) -> tuple[np.ndarray, list[Any]]:
    est = estimator(ranks)
    history = est.fit(data=loader, epochs=2, validation_data=loader, **given)
    parameters = [p.detach().flatten() for p in est.get_model().parameters()]
    return torch.cat(parameters).numpy(), history


@pytest.mark.spark
@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 8, "shuffle": True},
        {"batch_size": 8, "sampler": WEIGHTED},
        {"batch_size": None},
    ],
)
def test_number_of_ranks_does_not_change_weights(options: dict[str, Any]) -> None:
    data: Any = tensors()
    if options["batch_size"] is None:
        data = [(data.tensors[0][i : i + 8], data.tensors[1][i : i + 8]) for i in (0, 8, 16)]
    loader = DataLoader(data, **options)
    (one, first), (two, second) = (trained(loader, ranks, batch_size=None) for ranks in (1, 3))
    np.testing.assert_allclose(one, two, atol=1e-12, rtol=0)
    assert first[-1]["val_loss"] == pytest.approx(second[-1]["val_loss"], rel=1e-12)
    rows = 40 if "sampler" in options else ROWS
    assert [(e["num_samples"], e["batch_count"]) for e in second] == [(rows, -(-rows // 8))] * 2


@pytest.mark.spark
@pytest.mark.usefixtures("spark")
def test_fit_and_evaluation_of_a_loader_equal_plain_torch() -> None:
    loader = DataLoader(tensors(24), batch_size=8)
    est = estimator(2)
    found = est.evaluate(loader)
    x, y = tensors(24).tensors
    with torch.no_grad():
        error = est.get_model()(x) - y
    expected = {"MAE": error.abs().mean().item(), "val_loss": (error**2).mean().item()}
    assert found == pytest.approx(expected | {"num_samples": 24}, rel=1e-12)
    model = est.get_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for part in np.split(np.arange(24), 3):
        optimizer.zero_grad()
        nn.MSELoss()(model(x[part]), y[part]).backward()
        optimizer.step()
    est.fit(loader)
    for one, other in zip(est.get_model().parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_arguments_that_a_loader_has_no_use_for(caplog: pytest.LogCaptureFixture) -> None:
    loader = DataLoader(tensors(), batch_size=8)
    with pytest.raises(InputError, match="a frame or XShards, to weigh rows.*a loader"):
        estimator().fit(loader, batch_size=16, sample_weight_col="w")
    assert "batch_size=16: not used, as the loader has its own batches" in caplog.text
    with pytest.raises(ContractError, match="batch_size as a whole number"):
        estimator().fit(lambda config, batch_size: loader, batch_size=None)
    with pytest.raises(ContractError, match="the same kind"):
        estimator().fit(loader, validation_data=[1])
