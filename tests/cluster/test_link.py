"""Connections between sides that both know a key."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from zoo.cluster.link import Link

KEY = b"k" * 32


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def accept(server: socket.socket, key: bytes = KEY, timeout_s: float = 10.0) -> list[Any]:
    """Accept one connection in a thread: [thread, link or error]."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(Link(server.accept()[0], key, server=True, timeout_s=timeout_s))
        except OSError as exc:
            outcome.append(exc)

    outcome.append(threading.Thread(target=run))
    outcome[0].start()
    return outcome


def pair(server: socket.socket) -> tuple[Link, Link]:
    accepting = accept(server)
    ours = Link.connect(server.getsockname(), KEY)
    accepting[0].join()
    return ours, accepting[1]


def test_messages_pass_both_ways(server: socket.socket) -> None:
    ours, theirs = pair(server)
    with closing(ours), closing(theirs):
        assert ours.send({"a": [1, None]})
        assert theirs.receive() == ({"a": [1, None]}, b"")
        assert theirs.send({}, b"\x00" * 5)
        assert ours.receive() == ({}, b"\x00" * 5)


def test_large_payload_arrives_whole(server: socket.socket) -> None:
    ours, theirs = pair(server)
    payload = bytes(range(256)) * 400_000
    with closing(ours), closing(theirs):
        sender = threading.Thread(target=ours.send, args=({}, payload))
        sender.start()
        assert theirs.receive()[1] == payload
        sender.join()


def test_messages_of_many_threads_stay_whole(server: socket.socket) -> None:
    ours, theirs = pair(server)
    with closing(ours), closing(theirs):
        threads = [
            threading.Thread(target=ours.send, args=({"n": n}, bytes([n]) * 50_000))
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for _ in threads:
            body, payload = theirs.receive()
            assert payload == bytes([body["n"]]) * 50_000
        for thread in threads:
            thread.join()


def test_client_without_the_key_is_refused(server: socket.socket) -> None:
    accepting = accept(server)
    with pytest.raises(OSError, match=r"key|ended|reset"):
        Link.connect(server.getsockname(), b"x" * 32)
    accepting[0].join()
    assert isinstance(accepting[1], PermissionError)


def test_server_without_the_key_is_refused(server: socket.socket) -> None:
    def pretend() -> None:
        with server.accept()[0] as client:
            client.sendall(b"n" * 32)
            client.recv(1024)
            client.sendall(b"p" * 32)
            client.recv(1024)

    impostor = threading.Thread(target=pretend)
    impostor.start()
    with pytest.raises(PermissionError):
        Link.connect(server.getsockname(), KEY)
    impostor.join()


def test_a_proof_that_is_sent_back_proves_nothing(server: socket.socket) -> None:
    def echo() -> None:
        with server.accept()[0] as client:
            while data := client.recv(1024):
                client.sendall(data)

    mirror = threading.Thread(target=echo)
    mirror.start()
    with pytest.raises(PermissionError):
        Link.connect(server.getsockname(), KEY)
    mirror.join()


def test_who_says_nothing_is_not_waited_for(server: socket.socket) -> None:
    accepting = accept(server, timeout_s=0.2)
    with socket.create_connection(server.getsockname()):
        accepting[0].join(5.0)
        assert isinstance(accepting[1], TimeoutError)


def test_end_wakes_who_receives(server: socket.socket) -> None:
    ours, theirs = pair(server)
    with closing(ours), closing(theirs):
        waker = threading.Timer(0.1, ours.end)
        waker.start()
        with pytest.raises(OSError, match="ended"):
            ours.receive()
        with pytest.raises(OSError, match="ended"):
            theirs.receive()
        waker.join()


def test_what_was_sent_before_the_end_arrives(server: socket.socket) -> None:
    ours, theirs = pair(server)
    with closing(ours), closing(theirs):
        ours.send({"last": "words"})
        ours.end(sending=True)
        assert theirs.receive()[0] == {"last": "words"}
        with pytest.raises(OSError, match="ended"):
            theirs.receive()
        assert not ours.send({})
