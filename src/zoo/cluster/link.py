"""One connection of a meeting: messages between two sides that both know a key.

A message is a small JSON body and, at times, bytes. Before anything is read each side proves that
it knows the key (HMAC over fresh random bytes of both, with the prover's side in it, so that no
answer fits twice); the key itself never travels.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import socket
import struct
import threading
import weakref
from typing import Any, Self

__all__ = ["Link"]

_NONCE = _PROOF = 32
_HEAD = struct.Struct("<IQ")
# A host that vanished sends no word of it. Ask a silent one after 10 s, and give up 15 s later.
_LIVENESS = {
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,
}


class Link:
    """A connection whose two sides have proved that they know the key.

    Any thread may send; one thread receives.

    Args:
        sock: The connected socket, which is the link's from now on.
        key: The secret of both sides.
        server: Whether this side accepted the connection.
        timeout_s: Longest wait for the other side's proof.

    Raises:
        PermissionError: The other side does not know the key.
        OSError: It went away, or took too long.
    """

    def __init__(
        self, sock: socket.socket, key: bytes, *, server: bool, timeout_s: float = 10.0
    ) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._reader = sock.makefile("rb")
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
        """Send a message; False when the other side is gone."""
        text = json.dumps(body).encode()
        try:
            with self._lock:
                self._sock.sendall(_HEAD.pack(len(text), len(payload)) + text)
                if payload:
                    self._sock.sendall(payload)
        except OSError:
            return False
        return True

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Wait for a message.

        Raises:
            OSError: The other side is gone, or the link was ended.
        """
        length, extra = _HEAD.unpack(self._read(_HEAD.size))
        body: dict[str, Any] = json.loads(self._read(length))
        return body, self._read(extra)

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
            self._reader.close()
            self._sock.close()

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
        with contextlib.suppress(OSError):
            os.close(link._sock.detach())


os.register_at_fork(after_in_child=_forget_links)
