"""Facts about too many connections: which of them is closed for a new one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.ingress_support import BODY, Client, RecordingWriter, Running, ask, request_bytes
from tests.integration.ingress.public_port import (
    PATIENCE,
    check_refusal,
    connections,
    ends,
    public_port,
    until,
)

HEAD = request_bytes()[: -len(BODY)]
LONG = {"header_seconds": 3 * PATIENCE, "body_seconds": 3 * PATIENCE}


@contextlib.asynccontextmanager
async def arrived(place: Running, *parts: bytes) -> AsyncIterator[Client]:
    """A client whose connection is taken, and has sent something."""
    before = set(connections(place))
    async with Client.to(place.port) as client:
        await until(lambda: bool(set(connections(place)) - before))
        if parts:
            await client.send(*parts)
            (connection,) = set(connections(place)) - before
            await until(lambda: connection._timer is not None or bool(connection._request_count))
        yield client


async def test_silent_connections_keep_nobody_out(writer: RecordingWriter) -> None:
    async with (
        public_port(writer, connections=2, **LONG) as place,
        arrived(place) as first,
        arrived(place) as second,
    ):
        for client in (first, second):
            assert (await ask(place.port, request_bytes())).status == 202
            await until(lambda: len(connections(place)) <= 2)
            await ends(client) if client is first else None
        assert not second.reader.at_eof()


@pytest.mark.parametrize(
    "begun",
    [
        HEAD[:1],
        HEAD[:-2],
        HEAD + BODY[:1],
        HEAD,
        request_bytes(b"", length=1000),
        request_bytes(b"", length=10, headers={"X-Sellfern-Signature": "0" * 64}) + b"x",
    ],
)
async def test_whoever_has_begun_a_request_is_told_to_send_it_again(
    writer: RecordingWriter, begun: bytes
) -> None:
    async with (
        public_port(writer, connections=1, **LONG) as place,
        arrived(place, begun) as client,
    ):
        assert (await ask(place.port, request_bytes())).status == 202
        reply = await client.reply()
        check_refusal(reply, 503, "too_many_connections")
        assert reply.headers["connection"] == "close"
        await ends(client)
    assert len(writer.deliveries) == 1


async def test_whoever_delivers_is_kept_rather_than_whoever_only_sends(
    writer: RecordingWriter,
) -> None:
    """However many bytes come meanwhile, and however often."""
    async with (
        public_port(writer, connections=4, **LONG) as place,
        arrived(place) as genuine,
        arrived(place, HEAD + BODY[:1]) as of_a_body,
        arrived(place, HEAD[:10]) as of_a_head,
        arrived(place) as refused,
    ):
        assert (await genuine.ask(request_bytes())).status == 202
        await of_a_body.send(BODY[1:5])
        await of_a_head.send(HEAD[10:20])
        assert (await refused.ask(request_bytes(b"", path="/"))).status == 404
        async with Client.to(place.port), Client.to(place.port), Client.to(place.port):
            for client in (of_a_body, of_a_head):
                check_refusal(await client.reply(), 503, "too_many_connections")
            await ends(refused)
            assert (await genuine.ask(request_bytes())).status == 202


async def test_of_those_that_delivered_whoever_did_so_longest_ago_makes_way(
    writer: RecordingWriter,
) -> None:
    async with (
        public_port(writer, connections=2, **LONG) as place,
        arrived(place) as first,
        arrived(place) as second,
    ):
        for client in (second, first, second, first):
            assert (await client.ask(request_bytes())).status == 202
        assert (await ask(place.port, request_bytes())).status == 202
        await ends(second)
        assert (await first.ask(request_bytes())).status == 202


async def test_a_complete_request_makes_way_for_nobody(writer: RecordingWriter) -> None:
    writer.gate.clear()
    async with (
        public_port(writer, connections=2, **LONG) as place,
        arrived(place, request_bytes()) as first,
        arrived(place, request_bytes()) as second,
    ):
        await writer.reached.wait()
        async with Client.to(place.port) as third:
            reply = await third.reply()
            check_refusal(reply, 503, "too_many_connections")
            assert reply.headers["connection"] == "close"
            await ends(third)
        writer.gate.set()
        for client in (first, second):
            assert (await client.reply()).status == 202
        assert (await ask(place.port, request_bytes())).status == 202
        await ends(first)


def stop_reading(place: Running) -> None:
    """What comes on the connections that are open is read no more."""
    for connection in connections(place):
        connection._pause_transport_reading()


@pytest.mark.whole("what it sends isn't read")
async def test_whoever_has_sent_what_is_not_read_yet_is_passed_over(
    writer: RecordingWriter,
) -> None:
    many = 50
    async with (
        public_port(writer, connections=many + 1, **LONG) as place,
        contextlib.AsyncExitStack() as stack,
    ):
        sending = [await stack.enter_async_context(arrived(place)) for _ in range(many)]
        silent = await stack.enter_async_context(arrived(place))
        stop_reading(place)
        await asyncio.sleep(0)
        for client in sending:
            await client.send(request_bytes())
        assert (await ask(place.port, request_bytes())).status == 202
        await ends(silent)
        assert not any(client.reader.at_eof() for client in sending)


@pytest.mark.whole("what it sends isn't read")
async def test_where_all_have_sent_what_is_not_read_yet_the_first_makes_way(
    writer: RecordingWriter,
) -> None:
    async with (
        public_port(writer, connections=2, **LONG) as place,
        arrived(place) as first,
        arrived(place) as second,
    ):
        stop_reading(place)
        await asyncio.sleep(0)
        for client in (first, second):
            await client.send(request_bytes())
        assert (await ask(place.port, request_bytes())).status == 202
        with pytest.raises((EOFError, ConnectionError)):
            await first.reply()
        assert not second.reader.at_eof()


async def test_whoever_says_nothing_has_no_longer_than_headers_have(
    writer: RecordingWriter,
) -> None:
    async with (
        public_port(writer, header_seconds=0.1) as place,
        Client.to(place.port) as delivers,
        Client.to(place.port) as silent,
    ):
        assert (await delivers.ask(request_bytes())).status == 202
        await ends(silent)
        await asyncio.sleep(0.2)  # what is idle after an answer has the longer time
        assert (await delivers.ask(request_bytes())).status == 202


@pytest.mark.parametrize("count", [1, 5])
async def test_a_burst_of_new_connections_is_answered_whole(
    writer: RecordingWriter, count: int
) -> None:
    async with public_port(writer, connections=count, **LONG) as place:
        for _ in range(3):
            replies = await asyncio.gather(
                *(ask(place.port, request_bytes()) for _ in range(count))
            )
            assert {reply.status for reply in replies} == {202}
