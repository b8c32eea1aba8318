"""Facts about bodies that are huge, compressed, in chunks, cut short or slow."""

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from tests.ingress_support import (
    BODY,
    Client,
    RecordingWriter,
    Running,
    ask,
    chunked,
    request_bytes,
)
from tests.integration.ingress.public_port import (
    PATIENCE,
    check_refusal,
    chunked_head,
    ends,
    public_port,
    until,
)

LIMIT = 4096
MIB = 1024 * 1024


@asynccontextmanager
async def under_way(place: Running, raw: bytes) -> AsyncIterator[Client]:
    """A client whose request has begun and lacks the rest of its body."""
    async with Client.to(place.port) as client:
        held = place.held
        await client.send(raw)
        await until(lambda: place.held > held)
        yield client


async def test_a_body_of_the_limit_is_taken_and_one_byte_more_is_not(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer, body_bytes=LIMIT) as place:
        for raw in (
            request_bytes(b"x" * LIMIT),
            chunked_head(body=b"x" * LIMIT) + chunked(b"x" * LIMIT),
        ):
            assert (await ask(place.port, raw)).status == 202
        over = b"x" * (LIMIT + 1)
        for raw in (request_bytes(over), chunked_head(body=over) + chunked(over)):
            check_refusal(await ask(place.port, raw), 413, "payload_too_large")
    assert [len(delivery.body) for delivery in writer.deliveries] == [LIMIT, LIMIT]


async def test_a_length_over_the_limit_is_refused_before_a_byte_of_the_body(
    writer: RecordingWriter,
) -> None:
    head = request_bytes(b"", length=LIMIT + 1)
    async with public_port(writer, body_bytes=LIMIT) as place:
        reply = await ask(place.port, head)
    check_refusal(reply, 413, "payload_too_large")
    assert reply.headers["connection"] == "close"


async def test_whoever_asks_first_learns_that_a_body_is_too_large_without_sending_it(
    writer: RecordingWriter,
) -> None:
    head = request_bytes(b"", length=10**12, headers={"Expect": "100-continue"})
    async with public_port(writer, body_bytes=LIMIT) as place:
        check_refusal(await ask(place.port, head), 413, "payload_too_large")


async def test_chunks_without_end_are_refused_as_soon_as_they_are_too_many(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer, body_bytes=LIMIT) as place, Client.to(place.port) as client:
        reply = await client.ask(chunked_head(), b"1001\r\n" + b"x" * (LIMIT + 1))
    check_refusal(reply, 413, "payload_too_large")
    assert reply.headers["connection"] == "close"


async def test_the_sender_of_a_body_too_large_can_send_on_for_a_while_and_read_why(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer, body_bytes=LIMIT) as place, Client.to(place.port) as client:
        await client.send(request_bytes(b"", length=MIB), *[b"x" * 65536] * 16)
        check_refusal(await client.reply(), 413, "payload_too_large")


async def test_a_stream_of_200_mib_is_cut_off_and_takes_no_memory(writer: RecordingWriter) -> None:
    """Both ends are in this process: what the client needs is counted too."""
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    sent = 0
    async with public_port(writer, body_bytes=MIB) as place, Client.to(place.port) as client:
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await client.send(chunked_head())
            reading = asyncio.create_task(client.reply())
            while not reading.done() and sent < 200 * MIB:
                await client.send(chunk)
                sent += len(chunk)
            reply = await reading
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    check_refusal(reply, 413, "payload_too_large")
    assert sent < 20 * MIB  # what fits into the system's buffers on both sides, and not all
    assert peak - before < 4 * MIB


async def test_a_flood_that_ignores_its_refusal_is_dropped_and_takes_no_memory(
    writer: RecordingWriter,
) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    sent = 0
    async with public_port(writer, body_bytes=MIB) as place, Client.to(place.port) as client:
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await client.send(chunked_head())
            while sent < 200 * MIB:
                try:
                    await client.send(chunk)
                except ConnectionError:
                    break
                sent += len(chunk)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert sent > 2 * MIB  # it went on
    assert peak - before < 4 * MIB
    assert writer.deliveries == []


async def test_tiny_chunks_take_little_more_than_their_bytes(writer: RecordingWriter) -> None:
    body = b"x" * 10_000
    raw = chunked_head(body=body) + b"1\r\nx\r\n" * len(body) + b"0\r\n\r\n"
    async with public_port(writer) as place, Client.to(place.port) as client:
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await client.send(raw)
            assert (await client.reply()).status == 202
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert writer.deliveries[0].body == body
    assert peak - before < MIB


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "GZIP"},
        {"Content-Encoding": "deflate"},
        {"Content-Encoding": "br"},
        {"Content-Encoding": "zstd"},
        {"Content-Encoding": "identity", "content-encoding": "gzip"},
    ],
)
async def test_a_compressed_body_is_refused_and_never_inflated(
    writer: RecordingWriter, headers: dict[str, str]
) -> None:
    bomb = gzip.compress(b"\0" * 10 * MIB)
    async with public_port(writer) as place:
        reply = await ask(place.port, request_bytes(bomb, headers=headers))
    check_refusal(reply, 415, "unsupported_encoding")
    assert writer.deliveries == []


async def test_a_compressed_transfer_is_refused_as_well(writer: RecordingWriter) -> None:
    body = gzip.compress(BODY)
    head = chunked_head(body=body, headers={"Transfer-Encoding": "gzip, chunked"})
    async with public_port(writer) as place:
        reply = await ask(place.port, head + chunked(body))
    check_refusal(reply, 415, "unsupported_encoding")
    assert writer.deliveries == []


async def test_identity_is_no_compression(writer: RecordingWriter) -> None:
    raw = request_bytes(headers={"Content-Encoding": "Identity"})
    async with public_port(writer) as place:
        assert (await ask(place.port, raw)).status == 202


async def test_chunks_are_put_together_whatever_their_size(writer: RecordingWriter) -> None:
    chunks = [BODY[index : index + 1] for index in range(10)] + [BODY[10:]]
    async with public_port(writer) as place:
        assert (await ask(place.port, chunked_head() + chunked(*chunks))).status == 202
        byte_by_byte = [bytes([byte]) for byte in chunked(*chunks)]
        assert (await ask(place.port, chunked_head(), *byte_by_byte)).status == 202
    assert [delivery.body for delivery in writer.deliveries] == [BODY, BODY]


async def test_extensions_and_trailers_of_chunks_are_read_over(writer: RecordingWriter) -> None:
    raw = chunked(BODY).replace(b"\r\n", b";name=value\r\n", 1)
    raw = raw.removesuffix(b"\r\n") + b"X-Trailer: 1\r\nX-Sellfern-Signature: 0\r\n\r\n"
    async with public_port(writer) as place:
        assert (await ask(place.port, chunked_head() + raw)).status == 202
    assert writer.deliveries[0].body == BODY


async def test_an_extension_of_a_chunk_without_end_is_refused_and_takes_no_memory(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await client.send(chunked_head(), b"5;")
            reading = asyncio.create_task(client.reply())
            while not reading.done():
                await client.send(b"x" * 65536)
            check_refusal(await reading, 400, "chunk_overhead")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak - before < 4 * MIB


async def test_trailers_without_end_are_refused_by_their_number(writer: RecordingWriter) -> None:
    trailers = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(200))
    raw = chunked(BODY).removesuffix(b"\r\n") + trailers
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(chunked_head())
        reply = await client.ask(raw)
        assert reply.status == 400
        await ends(client)
    assert writer.deliveries == []


@pytest.mark.parametrize(
    "rest",
    [
        b"zz\r\n",
        b"-1\r\n",
        b"0x5\r\nabcde\r\n",
        b"5\r\nabcdefgh\r\n",
        b"f" * 20 + b"\r\n",
        b"5 \r\n",
    ],
)
@pytest.mark.whole("it says itself what comes when")
async def test_chunks_that_are_none_are_refused_at_once_wherever_they_begin(
    writer: RecordingWriter, rest: bytes
) -> None:
    async with public_port(writer, body_seconds=PATIENCE * 2) as place:
        whole = await ask(place.port, chunked_head() + rest)
        check_refusal(whole, 400, "bad_request")
        async with under_way(place, chunked_head() + b"3\r\nabc\r\n") as client:
            check_refusal(await client.ask(rest), 400, "body_incomplete")
            await ends(client)
        for apart in (0, 1, 2):  # turns of the loop: before, while and after the request begins
            async with Client.to(place.port) as client:
                client.writer.write(chunked_head() + b"3\r\nabc\r\n")
                for _ in range(apart):
                    await asyncio.sleep(0)
                assert (await client.ask(rest)).status == 400


@pytest.mark.parametrize(
    "raw",
    [
        request_bytes()[:-1],
        request_bytes(b"", length=100),
        chunked_head(),
        chunked_head() + b"5\r\nabc",
        chunked_head() + chunked(BODY)[:-2],
        chunked_head() + chunked(BODY)[:-5],
    ],
)
async def test_a_body_whose_sender_ends_early_is_told_so_and_nothing_is_stored(
    writer: RecordingWriter, raw: bytes
) -> None:
    async with (
        public_port(writer, body_seconds=PATIENCE * 2) as place,
        Client.to(place.port) as client,
    ):
        await client.send(raw)
        client.writer.write_eof()
        check_refusal(await client.reply(), 400, "body_incomplete")
        await ends(client)
    assert writer.deliveries == []


async def test_a_sender_that_says_it_is_done_after_a_whole_delivery_is_answered(
    writer: RecordingWriter,
) -> None:
    writer.gate.clear()
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(request_bytes())
        client.writer.write_eof()
        await writer.reached.wait()
        writer.gate.set()
        reply = await client.reply()
        assert (reply.status, reply.headers["connection"]) == (202, "close")
        await ends(client)


@pytest.mark.parametrize("raw", [request_bytes()[:-10], chunked_head() + b"a\r\n" + BODY[:10]])
async def test_a_client_that_vanishes_within_a_body_leaves_nothing_behind(
    writer: RecordingWriter, raw: bytes
) -> None:
    async with (
        public_port(writer, body_seconds=PATIENCE * 2) as place,
        under_way(place, raw) as client,
    ):
        client.writer.transport.abort()
        await until(lambda: place.held == 0)
    assert writer.deliveries == []


async def test_a_client_that_vanishes_before_its_answer_has_delivered_all_the_same(
    writer: RecordingWriter,
) -> None:
    writer.gate.clear()
    async with public_port(writer) as place:
        async with Client.to(place.port) as client:
            await client.send(request_bytes())
            await writer.reached.wait()
            client.writer.transport.abort()
        writer.gate.set()
        await until(lambda: len(writer.deliveries) == 1)


async def test_a_body_that_is_trickled_is_ended_by_the_time_for_all_of_it(
    writer: RecordingWriter,
) -> None:
    """However often a byte comes: the time is for the body, not from byte to byte."""
    started = monotonic()
    async with (
        public_port(writer, body_seconds=0.4) as place,
        Client.to(place.port) as client,
    ):
        await client.send(request_bytes()[: -len(BODY)])
        reading = asyncio.create_task(client.reply())
        for byte in BODY[:-1]:
            await client.send(bytes([byte]))
            if reading.done():
                break
            await asyncio.sleep(0.05)
        reply = await reading
    check_refusal(reply, 408, "request_timeout")
    assert reply.headers["connection"] == "close"
    assert 0.4 <= monotonic() - started < PATIENCE
    assert writer.deliveries == []


@pytest.mark.parametrize(
    "raw",
    [request_bytes(b"", length=10), request_bytes()[:-1], chunked_head(), chunked_head() + b"5"],
)
async def test_a_body_that_never_comes_is_ended_by_time(
    writer: RecordingWriter, raw: bytes
) -> None:
    async with public_port(writer, body_seconds=0.1) as place, Client.to(place.port) as client:
        check_refusal(await client.ask(raw), 408, "request_timeout")


async def test_a_slow_body_that_is_in_time_is_taken(writer: RecordingWriter) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        for part in (request_bytes()[:-20], BODY[-20:-10], BODY[-10:]):
            await client.send(part)
            await asyncio.sleep(0.02)
        assert (await client.reply()).status == 202
    assert writer.deliveries[0].body == BODY


@pytest.mark.whole("it is about what comes along with what")
async def test_whoever_asks_before_sending_is_invited(writer: RecordingWriter) -> None:
    raw = request_bytes(headers={"Expect": "100-Continue"})
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(raw[: -len(BODY)])
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await client.ask(BODY)).code == "accepted"
        assert (await client.ask(raw)).code == "known"  # the body came along: no invitation


@pytest.mark.parametrize("path", ["/webhooks/nobody", "/"])
async def test_whoever_asks_for_nothing_that_is_here_is_not_invited(
    writer: RecordingWriter, path: str
) -> None:
    raw = request_bytes(path=path, headers={"Expect": "100-continue"})
    async with public_port(writer) as place, Client.to(place.port) as client:
        assert (await client.ask(raw[: -len(BODY)])).status == 404


async def test_an_older_client_is_not_invited_since_it_would_not_understand(
    writer: RecordingWriter,
) -> None:
    raw = request_bytes(headers={"Expect": "100-continue"}).replace(b"HTTP/1.1", b"HTTP/1.0")
    async with public_port(writer) as place, under_way(place, raw[:-10]) as client:
        assert (await client.ask(raw[-10:])).status == 202


async def test_an_invited_client_that_vanishes_leaves_nothing_behind(
    writer: RecordingWriter,
) -> None:
    raw = request_bytes(headers={"Expect": "100-continue"})
    async with (
        public_port(writer, body_seconds=PATIENCE * 2) as place,
        Client.to(place.port) as client,
    ):
        await client.send(raw[: -len(BODY)])
        client.writer.transport.abort()
    assert writer.deliveries == []


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"X-Sellfern-Signature": "x"}, "signature_invalid"),
        ({"X-Sellfern-Signature": "0" * 63}, "signature_invalid"),
        ({"X-Sellfern-Signature": ""}, "signature_invalid"),
        ({"X-Sellfern-Signature-": "0" * 64}, "signature_missing"),
    ],
)
@pytest.mark.parametrize("expect", [{}, {"Expect": "100-continue"}])
async def test_whoever_shows_no_signature_need_not_send_a_body(
    writer: RecordingWriter, headers: dict[str, str], code: str, expect: dict[str, str]
) -> None:
    raw = request_bytes(b"", length=MIB, headers=headers | expect)
    if code == "signature_missing":
        raw = raw.replace(b"X-Sellfern-Signature: ", b"X-Other: ")
    async with (
        public_port(writer, body_seconds=2 * PATIENCE) as place,
        Client.to(place.port) as client,
    ):
        reply = await client.ask(raw)
        check_refusal(reply, 401, code)
        assert reply.headers["connection"] == "close"
        await ends(client)
