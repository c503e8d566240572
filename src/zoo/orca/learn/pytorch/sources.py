"""The data of a fit on the driver: ingested into shards, made again where shards are lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import cast

from zoo.cluster.meeting import Peer
from zoo.errors import ShardsLostError
from zoo.orca.data.ingest import Ingested, ingest, restore, with_shards
from zoo.orca.data.plan import TensorPlan
from zoo.orca.data.rows import Rows
from zoo.orca.data.shard import Shard
from zoo.orca.learn.pytorch.batches import LoaderSource, ShardSource, Source

__all__ = ["Data", "Opened", "TableData", "UnequalHostsError", "open_sources", "unequal"]

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
    """

    source: Source
    validation: Source | None
    rows: list[Rows] = field(default_factory=list)
    ingested: list[Ingested] = field(default_factory=list)
    fixed: bool = False

    @property
    def shards(self) -> tuple[Shard, ...]:
        """Of the training data; empty for loaders."""
        return self.ingested[0].shards if self.ingested else ()

    def require_placed(self, peers: Sequence[Peer]) -> None:
        """Refuse a world in which a shard has no rank on its host, or hosts have unequal work.

        Raises:
            ShardsLostError: Some shards are to be written again, or all.
        """
        ranks = Counter(p.host for p in peers)
        for result in self.ingested:
            strays = [s for s in result.shards if s.host not in ranks]
            if strays:
                raise ShardsLostError(
                    "a rank on every host that holds shards",
                    f"{sum(s.rows for s in strays)} rows on other hosts",
                    "They are computed again.",
                    [s.index for s in strays],
                )
            if not self.fixed and unequal(result.shards, ranks):
                raise UnequalHostsError(
                    "hosts with about equal rows for each rank", "very unequal ones",
                    "The frame is repartitioned.",
                )  # fmt: skip

    def restore(self, lost: Sequence[int]) -> None:
        """Write the shards of these numbers again."""
        for k, (rows, result) in enumerate(zip(self.rows, self.ingested, strict=True)):
            wanted = set(lost) & {s.index for s in result.shards}
            if not wanted:
                continue
            self._replace(k, restore(rows, result, wanted))

    def moved(self, part: int, places: Sequence[tuple[int, str, str]]) -> None:
        """Take in where ranks have put shards.

        Args:
            part: 0 for training data, 1 for validation data.
            places: Number, host and folder of shards.
        """
        new = {index: (host, path) for index, host, path in places}
        old = self.ingested[part]
        shards = tuple(replace(s, host=new[s.index][0], path=new[s.index][1]) for s in old.shards)
        self._replace(part, with_shards(old, shards))

    def _replace(self, part: int, result: Ingested) -> None:
        self.ingested[part] = result
        if part == 0:
            self.source = replace(cast("ShardSource", self.source), shards=result.shards)
        else:
            checked = cast("ShardSource", self.validation)
            self.validation = replace(checked, shards=result.shards)


@contextmanager
def open_sources(
    data: Data,
    validation: Data | None,
    *,
    batch_size: int,
    seed: int | None,
    partitions: int | None = None,
) -> Iterator[Opened]:
    """Ingest what are rows in Spark, and remove the shards afterwards.

    Args:
        data: Training data.
        validation: Validation data of the same kind, or None.
        batch_size: Rows of a step over all ranks.
        seed: Of the order of rows; None keeps the frame's.
        partitions: Spread the rows over so many first; None takes them as they are.
    """
    if isinstance(data, LoaderSource):
        yield Opened(data, cast("LoaderSource | None", validation))
        return
    opened = Opened(ShardSource(data.plan, (), batch_size, seed), None)
    opened.fixed = partitions is not None
    try:
        trained = _ingest(opened, data, partitions, batch_size)
        opened.source = ShardSource(trained.plan, trained.shards, batch_size, seed)
        if isinstance(validation, TableData):
            checked = _ingest(opened, validation, partitions, None)
            # No order to keep and nothing to agree on: as few, large batches as memory likes.
            large = max(batch_size, min(1024, _VALIDATION_BYTES // checked.plan.row_bytes))
            opened.validation = ShardSource(checked.plan, checked.shards, large, None, part=1)
        yield opened
    finally:
        for result in opened.ingested:
            result.release()


def _ingest(
    opened: Opened, data: TableData, partitions: int | None, batch_size: int | None
) -> Ingested:
    rows = data.rows if partitions is None else data.rows.spread(partitions)
    result = ingest(rows, data.plan, batch_size=batch_size)
    opened.rows.append(rows)
    opened.ingested.append(result)
    return result


def unequal(shards: Sequence[Shard], ranks: Mapping[str, int]) -> bool:
    """Whether the fullest host has over half as many rows again for each rank as the mean."""
    rows: Counter[str] = Counter()
    for shard in shards:
        rows[shard.host] += shard.rows
    mean = sum(rows.values()) / sum(ranks.values())
    return any(rows[host] / count > 1.5 * mean for host, count in ranks.items())
