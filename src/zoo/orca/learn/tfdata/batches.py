"""Batches of the tf.data datasets that a function of the user's makes, shared by ranks."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence

import tensorflow as tf

from zoo.cluster.ranks.member import Member
from zoo.errors import InputError
from zoo.orca.data.tensors.schedule import step_count
from zoo.orca.learn.order import LoaderSource
from zoo.orca.learn.rank.array_batches import Batch
from zoo.orca.learn.tfdata.cutting import Pieces, cut_steps, group_steps, part_of
from zoo.orca.learn.tfdata.elements import Arrays, Elements, rows_of
from zoo.orca.learn.tfdata.passes import Passes
from zoo.orca.learn.tfdata.sharing import (
    Sharing,
    by_files,
    checksum,
    compared,
    made,
    require_same,
    sharing_of,
)

__all__ = ["DatasetBatches", "open_dataset"]

_log = logging.getLogger(__name__)


def open_dataset(source: LoaderSource, member: Member) -> DatasetBatches:
    """The batches of a rank. Every rank must call this.

    Args:
        source: Makes the dataset.
        member: This rank.

    Raises:
        InputError: It makes something else, or nothing that ranks can share.
    """
    return DatasetBatches(source, member)


class DatasetBatches:
    """Batches of a dataset: the creator function gets `max(1, batch_size // size)`.

    A dataset that is the same on every rank is cut by rows: a step takes the next `batch_size`
    rows, whether the dataset has batches or single rows, and each rank its part of them. So each
    row is used once an epoch, and any number of ranks computes the same. A dataset with batches of
    another size than the function was told keeps it: a step has one for each rank. So does one
    whose batches have varying shapes, as padded texts do. What the function has cut itself, by
    `config["rank"]` and `config["size"]`, is used as it comes, and ranks may have unequal numbers
    of batches; so is what is cut by files. See `sharing_of`.

    The n-th epoch is the n-th pass over the dataset, also in a rank that begins later: shuffles go
    on as they would have.

    Args:
        source: Makes the dataset.
        member: This rank.

    Attributes:
        steps: Steps of an epoch, where they are known and the same on every rank.
    """

    def __init__(self, source: LoaderSource, member: Member) -> None:
        self._source, self._member = source, member
        found = made(source, member)
        self._elements = Elements(found.dataset)
        self._sharing = sharing_of(found, member)
        own = max(1, source.batch_size // member.size)
        self._batched = self._elements.are_batches(own, source.batch_size)
        # One that was gone through already, to look for files, is made again.
        fresh = self._sharing is not Sharing.FILES
        self._passes = Passes(self._made, self._prepared(found.dataset) if fresh else None)
        first = self._passes.peek() or []
        rows, count = rows_of(first) if first else 0, int(found.dataset.cardinality())
        heads = member.share([rows, count, checksum(first), found.copied])
        self._require_rows(heads)
        self._sharing, before = compared(self._sharing, found.policy, heads), self._sharing
        if self._sharing is not before:
            self._passes = Passes(self._made)
        chosen = self._batched and rows not in (own, source.batch_size) and count != 1
        self._grouped = self._batched and self._elements.varying
        self._step_rows = rows * member.size if chosen else source.batch_size
        self.steps = source.steps or self._known_steps(rows, count)
        self._stream: Iterator[Pieces] | None = None
        self._at = self._checksum = 0
        self._example = self._elements.example(first, batched=self._batched)
        self._unordered = found.dataset.options().deterministic is False
        if member.rank == 0:
            self._tell(chosen, rows)

    def example(self) -> Batch:
        """Two made-up rows of the types and shapes of the others, also where there are none."""
        return self._example

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch | None]:
        """Batches from step `start` on; None for a step without rows for this rank."""
        if self._sharing is Sharing.ROWS and self._member.size > 1:
            require_same(self._member.share(self._checksum))
        if start and self._unordered:
            self._unordered = False
            _log.warning(
                "the dataset gives its rows in no fixed order (deterministic is False): an epoch "
                "that goes on in its middle may use some twice and others not at all"
            )
        for step in self._steps_of(epoch, start):
            yield self._mine(step)

    def _steps_of(self, epoch: int, start: int) -> Iterator[Pieces]:
        limit, training = self._source.steps, self._source.part == 0
        if limit is None:
            passed = self._passes.batches(epoch if training else None)
            return itertools.islice(self._cut(passed), start, None)
        if not training:
            return itertools.islice(self._enough(0), start, limit)
        return self._next_steps(epoch * limit + start, limit - start)

    def _next_steps(self, at: int, count: int) -> Iterator[Pieces]:
        """Steps of one pass after another.

        Args:
            at: Steps before them, since training began.
            count: How many.
        """
        if self._stream is None or self._at != at:
            endless = itertools.chain.from_iterable(map(self._enough, itertools.count()))
            self._stream, self._at = itertools.islice(endless, at, None), at
        for step in itertools.islice(self._stream, count):
            self._at += 1
            yield step

    def _enough(self, number: int) -> Iterator[Pieces]:
        """The steps of a pass.

        Raises:
            InputError: They are fewer than an epoch is to have.
        """
        limit, given = self._source.steps or 0, 0
        for step in self._cut(self._passes.batches(number)):
            given += 1
            yield step
        if given < limit:
            what = (
                "steps_per_epoch" if self._source.part == 0 else "validation_steps, or num_steps,"
            )
            raise InputError(
                f"a dataset with {what} of {limit} steps at least",
                f"{given} of them in the part of rank {self._member.rank}",
                "Ask for fewer steps, or let the data creator return dataset.repeat().",
            )

    def _cut(self, batches: Iterator[Arrays]) -> Iterator[Pieces]:
        if self._sharing is not Sharing.ROWS:
            return group_steps(batches, 1)
        if self._grouped:
            return group_steps(batches, self._member.size)
        return cut_steps(batches, self._step_rows)

    def _mine(self, step: Pieces) -> Batch | None:
        rank, size = self._member.rank, self._member.size
        mine: Arrays | None = step[0]
        if self._sharing is Sharing.ROWS and size > 1:
            self._checksum = checksum([array[:1] for array in step[0]], self._checksum)
            if self._grouped:
                mine = step[rank] if rank < len(step) else None
            else:
                mine = part_of(step, rank, size)
        elif len(step) > 1:
            mine = part_of(step, 0, 1)
        return None if mine is None else self._elements.batch(mine)

    def _made(self) -> tf.data.Dataset:
        return self._prepared(made(self._source, self._member).dataset)

    def _prepared(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The dataset in batches, in a fixed order, with what this rank reads of it."""
        options = tf.data.Options()
        if dataset.options().deterministic is None:
            options.deterministic = True
        dataset = dataset.with_options(options)
        if self._sharing is Sharing.FILES:
            dataset = by_files(dataset, self._member)
        if self._batched:
            return dataset
        rank, size, rows = self._member.rank, self._member.size, self._source.batch_size
        if self._sharing is not Sharing.ROWS:
            rows = max(1, (rank + 1) * rows // size - rank * rows // size)
        return dataset.batch(rows)

    def _known_steps(self, rows: int, count: int) -> int | None:
        """Steps of an epoch.

        Args:
            rows: Of the first batch.
            count: Elements of the dataset; less than 0 when that is not known.
        """
        if self._sharing is not Sharing.ROWS or count < 0:
            return None
        if not self._batched:
            return step_count(count, self._step_rows)
        if self._grouped:
            return step_count(count, self._member.size)
        if count == 1:
            return step_count(rows, self._step_rows)
        return None if self._step_rows % rows else step_count(count, self._step_rows // rows)

    def _require_rows(self, heads: Sequence[Sequence[int]]) -> None:
        if not any(rows for rows, *_ in heads):
            raise InputError("rows to work on", "an empty dataset", "Check the data creator.")
        endless = any(count == tf.data.INFINITE_CARDINALITY for _, count, *_ in heads)
        if endless and self._source.steps is None:
            raise InputError(
                "steps_per_epoch, validation_steps or num_steps for a dataset without an end",
                "none",
                "Say how many steps there are, or leave out dataset.repeat().",
            )

    def _tell(self, chosen: bool, rows: int) -> None:
        size, batch_size = self._member.size, self._source.batch_size
        if size > 1:
            known = "" if self.steps is None else f", {self.steps} steps an epoch"
            _log.info(
                "tf.data on %d ranks, batches of about %d rows for each%s: %s",
                size, max(1, self._step_rows // size), known, self._sharing.value,
            )  # fmt: skip
        if chosen and self._sharing is Sharing.ROWS:
            _log.warning(
                "the dataset has batches of %d rows of its own, so a step has %d of them, not "
                "batch_size=%d rows: use dataset.batch(batch_size) with what the data creator "
                "is given.", rows, size, batch_size,
            )  # fmt: skip
