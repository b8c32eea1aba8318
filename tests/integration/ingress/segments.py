"""Requests in pieces: each reaches the port by a read of its own, as the network would have it."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest

from ingress.http.connection import Connection
from tests.ingress_support import Client

MANY: Final = 13
_PATIENCE: Final = 20.0
_END_OF_HEAD: Final = b"\r\n\r\n"


def pieces(raw: bytes, number: int) -> list[bytes]:
    """Cut bytes: two are head and body where there are both, else halves; many are all alike."""
    if number == 1 or len(raw) < number:
        return [raw]
    head, end, body = raw.partition(_END_OF_HEAD)
    if number == 2 and body:
        return [head + end, body]
    step = -(-len(raw) // number)
    return [raw[at : at + step] for at in range(0, len(raw), step)]


class Arrivals:
    """What the ports of this process have read, by the port of the client that sent it."""

    def __init__(self) -> None:
        self._sent: Counter[int] = Counter()
        self._read: Counter[int] = Counter()
        self._connections: dict[int, Connection] = {}
        self._clients: dict[Connection, int] = {}

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take every connection and every read down."""
        made, received = Connection.connection_made, Connection.data_received

        def connection_made(connection: Connection, transport: asyncio.BaseTransport) -> None:
            client = transport.get_extra_info("peername")[1]
            self._sent[client] = self._read[client] = 0
            self._connections[client] = connection
            self._clients[connection] = client
            made(connection, transport)

        def data_received(connection: Connection, data: bytes) -> None:
            self._read[self._clients[connection]] += len(data)
            received(connection, data)

        monkeypatch.setattr(Connection, "connection_made", connection_made)
        monkeypatch.setattr(Connection, "data_received", data_received)

    async def send(self, client: Client, raw: bytes, number: int) -> None:
        """Send bytes in so many pieces, each once the one before has been read."""
        port = client.writer.get_extra_info("sockname")[1]
        await self._until(lambda: port in self._connections)
        for piece in pieces(raw, number):
            sent = self._sent[port]
            await self._until(lambda: self._read[port] >= sent or not self._is_read(port))  # noqa: B023  # at once
            for _ in range(3):  # what a read has begun goes on before the next one
                await asyncio.sleep(0)
            if client.writer.transport.is_closing():  # uvloop raises another error for it
                raise ConnectionResetError("the other side has ended")
            client.writer.write(piece)
            self._sent[port] += len(piece)
            await client.writer.drain()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_PATIENCE):
            while not condition():
                await asyncio.sleep(0)

    def _is_read(self, port: int) -> bool:
        """Whether a connection takes more: one that is full, or over, never will by itself."""
        connection = self._connections[port]
        transport: Any = connection.transport
        is_paused = connection._reading_paused or connection._buffer_paused
        return transport is not None and not transport.is_closing() and not is_paused
