"""Connections between sides that both know a key."""

import faulthandler
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from zoo.cluster.ranks import link as link_module
from zoo.cluster.ranks.link import CrashError, Link

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


# Messages under way


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def begin_message(link: Link, size: int, sent: int) -> None:
    """Send the head of a message and a part of its payload."""
    link._sock.sendall(link_module._HEAD.pack(2, size) + b"{}" + bytes(sent))


def test_receiver_sees_how_much_has_come(server: socket.socket) -> None:
    ours, theirs = pair(server)
    with closing(ours), closing(theirs), ThreadPoolExecutor(1) as pool:
        begin_message(ours, 1_000_000, 300_000)
        receiving = pool.submit(theirs.receive)
        flow = theirs.receiving
        await_true(lambda: flow.moved > 250_000)
        assert flow.under_way
        assert flow.size == 1_000_002
        before = flow.at
        ours._sock.sendall(bytes(100_000))
        await_true(lambda: flow.moved > 350_000)
        assert flow.at > before
        ours._sock.sendall(bytes(600_000))
        assert len(receiving.result(5)[1]) == 1_000_000
        assert not flow.under_way


def test_sender_sees_how_much_has_gone(server: socket.socket) -> None:
    ours, theirs = pair(server)
    with closing(ours), closing(theirs), ThreadPoolExecutor(1) as pool:
        sending = pool.submit(ours.send, {}, bytes(50_000_000))
        await_true(lambda: ours.sending.moved > 0)
        assert ours.sending.under_way  # nobody reads
        assert len(theirs.receive()[1]) == 50_000_000
        assert sending.result(5)
        assert not ours.sending.under_way


class Cut(BaseException):
    """Like an interruption."""


def test_message_left_half_sent_ends_the_connection(server: socket.socket) -> None:
    ours, theirs = pair(server)

    def cut(*_: object) -> None:
        raise Cut

    before = signal.signal(signal.SIGALRM, cut)
    with closing(ours), closing(theirs):
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Cut):
            ours.send({}, bytes(50_000_000))
        signal.signal(signal.SIGALRM, before)
        # What comes next is not read as the rest of it.
        assert not ours.send({"next": 1}, bytes(50_000_000))
        with pytest.raises(ConnectionError, match="ended"):
            theirs.receive()


def test_last_words_of_a_crash_are_no_message(server: socket.socket) -> None:
    ours, theirs = pair(server)
    with closing(theirs):
        ours._sock.sendall(b"Fatal Python error: Bus error\n\nCurrent thread")
        ours.close()
        with pytest.raises(CrashError, match="Bus error"):
            theirs.receive()


def test_crashes_are_told_only_while_the_connection_is_open(server: socket.socket) -> None:
    faulthandler.disable()  # pytest has enabled it
    ours, theirs = pair(server)
    try:
        with closing(theirs):
            ours.tell_crashes()
            assert faulthandler.is_enabled()
            ours.close()
        assert not faulthandler.is_enabled()
    finally:
        faulthandler.enable()


def test_whoever_tells_crashes_already_is_left_alone(server: socket.socket) -> None:
    faulthandler.enable()
    ours, theirs = pair(server)
    with closing(theirs):
        ours.tell_crashes()
        ours.close()
    assert faulthandler.is_enabled()
