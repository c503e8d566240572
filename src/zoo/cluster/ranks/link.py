"""One connection of a meeting: messages between two sides that both know a key.

A message is a small JSON body and, at times, bytes. Before anything is read each side proves that
it knows the key (HMAC over fresh random bytes of both, with the prover's side in it, so that no
answer fits twice); the key itself never travels.

The head of a message says how long it is, and both sides see how many of its bytes have moved, so
who waits for a long one can tell a slow network from one that stands still.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hmac
import io
import json
import os
import secrets
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

__all__ = ["CrashError", "Flow", "Link"]

_NONCE = _PROOF = 32
_HEAD = struct.Struct("<IQ")
# A crash is told in place of a head: these are as many bytes, and no head has a body of a gigabyte.
_CRASH = b"Fatal Python"
_CRASH_BYTES = 1 << 14
# What is handed to the kernel at once. Small, so that a slow network is seen to move.
_PIECE_BYTES = 1 << 18
# A host that vanished sends no word of it. Ask a silent one after 10 s, and give up 15 s later.
_LIVENESS = {
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,
}


class CrashError(ConnectionResetError):
    """The process on the other side died of a signal, and its last words say where."""


@dataclass
class Flow:
    """How far the message under way is, in one direction.

    Attributes:
        size: Its bytes; of the last one when none is under way.
        moved: How many have been sent or have come.
        at: When the last byte moved, by the monotonic clock.
    """

    size: int = 0
    moved: int = 0
    at: float = field(default_factory=time.monotonic)

    @property
    def under_way(self) -> bool:
        """Whether a message has begun and not ended."""
        return self.moved < self.size

    def begin(self, size: int, moved: int) -> None:
        """A message of this size begins, a part of it has moved already."""
        self.at = time.monotonic()
        self.size, self.moved = size, moved

    def move(self, count: int) -> None:
        """Some of its bytes have moved."""
        self.at = time.monotonic()
        self.moved += count


class _Incoming(socket.SocketIO):
    """Counts what comes, piece by piece, while a long message is read."""

    def __init__(self, sock: socket.socket, flow: Flow) -> None:
        super().__init__(sock, "r")
        self._flow = flow

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self._flow.move(count or 0)
        return count


class Link:
    """A connection whose two sides have proved that they know the key.

    Any thread may send; one thread receives.

    Args:
        sock: The connected socket, which is the link's from now on.
        key: The secret of both sides.
        server: Whether this side accepted the connection.
        timeout_s: Longest wait for the other side's proof.

    Attributes:
        sending: The message that this side sends.
        receiving: The message that comes.

    Raises:
        PermissionError: The other side does not know the key.
        OSError: It went away, or took too long.
    """

    def __init__(
        self, sock: socket.socket, key: bytes, *, server: bool, timeout_s: float = 10.0
    ) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self.sending, self.receiving = Flow(), Flow()
        self._reader = io.BufferedReader(_Incoming(sock, self.receiving))
        self._tells_crashes = False
        _links.add(self)
        try:
            sock.settimeout(timeout_s)
            self._prove(key, server)
            sock.settimeout(None)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _LIVENESS.items():
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        except BaseException:
            self.close()
            raise

    @classmethod
    def connect(cls, address: tuple[str, int], key: bytes, *, timeout_s: float = 20.0) -> Self:
        """Connect to the side that listens."""
        sock = socket.create_connection(address, timeout_s)
        return cls(sock, key, server=False, timeout_s=timeout_s)

    @property
    def local_host(self) -> str:
        """The address that this side uses toward the other."""
        return str(self._sock.getsockname()[0])

    def send(self, body: dict[str, Any], payload: bytes | memoryview = b"") -> bool:
        """Send a message; False when the other side is gone.

        One that is left half sent ends the connection: the other side would take whatever comes
        next for the rest of it.
        """
        text = json.dumps(body).encode()
        head = _HEAD.pack(len(text), len(payload)) + text
        with self._lock, self._whole_or_ended():
            self.sending.begin(len(head) + len(payload), 0)
            for part in (memoryview(head), memoryview(payload)):
                for start in range(0, len(part), _PIECE_BYTES):
                    piece = part[start : start + _PIECE_BYTES]
                    self._sock.sendall(piece)
                    self.sending.move(len(piece))
            return True
        return False

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Wait for a message.

        Raises:
            CrashError: The other side died of a signal.
            OSError: The other side is gone, or the link was ended.
            ValueError: What came is no message.
        """
        head = self._read(_HEAD.size)
        if head == _CRASH:
            raise CrashError((head + self._reader.read(_CRASH_BYTES)).decode(errors="replace"))
        length, extra = _HEAD.unpack(head)
        self.receiving.begin(length + extra, 0)
        body: dict[str, Any] = json.loads(self._read(length))
        payload = self._read(extra)
        # What the reader had taken beyond the head was not seen to move.
        self.receiving.begin(length + extra, length + extra)
        return body, payload

    def tell_crashes(self) -> None:
        """Let the other side know when this process dies of a signal, such as a bad address."""
        if not faulthandler.is_enabled():
            faulthandler.enable(self._sock.fileno())
            self._tells_crashes = True

    def end(self, *, sending: bool = False) -> None:
        """End the stream, which wakes whoever receives on either side.

        Args:
            sending: End only what this side sends; all of it still arrives.
        """
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR if sending else socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back. Only the thread that receives, or after it has ended."""
        with self._lock:
            self._forget_crashes()
            self._reader.close()
            self._sock.close()

    @contextlib.contextmanager
    def _whole_or_ended(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.end(sending=True)  # what the other side sent before it went can still be read
        except BaseException:
            self.end()
            raise

    def _forget_crashes(self) -> None:
        if self._tells_crashes:
            faulthandler.disable()
            self._tells_crashes = False

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise ConnectionResetError("the other side ended the connection")
        return data

    def _prove(self, key: bytes, server: bool) -> None:
        mine = secrets.token_bytes(_NONCE)
        self._sock.sendall(mine)
        theirs = self._read(_NONCE)
        fresh = mine + theirs if server else theirs + mine
        proofs = [hmac.digest(key, side + fresh, "sha256") for side in (b"client", b"server")]
        # The client goes first: whoever only connects never sees a proof.
        if not server:
            self._sock.sendall(proofs[0])
        if not hmac.compare_digest(self._read(_PROOF), proofs[0 if server else 1]):
            raise PermissionError("the other side does not know the key")
        if server:
            self._sock.sendall(proofs[1])


# A forked child (the workers of a data loader, say) would keep the connection of its dead parent
# open, and nobody would learn of the death.
_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _forget_links() -> None:
    for link in _links:
        link._forget_crashes()
        with contextlib.suppress(OSError):
            os.close(link._sock.detach())


os.register_at_fork(after_in_child=_forget_links)
