"""Facts about deliveries at a steady rate."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from http import HTTPStatus
from typing import cast

import pytest

from tests.bench.environments import CannotRunError
from tests.bench.steady import Receiver, deliveries


class Answering(asyncio.Protocol):
    """Answers each delivery, after a while."""

    def __init__(self, connected: set["Answering"], status: HTTPStatus, seconds: float) -> None:
        self._connected = connected
        self._answer = f"HTTP/1.1 {status} {status.phrase}\r\n\r\n".encode()
        self._seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connected.add(self)

    def data_received(self, _: bytes) -> None:
        asyncio.get_running_loop().call_later(self._seconds, self._transport.write, self._answer)

    def connection_lost(self, _: Exception | None) -> None:
        self._connected.remove(self)


@asynccontextmanager
async def answered(
    status: HTTPStatus = HTTPStatus.ACCEPTED, seconds: float = 0.0
) -> AsyncIterator[Receiver]:
    """A receiver whose deliveries are answered so."""
    loop = asyncio.get_running_loop()
    connected = set[Answering]()
    server = await loop.create_server(lambda: Answering(connected, status, seconds), "127.0.0.1", 0)
    async with server:
        with closing(await Receiver.at(server.sockets[0].getsockname()[1])) as receiver:
            yield receiver
        while connected:
            await asyncio.sleep(0.001)


async def test_each_delivery_that_was_sent_is_answered_before_the_end() -> None:
    async with answered(seconds=0.05) as receiver:
        async with deliveries([receiver], 1000):
            while not receiver.taken:
                await asyncio.sleep(0.001)
        assert len(receiver.taken) > 1
        assert all(took >= 0.05 for _, took in receiver.taken)


async def test_a_delivery_waits_for_an_idle_connection_as_a_part_of_its_time() -> None:
    async with answered(seconds=0.05) as receiver:
        while receiver.idle.qsize() > 1:
            receiver.idle.get_nowait()
        await asyncio.gather(*map(receiver.ask, range(3)))
        assert max(took for _, took in receiver.taken) >= 0.15


async def test_a_refused_delivery_ends_the_measurement() -> None:
    async with answered(HTTPStatus.SERVICE_UNAVAILABLE) as receiver:
        with pytest.raises(CannotRunError, match="a delivery was answered 503"):
            async with deliveries([receiver], 1000):
                await asyncio.Event().wait()


def test_what_was_sent_outside_of_the_times_does_not_count() -> None:
    receiver = Receiver([], taken=[(1.0, 0.1), (2.0, 0.2), (3.0, 0.3), (4.0, 0.4)])
    assert receiver.within([(2.0, 3.0), (3.5, 9.0)]) == [0.2, 0.4]
