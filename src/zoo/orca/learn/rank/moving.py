"""Shards that move to other hosts, when ranks came or went there.

All ranks work out the same few moves from what all of them know. The first rank of a host serves
its shards to the first rank of the host that takes them. A shard whose copy is there already does
not travel: the two change their parts.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from zoo.cluster.ranks.member import Member
from zoo.errors import ShardsLostError
from zoo.orca.data.tensors.tensor_shard import Place, TensorShard, remove_tensors
from zoo.orca.learn.rank.serving import ShardServer, fetch_shard

__all__ = ["Move", "move_shards", "plan_moves"]

# Up to here the fullest host may be above its share: moving costs more than it brings.
_TOLERANCE = 1.25


@dataclass(frozen=True)
class Move:
    """A shard that goes to another host.

    Attributes:
        index: The shard.
        source: Key of the host that has it.
        target: Key of the host that takes it.
    """

    index: int
    source: str
    target: str


def plan_moves(shards: Sequence[TensorShard], ranks: Mapping[str, int]) -> list[Move]:
    """The moves after which the rows of each host go with its ranks, as well as whole shards can.

    Args:
        shards: All of them, on hosts that have ranks.
        ranks: How many each host has.

    Returns:
        None when no host is much above its share.
    """
    total, size = sum(s.rows for s in shards), sum(ranks.values())
    share = {host: total * count / size for host, count in ranks.items()}
    held: Counter[str] = Counter(dict.fromkeys(ranks, 0))
    for shard in shards:
        held[shard.host] += shard.rows
    if all(held[host] <= _TOLERANCE * share[host] for host in ranks):
        return []
    moves = []
    for shard in sorted(shards, key=lambda s: (-s.rows, s.index)):
        target = min(ranks, key=lambda host: (held[host] - share[host], host))
        over, under = held[shard.host] - share[shard.host], share[target] - held[target]
        # It must be better afterwards: neither side further from its share than the source was.
        if over > 0 and under > 0 and max(over - shard.rows, shard.rows - under) < over:
            moves.append(Move(shard.index, shard.host, target))
            held[shard.host] -= shard.rows
            held[target] += shard.rows
    return moves


def move_shards(
    member: Member, shards: Sequence[TensorShard], *, part: int = 0, keep: bool = False
) -> tuple[TensorShard, ...]:
    """Balance shards over the hosts of a world. Every rank must call this with the same shards.

    Args:
        member: This rank.
        shards: All of them, on hosts of the world.
        part: Which data of the fit they are.
        keep: Leave the file that a shard comes from as its copy, where it has none.

    Returns:
        The shards in their order, with their new places.

    Raises:
        ShardsLostError: Some could not be moved; they are to be made again.
    """
    moves = {m.index: m for m in plan_moves(shards, Counter(p.host for p in member.peers))}
    if not moves:
        return tuple(shards)
    travel = [s for s in shards if s.index in moves and not _is_at(s, moves[s.index].target)]
    new = _travelled(member, travel, moves, part)
    done = tuple(
        _moved(s, moves[s.index].target, new.get(s.index, ""), keep) if s.index in moves else s
        for s in shards
    )
    places = {p for s in done for p in (Place(s.host, s.path), s.copy)}
    for shard in travel:
        if _leads(member, shard.host) and Place(shard.host, shard.path) not in places:
            remove_tensors(shard.path)
    return done


def _is_at(shard: TensorShard, host: str) -> bool:
    return shard.copy is not None and shard.copy.host == host


def _leads(member: Member, host: str) -> bool:
    return member.arrival.host == host and member.rank == member.neighbours[0]


def _moved(shard: TensorShard, target: str, path: str, keep: bool) -> TensorShard:
    """The shard at its new place."""
    before = Place(shard.host, shard.path)
    if not path:
        assert shard.copy is not None
        return replace(shard, host=target, path=shard.copy.path, copy=before)
    copy = shard.copy or (before if keep else None)
    return replace(shard, host=target, path=path, copy=copy)


def _travelled(
    member: Member, shards: Sequence[TensorShard], moves: Mapping[int, Move], part: int
) -> dict[int, str]:
    """Take shards to other hosts; their new paths.

    Raises:
        ShardsLostError: Some have not come.
    """
    here = member.arrival.host
    giving = [s for s in shards if _leads(member, s.host)]
    with contextlib.ExitStack() as stack:
        address = None
        if giving:
            server = stack.enter_context(contextlib.closing(ShardServer(member, giving)))
            address = {"host": here, "address": server.address}
        found = {a["host"]: a["address"] for a in member.share(address) if a is not None}
        taken = [
            [s.index, fetch_shard(member, s, found[s.host])]
            for s in shards
            if _leads(member, moves[s.index].target)
        ]
        places = [place for told in member.share(taken) for place in told]
    if lost := [index for index, path in places if not path]:
        raise ShardsLostError(
            "shards that move to another host", f"{len(lost)} that could not",
            "They are made again.", [(part, index) for index in lost],
        )  # fmt: skip
    return dict(places)
