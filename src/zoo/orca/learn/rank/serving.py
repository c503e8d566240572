"""Files of shards on their way from one host to another, from rank to rank.

The side that has them serves them over connections that prove the round's key. Nothing is read
through Spark, and a shard stays what it is, so an epoch goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from zoo.cluster.host import scratch_folder
from zoo.cluster.ranks.door import Door
from zoo.cluster.ranks.link import Link
from zoo.cluster.ranks.member import Member
from zoo.orca.data.tensors.tensor_shard import (
    TensorShard,
    is_whole,
    remove_tensors,
    same_content,
)

__all__ = ["Address", "ShardServer", "fetch_shard"]

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 4 << 20
_PATIENCE_S = 60.0

Address = Sequence[object]
"""Host and port, as they travel."""


class ShardServer:
    """Serves the files of some shards until it is closed.

    Args:
        member: Whose address and key it has.
        shards: On this host.
    """

    def __init__(self, member: Member, shards: Sequence[TensorShard]) -> None:
        here = member.arrival.address
        allowed = {s.index: Path(s.path) for s in shards}
        self._door = Door(here, partial(_serve, member.key, allowed), "zoo-shards")
        self.address: Address = [here, self._door.port]

    def close(self) -> None:
        """Let nobody in any more; who is in gets all of its file."""
        self._door.close()


def _serve(key: bytes, allowed: Mapping[int, Path], client: socket.socket) -> None:
    try:
        with contextlib.closing(Link(client, key, server=True)) as link:
            client.settimeout(_PATIENCE_S)
            body, _ = link.receive()
            with allowed[body["shard"]].open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    if not link.send({}, chunk):
                        return
            link.send({"end": True})
            with contextlib.suppress(OSError):
                link.receive()  # until the other side has it all
    except (OSError, KeyError) as exc:
        _log.warning("a shard was asked for and not given: %s", exc)


def fetch_shard(
    member: Member,
    shard: TensorShard,
    address: Address,
    *,
    wait: Callable[[float], bool] = lambda _: False,
) -> str:
    """Fetch the file of a shard to this host.

    Args:
        member: Whose key is proved.
        shard: On another host.
        address: Of its server.
        wait: Called after each chunk with the seconds that it took; True gives up.

    Returns:
        The new path; nothing when the file did not come, or came damaged.
    """
    name = Path(shard.path).name.rsplit("-", 1)[0]
    path = scratch_folder() / f"{name}-{uuid.uuid4().hex[:8]}"
    try:
        with (
            contextlib.closing(
                Link.connect((str(address[0]), int(str(address[1]))), member.key)
            ) as link,
            open(path, "xb", opener=_private) as file,
        ):
            link.send({"shard": shard.index})
            for chunk, took_s in _chunks(link):
                file.write(chunk)
                if wait(took_s):
                    raise InterruptedError("the round is over")
        if is_whole(path, shard.bytes) and same_content(path, shard.checksum):
            return str(path)
        _log.warning("shard %d came damaged", shard.index)
    except InterruptedError:
        pass
    except OSError as exc:
        _log.warning("shard %d did not come: %s", shard.index, exc)
    remove_tensors(path)
    return ""


def _chunks(link: Link) -> Iterator[tuple[bytes, float]]:
    while True:
        begun = time.monotonic()
        body, chunk = link.receive()
        if "end" in body:
            return
        yield chunk, time.monotonic() - begun


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
