"""Facts about requests whose line and headers are slow, huge, odd or no HTTP at all."""

import asyncio
from time import monotonic

import pytest

from ingress.http.connection import HEAD_BYTES
from ingress.http.ending_connection import HEADERS
from ingress.settings import Limits
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

LINE_BYTES = Limits().header_bytes

HEAD = request_bytes()[: -len(BODY)]


@pytest.mark.parametrize("begun", [b"P", b"POST /webhooks/acme", HEAD[:-2], HEAD[:-1], b"\r\n"])
async def test_headers_that_stop_are_ended_by_time(writer: RecordingWriter, begun: bytes) -> None:
    async with public_port(writer, header_seconds=0.1) as place, Client.to(place.port) as client:
        reply = await client.ask(begun)
        check_refusal(reply, 408, "request_timeout")
        assert reply.headers["connection"] == "close"
        await ends(client)


async def test_headers_that_are_trickled_are_ended_by_the_time_for_all_of_them(
    writer: RecordingWriter,
) -> None:
    started = monotonic()
    async with public_port(writer, header_seconds=0.4) as place, Client.to(place.port) as client:
        reading = asyncio.create_task(client.reply())
        for byte in HEAD:
            await client.send(bytes([byte]))
            if reading.done():
                break
            await asyncio.sleep(0.05)
        check_refusal(await reading, 408, "request_timeout")
    assert 0.4 <= monotonic() - started < PATIENCE


async def test_headers_that_are_begun_are_not_ended_as_idle(writer: RecordingWriter) -> None:
    async with (
        public_port(writer, header_seconds=PATIENCE, keepalive_seconds=0.1) as place,
        Client.to(place.port) as client,
    ):
        await client.send(HEAD[:10])
        await asyncio.sleep(0.3)
        assert (await client.ask(HEAD[10:] + BODY)).code == "accepted"
        await ends(client)  # now it is idle


async def test_slow_headers_that_are_in_time_are_taken_and_their_time_ends_with_them(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        for _ in range(3):
            await client.send(HEAD[:10])
            await until(lambda: all(each._timer is not None for each in connections(place)))
            assert (await client.ask(HEAD[10:] + BODY)).status == 202
            (connection,) = connections(place)
            assert (connection._timer, connection._head_bytes) == (None, 0)


async def test_headers_are_bounded_in_all(writer: RecordingWriter) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(HEAD[:-2])
        for number in range(10):
            await client.send(b"X-%d: " % number + b"x" * 5000 + b"\r\n")
        reply = await client.reply()
        check_refusal(reply, 431, "headers_too_large")
        assert reply.headers["connection"] == "close"
        await ends(client)


@pytest.mark.parametrize(
    "raw",
    [
        request_bytes(path="/webhooks/" + "a" * (LINE_BYTES + 1)),
        request_bytes(headers={"X-Long": "a" * (LINE_BYTES + 1)}),
        request_bytes(headers={"X" * (LINE_BYTES + 1): "a"}),
        b"POST /" + b"a" * HEAD_BYTES * 2,
    ],
)
async def test_a_line_is_bounded_by_itself(writer: RecordingWriter, raw: bytes) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        check_refusal(await client.ask(raw), 431, "headers_too_large")
        await ends(client)


async def test_a_line_may_be_as_long_as_the_setting_says_and_all_of_them_four_times_that(
    writer: RecordingWriter,
) -> None:
    """A proxy that checks client certificates sends them along, chain and all."""
    some = {"X-Client-Cert": "a" * 19_900, "X-Chain": "b" * 19_900, "X-More": "c" * 19_900}
    async with public_port(writer, header_bytes=20_000) as place:
        assert (await ask(place.port, request_bytes(headers=some))).status == 202
        raw = request_bytes(headers={"X-Long": "a" * 20_001})
        check_refusal(await ask(place.port, raw), 431, "headers_too_large")
        async with Client.to(place.port) as client:
            await client.send(HEAD[:-2])
            for number in range(6):
                await client.send(b"X-%d: " % number + b"x" * 19_900 + b"\r\n")
            check_refusal(await client.reply(), 431, "headers_too_large")


async def test_a_client_that_sends_headers_without_reading_can_still_read_why_not(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(b"POST /webhooks/acme HTTP/1.1\r\n")
        for number in range(300):
            await client.send(b"X-%d: " % number + b"x" * 5000 + b"\r\n")
            await asyncio.sleep(0)
        check_refusal(await client.reply(), 431, "headers_too_large")


async def test_headers_are_bounded_in_number(writer: RecordingWriter) -> None:
    some = {f"X-{number}": "a" for number in range(HEADERS - 3)}
    async with public_port(writer) as place:
        assert (await ask(place.port, request_bytes(headers=some))).status == 202
        check_refusal(
            await ask(place.port, request_bytes(headers={**some, "X-One-More": "a"})),
            400,
            "bad_request",
        )


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x07" * 200,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\x00\x00\x00",
        b"\xff" * 1000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST  HTTP/1.1\r\n\r\n",
        b"CONNECT \r\n\r\n",
        b"CONNECT \nHost: x\r\n\r\n",
        b"POST /webhooks/acme\r\n HTTP/1.1\r\n\r\n",
        b"POST /webhooks/acme HTTP/1.1\r\n\r\n",
        b"POST /webhooks/acme HTTP/3.7\r\nHost: x\r\n\r\n",
        b"POST /webhooks/acme HTTPS/1.1\r\nHost: x\r\n\r\n",
        request_bytes(method="post"),
        request_bytes(method="P\0ST"),
        request_bytes(path="/webhooks/ac\0me"),
        request_bytes(path="/webhooks/acm\udce9"),
        request_bytes(path="webhooks/acme"),
        request_bytes(path="http://h:99999/webhooks/acme"),
        request_bytes(path="http://[::1/webhooks/acme"),
        request_bytes(path="http:///webhooks/acme"),
        request_bytes(path="*"),
        request_bytes(headers={"X-Odd": "a\0b"}),
        request_bytes(headers={"X-Odd": "a\rX-Other: b"}),
        request_bytes(headers={"X-Odd": "a\r\n folded"}),
        request_bytes(headers={"X-Odd ": "a"}),
        request_bytes(headers={"X\0Odd": "a"}),
        request_bytes(headers={"X-Odd\udcff": "a"}),
        request_bytes(headers={"host": "another"}),
        request_bytes().replace(b"\r\n", b"\n"),
    ],
)
async def test_what_is_no_http_is_told_so_without_an_echo(
    writer: RecordingWriter, raw: bytes
) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        reply = await client.ask(raw)
        check_refusal(reply, 400, "bad_request")
        assert reply.json["error"]["message"] == "this is not valid HTTP"
        await ends(client)
    assert writer.deliveries == []


async def test_a_request_that_the_http_library_fails_on_keeps_no_connection(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer, connections=3) as place:
        for _ in range(10):
            check_refusal(await ask(place.port, b"CONNECT \r\n\r\n"), 400, "bad_request")
        await until(lambda: not connections(place))
        assert (await ask(place.port, request_bytes())).status == 202


@pytest.mark.parametrize(
    "target",
    ["h:80", "/webhooks/acme", "[::1]:80"],
)
async def test_nobody_is_connected_through(writer: RecordingWriter, target: str) -> None:
    raw = f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with public_port(writer) as place, Client.to(place.port) as client:
        reply = await client.ask(raw)
        check_refusal(reply, 404, "not_found")
        assert reply.headers["connection"] == "close"


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "upgrade", "Upgrade": "websocket"},
        {"Connection": "upgrade", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"},
    ],
)
async def test_an_offer_of_another_protocol_is_declined_and_what_follows_left_unread(
    writer: RecordingWriter, headers: dict[str, str]
) -> None:
    raw = request_bytes(headers=headers) + request_bytes(b"another")
    async with public_port(writer) as place, Client.to(place.port) as client:
        reply = await client.ask(raw)
        assert (reply.status, reply.headers["connection"]) == (202, "close")
        await ends(client)
    assert [delivery.body for delivery in writer.deliveries] == [BODY]


OFFERS = [
    {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAA"},
    {"Connection": "Upgrade", "Upgrade": "websocket"},
    {"Connection": "upgrade", "Upgrade": ""},
    {"Upgrade": "h2c"},
]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("size", [1, 20_000, 500_000])
async def test_a_body_is_taken_whole_whatever_protocol_was_offered_beside_it(
    writer: RecordingWriter, offer: dict[str, str], size: int
) -> None:
    """Java's usual client offers HTTP/2 over http; proxies add a line for websockets to it all."""
    body = b"x" * size
    head = chunked_head(body=body, headers=offer)
    async with public_port(writer, body_seconds=PATIENCE * 2) as place:
        assert (await ask(place.port, request_bytes(body, headers=offer))).status == 202
        assert (await ask(place.port, head + chunked(body))).status == 202
        asking = {**offer, "Expect": "100-continue"}
        async with Client.to(place.port) as client:
            await client.send(request_bytes(body, headers=asking)[: -len(body)])
            assert b"100 Continue" in await client.reader.readuntil(b"\r\n\r\n")
            assert (await client.ask(body)).status == 202
    assert {delivery.body for delivery in writer.deliveries} == {body}


@pytest.mark.parametrize(
    "raw",
    [
        request_bytes(headers={"Transfer-Encoding": "chunked"}),
        chunked_head(headers={"content-length": str(len(BODY))}) + chunked(BODY),
        request_bytes(headers={"content-length": "0"}),
        request_bytes(headers={"content-length": str(len(BODY))}),
        request_bytes(headers={"Content-Length": f"{len(BODY)}, {len(BODY)}"}),
        request_bytes(headers={"Content-Length": f"+{len(BODY)}"}),
        request_bytes(headers={"Content-Length": "-1"}),
        request_bytes(headers={"Content-Length": "0x10"}),
        request_bytes(headers={"Content-Length": "7_6"}),
        request_bytes(headers={"Content-Length": "7 6"}),
        request_bytes(headers={"Content-Length": ""}),
        request_bytes(headers={"Content-Length": "9" * 30}),
        request_bytes(headers={"Content-Length": "٧٦"}),
        chunked_head(headers={"Transfer-Encoding": "chunked, chunked"}) + chunked(BODY),
        chunked_head(headers={"Transfer-Encoding": "chunked, identity"}) + chunked(BODY),
        chunked_head(headers={"Transfer-Encoding": "identity"}) + chunked(BODY),
        chunked_head(headers={"Transfer-Encoding": "xchunked"}) + chunked(BODY),
        chunked_head(headers={"Transfer-Encoding": "\vchunked"}) + chunked(BODY),
        chunked_head(headers={"transfer-encoding": "gzip"}) + chunked(BODY),
        chunked_head(headers={"Transfer-Encoding ": "chunked"}) + chunked(BODY),
        (chunked_head() + chunked(BODY)).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_a_body_whose_end_could_be_disputed_is_refused_and_so_is_what_follows(
    writer: RecordingWriter, raw: bytes
) -> None:
    """Otherwise a proxy before us might take for a body what we take for a second request."""
    async with public_port(writer) as place, Client.to(place.port) as client:
        check_refusal(await client.ask(raw + request_bytes()), 400, "bad_request")
        await ends(client)
    assert writer.deliveries == []


async def test_an_older_client_is_answered_and_its_connection_ended(
    writer: RecordingWriter,
) -> None:
    raw = request_bytes().replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: localhost\r\n", b"")
    async with public_port(writer) as place, Client.to(place.port) as client:
        assert (await client.ask(raw)).status == 202
        await ends(client)


async def test_an_older_client_may_ask_to_keep_its_connection(writer: RecordingWriter) -> None:
    raw = request_bytes(headers={"Connection": "keep-alive"}).replace(b"HTTP/1.1", b"HTTP/1.0")
    async with public_port(writer) as place, Client.to(place.port) as client:
        for _ in range(2):
            assert (await client.ask(raw)).status == 202


async def test_empty_lines_before_a_request_are_none_of_it(writer: RecordingWriter) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        for raw in (b"\r\n\r\n" + request_bytes() + b"\r\n", request_bytes()):
            assert (await client.ask(raw)).status == 202
