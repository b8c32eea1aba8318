"""Facts about bodies in chunks that take more bytes for the chunks than for themselves."""

import asyncio

import pytest

from ingress.http import connections as turns
from ingress.http.connection import Connection
from ingress.http.framing import OVERHEAD_BYTES, SLICE_BYTES
from tests.ingress_support import BODY, Client, RecordingWriter, ask, chunked, request_bytes
from tests.integration.ingress.public_port import (
    PATIENCE,
    check_refusal,
    chunked_head,
    connections,
    ends,
    public_port,
    until,
)

MIB = 1024 * 1024
WASTEFUL = b"1\r\nx\r\n" * MIB
"""What takes six times its size, and three calls for each of its bytes."""

MOST = OVERHEAD_BYTES + OVERHEAD_BYTES // 5 + 4 * SLICE_BYTES
"""What is parsed of it: the overhead, what it bears, the slices at both ends."""


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the sizes of all that is given to the parser."""
    sizes: list[int] = []
    parse = Connection._parse

    def noted(connection: Connection, data: bytes) -> None:
        sizes.append(len(data))
        parse(connection, data)

    monkeypatch.setattr(Connection, "_parse", noted)
    return sizes


@pytest.mark.parametrize(
    "rest",
    [WASTEFUL, b"1;" + b"x" * MIB, b"0\r\n" + (b"X: " + b"x" * 5000 + b"\r\n") * 50],
    ids=["chunks", "extension", "trailers"],
)
async def test_chunks_that_take_too_much_are_refused_in_a_way_that_can_be_read(
    writer: RecordingWriter, parsed: list[int], rest: bytes
) -> None:
    """Its sender reads only once it has sent everything, as many do."""
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(chunked_head() + rest)
        reply = await client.reply()
        check_refusal(reply, 400, "chunk_overhead")
        assert reply.headers["connection"] == "close"
        await ends(client)
    assert sum(parsed) <= MOST
    assert writer.deliveries == []


@pytest.mark.parametrize(
    "head",
    [
        chunked_head(path="/webhooks/nobody"),
        chunked_head(path="/"),
        chunked_head(method="PUT"),
        chunked_head(headers={"Content-Encoding": "gzip"}),
    ],
)
async def test_what_comes_behind_a_refusal_is_not_parsed(
    writer: RecordingWriter, parsed: list[int], head: bytes
) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(head + WASTEFUL)
        assert (await client.reply()).status in {404, 405, 415}
        await ends(client)
    assert sum(parsed) <= MOST


@pytest.mark.parametrize("size", [128, 4096, 16_000, 65_536])
async def test_honest_chunks_are_taken_whatever_their_size(
    writer: RecordingWriter, size: int
) -> None:
    body = bytes(range(256)) * (MIB // 256)
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    async with public_port(writer) as place:
        for _ in range(2):
            raw = chunked_head(body=body) + chunked(*chunks)
            assert (await ask(place.port, raw)).status == 202
    assert [delivery.body for delivery in writer.deliveries] == [body, body]


@pytest.mark.whole("it says itself what comes when")
@pytest.mark.parametrize("size", [128, 4096])
async def test_chunks_that_nobody_has_read_yet_are_not_held_against_their_sender(
    writer: RecordingWriter, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Behind a request under way they wait, and aiohttp keeps some of them unparsed meanwhile."""
    body = bytes(range(256)) * (MIB // 256)
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    writer.gate.clear()
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(request_bytes())
        await writer.reached.wait()
        (connection,) = connections(place)
        raw = chunked_head(body=body) + chunked(*chunks)
        sending = asyncio.create_task(client.send(raw))
        await until(lambda: connection._reading_paused)
        writer.gate.set()
        assert (await client.reply()).status == 202
        await sending
        assert (await client.reply()).status == 202
        assert (await client.ask(request_bytes())).code == "known"
    assert [delivery.body for delivery in writer.deliveries] == [BODY, body, BODY]


async def test_a_request_behind_a_large_body_is_a_request_of_its_own(
    writer: RecordingWriter, parsed: list[int]
) -> None:
    body = b"x" * 100_000
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(request_bytes(body) + chunked_head() + WASTEFUL)
        assert (await client.reply()).status == 202
        check_refusal(await client.reply(), 400, "chunk_overhead")
        await ends(client)
    assert sum(parsed) <= MOST + len(body) + 1000


async def test_what_is_dropped_is_dropped_for_a_while_only(
    writer: RecordingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingress.http.ending_connection.LINGER_SECONDS", 0.05)
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(chunked_head() + WASTEFUL[: 2 * MOST])
        check_refusal(await client.reply(), 400, "chunk_overhead")
        async with asyncio.timeout(PATIENCE):
            await until(lambda: not connections(place))


@pytest.mark.whole("it comes at once")
async def test_of_bodies_in_tiny_chunks_no_more_is_parsed_in_a_turn_once_its_time_is_over(
    writer: RecordingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many of them would keep everybody waiting otherwise."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 0)
    count = 8000
    raw = chunked_head(headers={"X-Sellfern-Signature": "0" * 64}) + b"1\r\nx\r\n" * count
    async with (
        public_port(writer) as place,
        Client.to(place.port) as first,
        Client.to(place.port) as second,
        Client.to(place.port) as third,
    ):
        await until(lambda: len(connections(place)) == 3)
        bodies = []
        for connection in connections(place):
            connection.data_received(raw)
            bodies.append(connection._last_body)
        before = sum(body.total_bytes for body in bodies)
        assert before < 3 * count / 2
        await asyncio.sleep(0)
        assert sum(body.total_bytes for body in bodies) - before < SLICE_BYTES / 3
        await until(lambda: sum(body.total_bytes for body in bodies) == 3 * count)
        for client in (first, second, third):
            check_refusal(await client.ask(b"0\r\n\r\n"), 401, "signature_invalid")
