import contextlib
import socket
import threading

import pytest

from zoo.cluster.ranks.door import Door


def echo(client: socket.socket) -> None:
    with client:
        while said := client.recv(100):
            client.sendall(said)


def asked(client: socket.socket, said: bytes) -> bytes:
    with contextlib.suppress(OSError):
        client.sendall(said)
        return client.recv(100)
    return b""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_each_who_comes_is_served(host: str) -> None:
    try:
        door = Door(host, echo, "zoo-test")
    except OSError:
        pytest.skip(f"{host} is no address here")
    with contextlib.closing(door):
        clients = [socket.create_connection((host, door.port), 5) for _ in range(3)]
        assert [asked(c, b"%d" % k) for k, c in reversed([*enumerate(clients)])]
        assert door.inside == 3
        for client in clients:
            client.close()
        door.clear(5.0)


def test_closed_door_keeps_those_who_are_in() -> None:
    door = Door("127.0.0.1", echo, "zoo-test")
    with socket.create_connection(("127.0.0.1", door.port), 5) as client:
        assert asked(client, b"a") == b"a"
        door.close()
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", door.port), 5)
        assert asked(client, b"b") == b"b"
        door.clear(5.0)
        assert asked(client, b"c") == b""
    assert door.inside == 0
    assert not any(thread.name.startswith("zoo-test") for thread in threading.enumerate())
