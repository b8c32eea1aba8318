"""Facts about the distance to Redis that is put into measurements."""

import socket
import threading
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import pytest

from tests.bench.distance import distant

_ROUND_TRIP = 20.0


@pytest.mark.parametrize("round_trip", [0.0, _ROUND_TRIP])
def test_what_is_sent_comes_in_order_after_half_the_round_trip_each_way(
    round_trip: float, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        with distant(server.getsockname()[1], round_trip, tmp_path) as url:
            port = urlsplit(url).port
            assert port is not None
            with socket.create_connection(("127.0.0.1", port)) as client:
                for _ in range(3):
                    began = perf_counter()
                    client.sendall(b"one")
                    client.sendall(b"two")
                    assert client.recv(6, socket.MSG_WAITALL) == b"onetwo"
                    assert perf_counter() - began >= round_trip / 1000


def _echo(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data)
