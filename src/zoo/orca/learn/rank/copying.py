"""A second copy of each shard on another host, made while the model trains.

When a host is lost with its disk, its shards are computed again by what made the rows, and that may
give other rows. Where there are several hosts, the first rank of each therefore fetches shards of
the others, one after another and with pauses, so that training has most of the network. The driver
is told of each copy; after a loss the copy becomes the shard.
"""

from __future__ import annotations

import logging
import platform
import shutil
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from zoo.cluster.host import scratch_folder
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Kind
from zoo.orca.data.tensors.tensor_shard import TensorShard
from zoo.orca.learn.rank.serving import Address, ShardServer, fetch_shard

__all__ = ["plan_copies", "start_copies"]

_log = logging.getLogger(__name__)

# A pause as long as so many times what a chunk took.
_PAUSE = 1.0
# How often the driver is told of new copies.
_TELL_S = 0.5
# Of a disk, this much stays free for others.
_FREE_SHARE = 0.1


def plan_copies(shards: Sequence[TensorShard], hosts: Collection[str]) -> dict[int, str]:
    """Which host is to have a copy of which shard, about equally many bytes each.

    Args:
        shards: All of them.
        hosts: Those that have ranks.

    Returns:
        The host for each shard that has no copy on one of them; nothing where there is one host.
    """
    held: Counter[str] = Counter(dict.fromkeys(hosts, 0))
    missing = []
    for shard in shards:
        if shard.copy is not None and shard.copy.host in held and shard.copy.host != shard.host:
            held[shard.copy.host] += shard.bytes
        elif shard.host in held:
            missing.append(shard)
    targets: dict[int, str] = {}
    for shard in missing:
        others = sorted(host for host in held if host != shard.host)
        if others:
            target = min(others, key=lambda host: held[host])
            targets[shard.index] = target
            held[target] += shard.bytes
    return targets


def start_copies(member: Member, shards: Sequence[TensorShard], part: int) -> None:
    """Begin to copy in the background. Every rank must call this with the same shards.

    It ends with the round. Each copy is reported to the driver.

    Args:
        member: This rank.
        shards: All of them, where they are now.
        part: Which data of the fit they are.
    """
    targets = plan_copies(shards, {p.host for p in member.peers})
    if not targets:
        return
    here, leads = member.arrival.host, member.rank == member.neighbours[0]
    giving = [s for s in shards if leads and s.host == here and s.index in targets]
    server = ShardServer(member, giving) if giving else None
    told = {"host": here, "address": server.address} if server is not None else None
    addresses = {a["host"]: a["address"] for a in member.share(told) if a is not None}
    wanted = [s for s in shards if leads and targets.get(s.index) == here]
    if leads:
        # No daemon: a process that ends waits until the copy that was under way is removed.
        threading.Thread(
            target=_copy, args=(member, wanted, addresses, server, part), name="zoo-copies"
        ).start()


def _copy(
    member: Member,
    wanted: Sequence[TensorShard],
    addresses: Mapping[str, Address],
    server: ShardServer | None,
    part: int,
) -> None:
    over, done, told = member.closed, list[list[str]](), time.monotonic()

    def wait(took_s: float) -> bool:
        return over.wait(_PAUSE * took_s)

    try:
        for shard in wanted:
            if over.is_set():
                break
            if not _has_room(shard.bytes):
                _log.warning(
                    "no room for a copy of shard %d on %s: if its host is lost, its rows are "
                    "computed again",
                    shard.index, platform.node(),
                )  # fmt: skip
                break
            if path := fetch_shard(member, shard, addresses[shard.host], wait=wait):
                done.append([shard.path, member.arrival.host, path])
            if done and time.monotonic() - told > _TELL_S:
                # Not one by one: there may be thousands, and the driver has others to hear.
                member.report({"places": done, "part": part}, Kind.COPIED)
                done, told = [], time.monotonic()
        if done:
            member.report({"places": done, "part": part}, Kind.COPIED)
        over.wait()
    finally:
        if server is not None:
            server.close()


def _has_room(size: int) -> bool:
    try:
        disk = shutil.disk_usage(scratch_folder())
    except OSError:
        return False
    return disk.free - size > _FREE_SHARE * disk.total
