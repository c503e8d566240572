"""The data of a fit on the driver: ingested into shards, made again where shards are lost."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from zoo.cluster.ranks.messages import Peer
from zoo.errors import InputError, ShardsLostError
from zoo.orca.data.tensors.ingest import Ingested, forget_ingested, ingest, restore, with_shards
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.data.tensors.rows import Rows
from zoo.orca.data.tensors.tensor_shard import Place, TensorShard
from zoo.orca.learn.order import LoaderSource, Source, TensorSource
from zoo.orca.learn.recovery import Recovery

__all__ = ["Data", "Opened", "TableData", "UnequalHostsError", "open_sources", "unequal"]

_log = logging.getLogger(__name__)
_VALIDATION_BYTES = 16 << 20


@dataclass(frozen=True)
class TableData:
    """Rows and the layout of their tensors."""

    rows: Rows
    plan: TensorPlan


Data = TableData | LoaderSource


class UnequalHostsError(ShardsLostError):
    """Hosts hold very unequal parts of the rows, so all of them are to be written anew."""


@dataclass
class Opened:
    """Data that ranks can read, and how to make it again.

    Attributes:
        source: The training data.
        validation: The validation data, or None.
        rows: What was ingested, training data first; empty for loaders.
        ingested: Their shards.
        fixed: The rows may not be repartitioned: they were, or an epoch is under way.
        exact: Rows that are computed again must be the same ones.
    """

    source: Source
    validation: Source | None
    rows: list[Rows] = field(default_factory=list)
    ingested: list[Ingested] = field(default_factory=list)
    fixed: bool = False
    exact: bool = True
    _hosts: frozenset[str] = frozenset()

    @property
    def shards(self) -> tuple[TensorShard, ...]:
        """Of the training data; empty for loaders."""
        return self.ingested[0].shards if self.ingested else ()

    def require_placed(self, peers: Sequence[Peer]) -> None:
        """Refuse a world in which a shard has no rank on its host, or hosts have unequal work.

        Raises:
            ShardsLostError: Some shards are to be found or written again, or all.
        """
        ranks = Counter(p.host for p in peers)
        self._hosts = frozenset(ranks)
        strays = [
            (part, s)
            for part, result in enumerate(self.ingested)
            for s in result.shards
            if s.host not in ranks
        ]
        if strays:
            raise ShardsLostError(
                "a rank on every host that holds shards",
                f"{sum(s.rows for _, s in strays)} rows on other hosts",
                "Their copies are used, or they are computed again.",
                [(part, s.index) for part, s in strays],
            )
        for result in self.ingested:
            if not self.fixed and unequal(result.shards, ranks):
                raise UnequalHostsError(
                    "hosts with about equal rows for each rank", "very unequal ones",
                    "The frame is repartitioned.",
                )  # fmt: skip

    def restore(self, lost: Collection[tuple[int, int]]) -> None:
        """Use the copies of lost shards where ranks have them, and write the others again.

        Args:
            lost: Each as the number of its data and its own number.

        Raises:
            InputError: Rows were computed again after the first step, and are not the same.
        """
        for part, (rows, result) in enumerate(zip(self.rows, self.ingested, strict=True)):
            wanted = {index for of, index in lost if of == part}
            found = {s.index: s.copy for s in result.shards if s.index in wanted and s.copy}
            found = {index: copy for index, copy in found.items() if copy.host in self._hosts}
            if found:
                _log.warning("copies on other hosts take the place of %d lost shards", len(found))
                result = with_shards(result, _promoted(result.shards, found))
            try:
                result = restore(rows, result, wanted - set(found), exact=self.exact)
            except InputError as exc:
                if self.fixed:
                    raise
                # No row has been used yet, so other rows will do, if all are of one making.
                _log.warning("ingesting again: %s", exc)
                forget_ingested(result)
                before, result = result, ingest(rows, result.plan)
                before.release()
            self._replace(part, result)

    def moved(
        self, part: int, places: Sequence[tuple[int, str, str, Sequence[str] | None]]
    ) -> None:
        """Take in where ranks have put shards.

        Args:
            part: 0 for training data, 1 for validation data.
            places: Number, host and path of shards; host and path of their copies.
        """
        new = {index: (host, path, copy) for index, host, path, copy in places}
        old = self.ingested[part]
        shards = tuple(
            replace(s, host=host, path=path, copy=Place(*copy) if copy else None)
            for s, (host, path, copy) in ((s, new[s.index]) for s in old.shards)
        )
        self._replace(part, with_shards(old, shards))

    def copied(self, part: int, places: Sequence[Sequence[Any]]) -> None:
        """Take in where a rank has put copies of shards.

        Args:
            part: 0 for training data, 1 for validation data.
            places: Path of the shard, host and path of the copy.
        """
        # By path: word may come late, when the shard has been written again.
        new = {source: Place(host, path) for source, host, path in places}
        old = self.ingested[part]
        shards = tuple(replace(s, copy=new[s.path]) if s.path in new else s for s in old.shards)
        self._replace(part, with_shards(old, shards))

    def _replace(self, part: int, result: Ingested) -> None:
        self.ingested[part] = result
        if part == 0:
            self.source = replace(cast("TensorSource", self.source), shards=result.shards)
        else:
            checked = cast("TensorSource", self.validation)
            self.validation = replace(checked, shards=result.shards)


def _promoted(
    shards: Sequence[TensorShard], copies: Mapping[int, Place]
) -> tuple[TensorShard, ...]:
    """The shards, with copies in the place of some."""
    return tuple(
        replace(s, host=copies[s.index].host, path=copies[s.index].path, copy=None)
        if s.index in copies
        else s
        for s in shards
    )


@contextmanager
def open_sources(
    data: Data,
    validation: Data | None,
    *,
    batch_size: int,
    seed: int | None,
    recovery: Recovery,
    partitions: int | None = None,
) -> Iterator[Opened]:
    """Ingest what are rows in Spark, and remove the shards afterwards.

    Args:
        data: Training data.
        validation: Validation data of the same kind, or None.
        batch_size: Rows of a step over all ranks.
        seed: Of the order of rows; None keeps the frame's.
        recovery: Whether shards are copied, and what is put up with when none is left.
        partitions: Spread the rows over so many first; None takes them as they are.
    """
    if isinstance(data, LoaderSource):
        yield Opened(data, cast("LoaderSource | None", validation))
        return
    copies = recovery.copies
    opened = Opened(TensorSource(data.plan, (), batch_size, seed), None)
    opened.fixed = partitions is not None
    opened.exact = recovery.recomputed == "exact"
    try:
        trained = _ingest(opened, data, partitions, batch_size)
        opened.source = TensorSource(trained.plan, trained.shards, batch_size, seed, copies=copies)
        if isinstance(validation, TableData):
            checked = _ingest(opened, validation, partitions, None)
            # No order to keep and nothing to agree on: as few, large batches as memory likes.
            large = max(batch_size, min(1024, _VALIDATION_BYTES // checked.plan.row_bytes))
            opened.validation = TensorSource(
                checked.plan, checked.shards, large, None, part=1, copies=copies
            )
        yield opened
    finally:
        for result in opened.ingested:
            result.release()


def _ingest(
    opened: Opened, data: TableData, partitions: int | None, batch_size: int | None
) -> Ingested:
    rows = data.rows if partitions is None else data.rows.spread(partitions, data.plan.columns)
    result = ingest(rows, data.plan, batch_size=batch_size)
    opened.rows.append(rows)
    opened.ingested.append(result)
    return result


def unequal(shards: Sequence[TensorShard], ranks: Mapping[str, int]) -> bool:
    """Whether the fullest host has over half as many rows again for each rank as the mean."""
    rows: Counter[str] = Counter()
    for shard in shards:
        rows[shard.host] += shard.rows
    mean = sum(rows.values()) / sum(ranks.values())
    return any(rows[host] / count > 1.5 * mean for host, count in ranks.items())
