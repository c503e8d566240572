"""A rank opens its part of the tensor shards of a fit."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Kind
from zoo.errors import ShardsLostError
from zoo.orca.data.tensors.tensor_shard import is_whole
from zoo.orca.learn.order import TensorSource
from zoo.orca.learn.rank.copying import start_copies
from zoo.orca.learn.rank.feed import TensorFeed
from zoo.orca.learn.rank.moving import move_shards

__all__ = ["open_feed"]


def open_feed(source: TensorSource, member: Member, *, threads: int = 1) -> TensorFeed:
    """The batches of this rank. Every rank must call this.

    Args:
        source: The rows, the same on every rank.
        member: This rank.
        threads: How many decode cells that stay bytes until then.

    Raises:
        ShardsLostError: Shards are not where they were; they are to be computed again.
    """
    here, host = member.neighbours, member.arrival.host
    # All look before any of them begins, so that all lost shards are known at once.
    lost = _missing(source, host)
    everyone = sorted({k for part in member.share(lost) for k in part})
    if everyone:
        raise _lost(source, everyone)
    shards = move_shards(member, source.shards, part=source.part, keep=source.copies)
    if shards != source.shards and member.rank == 0:
        moved = [[s.index, s.host, s.path, s.copy and [s.copy.host, s.copy.path]] for s in shards]
        member.report({"places": moved, "part": source.part}, Kind.MOVED)
    if source.copies:
        start_copies(member, shards, source.part)
    try:
        return TensorFeed(
            source.plan,
            shards,
            host=host,
            place=(here.index(member.rank), len(here)),
            batch_size=source.batch_size,
            seed=source.seed,
            threads=threads,
        )
    except FileNotFoundError as exc:
        gone = [s.index for s in shards if s.path == exc.filename]
        raise _lost(source, gone) from exc


def _missing(source: TensorSource, host: str) -> list[int]:
    mine = [s for s in source.shards if s.host == host]
    return [s.index for s in mine if not is_whole(s.path, s.bytes)]


def _lost(source: TensorSource, numbers: Sequence[int]) -> ShardsLostError:
    return ShardsLostError(
        "the shards of every host on its disk", f"{len(numbers)} missing or cut off",
        "Their copies are used, or they are computed again.",
        [(source.part, number) for number in numbers],
    )  # fmt: skip
