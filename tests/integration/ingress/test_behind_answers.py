"""Facts about what comes behind a complete request: where it is held, how long, and its answer."""

import asyncio
import contextlib
from random import Random

import pytest

from tests.ingress_support import BODY, Client, RecordingWriter, chunked, request_bytes
from tests.integration.ingress.public_port import (
    PATIENCE,
    check_refusal,
    chunked_head,
    connections,
    ends,
    public_port,
    until,
)

UNKNOWN = request_bytes(b"", path="/webhooks/nobody")
HEAD = request_bytes()[: -len(BODY)]
HALF = HEAD[:-2] + b"".join(b"X-%d: %s\r\n" % (number, b"x" * 4000) for number in range(6))
LONG = {"header_seconds": 3 * PATIENCE, "body_seconds": 3 * PATIENCE}
CHUNKED = chunked_head() + chunked(BODY[:10], BODY[10:])


@pytest.mark.parametrize("size", [1, 300, len(HALF)])
async def test_a_head_that_has_begun_behind_a_request_has_its_time(
    writer: RecordingWriter, size: int
) -> None:
    async with public_port(writer, header_seconds=0.2) as place, Client.to(place.port) as client:
        check_refusal(await client.ask(UNKNOWN + HALF[:size]), 404, "unknown_endpoint")
        check_refusal(await client.reply(), 408, "request_timeout")
        await ends(client)


@pytest.mark.parametrize(
    "before", [UNKNOWN, request_bytes(), CHUNKED, CHUNKED + UNKNOWN, UNKNOWN * 50]
)
async def test_a_head_behind_an_answer_is_held_with_the_others(
    writer: RecordingWriter, before: bytes
) -> None:
    async with public_port(writer, **LONG) as place, Client.to(place.port) as client:
        in_flight = place.receiver.in_flight
        await client.send(before + HALF)
        await until(lambda: in_flight.heads.held >= len(HALF))
        assert in_flight.heads.held == place.held
        async with Client.to(place.port) as another:
            in_flight.heads.most = place.held + 100
            await another.send(HALF)
            while (reply := await client.reply()).status != 408:
                pass
            check_refusal(reply, 408, "request_timeout")
            await ends(client)
            assert (await another.ask(b"\r\n" + BODY)).status == 202


async def test_what_is_behind_an_answer_and_too_much_ends_at_once(writer: RecordingWriter) -> None:
    async with public_port(writer, **LONG) as place, Client.to(place.port) as client:
        place.receiver.in_flight.heads.most = 1000
        check_refusal(await client.ask(UNKNOWN + HALF), 404, "unknown_endpoint")
        check_refusal(await client.reply(), 408, "request_timeout")
        await ends(client)


async def test_a_body_behind_an_answer_is_held_with_the_others(writer: RecordingWriter) -> None:
    begun = request_bytes(b"", length=50_000) + b"x" * 10_000
    async with public_port(writer, **LONG) as place, Client.to(place.port) as client:
        check_refusal(await client.ask(UNKNOWN + begun), 404, "unknown_endpoint")
        in_flight = place.receiver.in_flight
        await until(lambda: in_flight.bodies.held == place.held >= 10_000)
        (connection,) = connections(place)
        connection._holding.end()
        check_refusal(await client.reply(), 408, "request_timeout")


@pytest.mark.parametrize(
    "raw",
    [
        request_bytes(),
        request_bytes(b""),
        request_bytes(b"\r\n\r\nPOST /"),
        b"\r\n\r\n" + request_bytes(b"1\r\n\r\n2"),
        request_bytes() + b"\r\n",
        request_bytes(b"x" * 200_000),
        request_bytes() * 2,
        request_bytes() * 3,
        request_bytes(b"x" * 40_000) + request_bytes(),
        CHUNKED,
        CHUNKED * 2,
        CHUNKED[:-2] + b"X-Trailer: yes\r\n\r\n",
        request_bytes() + CHUNKED,
        chunked_head(body=b"x" * 200_000) + chunked(b"x" * 200_000),
        request_bytes(headers={"X-Two-Spaces": "  x  "}),
    ],
)
async def test_nothing_behind_an_answer_is_taken_for_a_head(
    writer: RecordingWriter, raw: bytes
) -> None:
    count = raw.count(b"HTTP/1.1")
    async with public_port(writer, **LONG) as place, Client.to(place.port) as client:
        for _ in range(2):
            await client.send(raw)
            assert [(await client.reply()).status for _ in range(count)] == [202] * count
            await until(lambda: all(each.is_idle for each in connections(place)))
            (connection,) = connections(place)
            assert (connection._timer, connection._head_bytes) == (None, 0)
            assert place.held == 0


@pytest.mark.whole("it is cut at random")
@pytest.mark.parametrize("seed", range(20))
async def test_what_is_behind_is_known_however_it_was_cut(
    writer: RecordingWriter, seed: int
) -> None:
    random = Random(seed)
    bodies = [b"%d\r\n\r\n" % n + b"x" * random.choice([0, 300, 20_000]) for n in range(5)]
    raw = b"".join(map(request_bytes, bodies)) + HALF
    async with public_port(writer, **LONG) as place, Client.to(place.port) as client:
        await until(lambda: bool(connections(place)))
        (connection,) = connections(place)
        while raw:
            size = random.choice([1, 10, 300, 5000, 50_000])
            connection.data_received(raw[:size])
            raw = raw[size:]
            await until(lambda: not connection._reading_paused and len(connection._messages) < 2)
        assert [(await client.reply()).status for _ in bodies] == [202] * len(bodies)
        assert connection._head_bytes == len(HALF) == place.held
    assert [delivery.body for delivery in writer.deliveries] == bodies


@pytest.mark.whole("it comes at once")
async def test_of_many_requests_at_once_few_are_parsed_before_their_turn(
    writer: RecordingWriter,
) -> None:
    writer.gate.clear()
    bodies = [b"%d" % number for number in range(1000)]
    async with public_port(writer, **LONG) as place, Client.to(place.port) as client:
        await until(lambda: bool(connections(place)))
        (connection,) = connections(place)
        connection.data_received(b"".join(map(request_bytes, bodies)))
        await writer.reached.wait()
        assert connection._request_count < 40
        writer.gate.set()
        assert [(await client.reply()).status for _ in bodies] == [202] * len(bodies)
    assert [delivery.body for delivery in writer.deliveries] == bodies


@pytest.mark.whole("it comes at once")
async def test_requests_at_once_are_answered_or_their_connection_ends_behind_an_answer(
    writer: RecordingWriter,
) -> None:
    """Also where this process leaves meanwhile."""
    writer.gate.clear()
    bodies = [b"%d" % number for number in range(200)]
    async with public_port(writer, **LONG) as place, Client.to(place.port) as client:
        sending = asyncio.create_task(client.send(b"".join(map(request_bytes, bodies))))
        await writer.reached.wait()
        draining = asyncio.create_task(place.listener.drain())
        writer.gate.set()
        replies = []
        with contextlib.suppress(EOFError):
            while True:
                replies.append(await client.reply())
        await asyncio.gather(sending, draining)
    assert {reply.status for reply in replies} == {202}
    assert replies[-1].headers["connection"] == "close"
    assert len(replies) == len(writer.deliveries)
