"""Facts about more bytes than there is room for: who is refused, and what the others notice."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from ingress.http import bytes_in_flight as module
from tests.ingress_support import BODY, Client, RecordingWriter, Running, ask, request_bytes
from tests.integration.ingress.public_port import (
    PATIENCE,
    check_refusal,
    chunked_head,
    connections,
    ends,
    public_port,
    until,
)

FALSE = {"X-Sellfern-Signature": "0" * 64}
POOL = 400_000
LONG = {
    "body_bytes": POOL // 4,
    "bytes_in_flight": POOL,
    "header_seconds": 3 * PATIENCE,
    "body_seconds": 3 * PATIENCE,
}
RESET = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""Makes the end of a connection a reset."""

LARGE = b"x" * 90_000


@contextlib.asynccontextmanager
async def under_way(place: Running, raw: bytes) -> AsyncIterator[Client]:
    """A client all of whose bytes have come."""
    async with Client.to(place.port) as client:
        held = place.held
        await client.send(raw)
        await until(lambda: place.held == held + len(raw))
        yield client


async def test_bodies_that_stall_make_room_for_those_that_come(writer: RecordingWriter) -> None:
    begun = request_bytes(LARGE, headers=FALSE)[:-1]
    async with (
        public_port(writer, **LONG) as place,
        under_way(place, begun) as first,
        under_way(place, begun),  # as large, and later: it has been faster, however long both wait
    ):
        await asyncio.sleep(module.STALLED_SECONDS)
        async with Client.to(place.port) as genuine:
            assert (await genuine.ask(request_bytes(LARGE))).status == 202
        assert place.held <= POOL // 2 + len(begun)
        async with Client.to(place.port) as third:
            await third.send(request_bytes(LARGE)[:-1])
            reply = await first.reply()
            check_refusal(reply, 408, "request_timeout")
            assert reply.headers["connection"] == "close"
            await ends(first)
            await third.send(b"x")
            assert (await third.reply()).status == 202


async def test_what_is_announced_and_does_not_come_keeps_nobody_out(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer, **LONG) as place, contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            raw = request_bytes(b"", length=len(LARGE), headers=FALSE)
            await stack.enter_async_context(under_way(place, raw))
        for _ in range(3):
            assert (await ask(place.port, request_bytes(LARGE))).status == 202
        assert all(not each.is_busy for each in connections(place))


async def test_small_bodies_outlast_large_ones(writer: RecordingWriter) -> None:
    small = request_bytes()
    large = chunked_head(headers=FALSE) + b"20000\r\n" + b"x" * 90_000
    async with (
        public_port(writer, **LONG) as place,
        under_way(place, small[:-1]) as genuine,
        under_way(place, large),
        under_way(place, large),
        Client.to(place.port) as another,
    ):
        await another.send(large)
        await until(lambda: place.held <= POOL // 2)
        await genuine.send(small[-1:])
        assert (await genuine.reply()).status == 202


async def test_a_body_that_ends_for_others_gives_its_bytes_back_at_once(
    writer: RecordingWriter,
) -> None:
    begun = request_bytes(LARGE, headers=FALSE)[:-1]
    async with public_port(writer, **LONG) as place, under_way(place, begun) as client:
        (connection,) = connections(place)
        connection._holding.end()
        assert place.held == 0
        await client.send(b"more of it")
        check_refusal(await client.reply(), 408, "request_timeout")
        assert place.held == 0


@pytest.mark.whole("a pool of one reading's size has no use for pieces")
async def test_what_does_not_fit_beside_complete_ones_is_asked_for_later(
    writer: RecordingWriter,
) -> None:
    writer.gate.clear()
    async with public_port(writer, **LONG) as place, contextlib.AsyncExitStack() as stack:
        waiting = [
            await stack.enter_async_context(under_way(place, request_bytes(LARGE)))
            for _ in range(4)
        ]
        check_refusal(await ask(place.port, request_bytes(LARGE)), 503, "bytes_in_flight")
        announced = request_bytes(b"", length=len(LARGE))
        check_refusal(await ask(place.port, announced), 503, "bytes_in_flight")
        writer.gate.set()
        for client in waiting:
            assert (await client.reply()).status == 202
        assert (await ask(place.port, request_bytes(LARGE))).status == 202


async def test_a_request_is_held_until_it_is_durable_and_no_longer(
    writer: RecordingWriter,
) -> None:
    writer.gate.clear()
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(request_bytes())
        await writer.reached.wait()
        assert place.held == len(request_bytes())
        client.writer.write(request_bytes()[:10])
        await until(lambda: place.held > len(request_bytes()))
        writer.gate.set()
        await client.reply()
        assert place.held in {0, 10}  # what came behind it is held on


async def test_a_request_whose_client_has_gone_is_held_until_it_is_durable(
    writer: RecordingWriter,
) -> None:
    writer.gate.clear()
    async with public_port(writer) as place:
        async with Client.to(place.port) as client:
            await client.send(request_bytes())
            await writer.reached.wait()
            client.writer.get_extra_info("socket").setsockopt(*RESET)
            client.writer.transport.abort()
        await until(lambda: not connections(place))
        assert place.held == len(request_bytes())
        writer.gate.set()
        await until(lambda: place.held == 0)


async def test_unfinished_heads_share_what_is_theirs_and_the_oldest_ends(
    writer: RecordingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = request_bytes()[: -len(BODY) - 2] + b"X-Long: " + b"x" * 5000
    async with public_port(writer, **LONG) as place:
        place.receiver.in_flight.heads.most = 2 * len(head) + 100
        async with (
            under_way(place, head) as first,
            under_way(place, head) as second,
            Client.to(place.port) as third,
        ):
            await third.send(head)
            check_refusal(await first.reply(), 408, "request_timeout")
            await ends(first)
            for client in (second, third):
                assert (await client.ask(b"\r\n\r\n" + BODY)).status == 202


async def test_heads_that_end_for_others_leave_nothing_behind(writer: RecordingWriter) -> None:
    head = request_bytes()[: -len(BODY) - 2] + b"X-Long: " + b"x" * 5000
    async with public_port(writer, **LONG) as place, under_way(place, head) as client:
        (connection,) = connections(place)
        connection._holding.end()
        assert connection._parser is None
        await client.send(b"\r\n\r\n")
        check_refusal(await client.reply(), 408, "request_timeout")
        await ends(client)
