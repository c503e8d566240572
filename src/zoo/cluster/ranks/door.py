"""A port that a process opens for others of its program: each who comes gets a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

__all__ = ["Door"]


class Door:
    """Listens until it is closed, which leaves those alone who are in.

    Args:
        host: The address.
        serve: Called with each connection, which is its own from then on.
        name: Of the threads.

    Attributes:
        port: Which one it is.
    """

    def __init__(self, host: str, serve: Callable[[socket.socket], None], name: str) -> None:
        family, *_, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        self._server = socket.create_server(place, family=family, backlog=1024)
        self._serve, self._name = serve, name
        self._lock = threading.Lock()
        self._inside: dict[threading.Thread, socket.socket] = {}
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name=name, daemon=True)
        self._thread.start()

    @property
    def inside(self) -> int:
        """How many are in."""
        with self._lock:
            return len(self._inside)

    def close(self) -> None:
        """Let nobody in any more."""
        # A blocked accept() sleeps on when only the descriptor is closed; shutdown wakes it.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()

    def clear(self, timeout_s: float) -> None:
        """End the connections of those who are in, and wait so long for their threads."""
        with self._lock:
            inside = dict(self._inside)
        deadline = time.monotonic() + timeout_s
        for thread, client in inside.items():
            with contextlib.suppress(OSError):  # closed by its thread
                client.shutdown(socket.SHUT_RDWR)
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(
                target=self._let_in, args=(client,), name=f"{self._name}-link", daemon=True
            )
            with self._lock:
                self._inside[thread] = client
            thread.start()

    def _let_in(self, client: socket.socket) -> None:
        try:
            self._serve(client)
        finally:
            with self._lock:
                del self._inside[threading.current_thread()]
