"""Shards that move to other hosts, when ranks came or went there.

All ranks work out the same few moves from what all of them know. The first rank of a host serves
its shards, over connections that prove the round's key, to the first rank of the host that takes
them. Nothing is read through Spark, and the shards stay what they are, so an epoch goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.cluster.host import scratch_root
from zoo.cluster.link import Link
from zoo.cluster.meeting import Member
from zoo.errors import ShardsLostError
from zoo.orca.data.shard import Shard, remove_shard

__all__ = ["Move", "move_shards", "plan_moves"]

_log = logging.getLogger(__name__)

# Up to here the fullest host may be above its share: moving costs more than it brings.
_TOLERANCE = 1.25
_CHUNK_BYTES = 4 << 20
_PATIENCE_S = 60.0


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


def plan_moves(shards: Sequence[Shard], ranks: Mapping[str, int]) -> list[Move]:
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


def move_shards(member: Member, shards: Sequence[Shard]) -> tuple[Shard, ...]:
    """Balance shards over the hosts of a world. Every rank must call this with the same shards.

    Args:
        member: This rank.
        shards: All of them, on hosts of the world.

    Returns:
        The shards in their order, with their new places.

    Raises:
        ShardsLostError: Some could not be moved; they are to be computed again.
    """
    moves = plan_moves(shards, Counter(p.host for p in member.peers))
    if not moves:
        return tuple(shards)
    leads = member.rank == member.neighbours[0]
    here, by_index = member.arrival.host, {s.index: s for s in shards}
    giving = [by_index[m.index] for m in moves if m.source == here] if leads else []
    with _served(member, giving) as address:
        addresses = member.share({"host": here, "address": address} if leads else None)
        found = {a["host"]: a["address"] for a in addresses if a is not None}
        taken: list[list[object]] = []
        if leads:
            for move in (m for m in moves if m.target == here):
                path = _take(member, by_index[move.index], found[move.source])
                taken.append([move.index, path])
        places = [place for part in member.share(taken) for place in part]
    lost = [index for index, path in places if not path]
    if lost:
        raise ShardsLostError(
            "shards that move to another host", f"{len(lost)} that could not",
            "They are computed again.", lost,
        )  # fmt: skip
    new = dict(places)
    target = {m.index: m.target for m in moves}
    for shard in giving:
        remove_shard(shard)
    return tuple(
        replace(s, host=target[s.index], path=new[s.index]) if s.index in new else s for s in shards
    )


@contextlib.contextmanager
def _served(member: Member, shards: Sequence[Shard]) -> Iterator[list[object] | None]:
    """Serve these shards for a while.

    Yields:
        Host and port; None without shards.
    """
    if not shards:
        yield None
        return
    here = member.arrival.address
    family = socket.AF_INET6 if ":" in here else socket.AF_INET
    server = socket.create_server((here, 0), family=family)
    allowed = {s.index: Path(s.path) for s in shards}
    door = threading.Thread(
        target=_accept, args=(server, member.key, allowed), name="zoo-shards", daemon=True
    )
    door.start()
    try:
        yield [here, server.getsockname()[1]]
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        door.join(_PATIENCE_S)


def _accept(server: socket.socket, key: bytes, allowed: Mapping[int, Path]) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        try:
            with contextlib.closing(Link(client, key, server=True)) as link:
                client.settimeout(_PATIENCE_S)
                body, _ = link.receive()
                _give(link, allowed[body["shard"]])
        except (OSError, KeyError) as exc:
            _log.warning("a shard was asked for and not given: %s", exc)


def _give(link: Link, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            link.send({"file": path.name})
            while chunk := file.read(_CHUNK_BYTES):
                link.send({}, chunk)
    link.send({"end": True})
    with contextlib.suppress(OSError):
        link.receive()  # until the other side has it all


def _take(member: Member, shard: Shard, address: Sequence[object]) -> str:
    """Fetch a shard; its new path, or nothing when that failed."""
    name = Path(shard.path).name.rsplit("-", 1)[0]
    folder = _scratch() / f"{name}-{uuid.uuid4().hex[:8]}"
    file = None
    try:
        folder.mkdir(mode=0o700)
        place = (str(address[0]), int(str(address[1])))
        with contextlib.closing(Link.connect(place, member.key)) as link:
            link.send({"shard": shard.index})
            while True:
                body, chunk = link.receive()
                if "file" in body or "end" in body:
                    if file is not None:
                        file.close()
                        file = None
                    if "end" in body:
                        return str(folder)
                    file = (folder / Path(body["file"]).name).open("wb")
                elif file is not None:
                    file.write(chunk)
    except OSError as exc:
        _log.warning("shard %d did not come: %s", shard.index, exc)
        shutil.rmtree(folder, ignore_errors=True)
        return ""
    finally:
        if file is not None:
            file.close()


def _scratch() -> Path:
    if "SPARK_LOCAL_DIRS" in os.environ:
        return scratch_root()
    return Path(tempfile.gettempdir())
