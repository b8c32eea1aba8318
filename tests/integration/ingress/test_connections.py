"""Facts about connections: how many, how long, and what their clients do to them."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web

from ingress.http import connections as module
from ingress.http import ending_connection as one
from tests.ingress_support import (
    BODY,
    Client,
    RecordingWriter,
    Running,
    ask,
    request_bytes,
)
from tests.integration.ingress.public_port import (
    PATIENCE,
    check_refusal,
    chunked_head,
    connections,
    ends,
    public_port,
    until,
)
from tests.log_support import CapturedLog

PRIVATE = "4111-1111-1111-1111"
SMALL = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.whole("a refused body that is still to come ends its connection")
async def test_a_connection_takes_one_request_after_the_other(writer: RecordingWriter) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        for raw, status in [
            (request_bytes(), 202),
            (request_bytes(path="/webhooks/nobody"), 404),
            (request_bytes(method="GET"), 405),
            (request_bytes(headers={"X-Sellfern-Signature": "x"}), 401),
            (request_bytes(headers={"Content-Encoding": "gzip"}), 415),
            (request_bytes(), 202),
        ]:
            reply = await client.ask(raw)
            assert reply.status == status
            assert "connection" not in reply.headers


async def test_a_client_that_wants_its_connection_closed_has_it_closed(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        assert (await client.ask(request_bytes(headers={"Connection": "close"}))).status == 202
        await ends(client)


async def test_requests_that_are_sent_at_once_are_answered_in_order(
    writer: RecordingWriter,
) -> None:
    bodies = [b"%d" % number for number in range(100)]
    async with public_port(writer) as place, Client.to(place.port) as client:
        sending = asyncio.create_task(client.send(b"".join(map(request_bytes, bodies))))
        replies = [await client.reply() for _ in bodies]
        await sending
    assert [reply.status for reply in replies] == [202] * len(bodies)
    assert [delivery.body for delivery in writer.deliveries] == bodies


async def test_an_idle_connection_is_closed_after_a_time(writer: RecordingWriter) -> None:
    async with (
        public_port(writer, keepalive_seconds=0.1) as place,
        Client.to(place.port) as silent,
        Client.to(place.port) as used,
    ):
        await used.ask(request_bytes())
        await ends(silent)
        await ends(used)


async def test_whoever_is_turned_away_can_send_on_and_read_why(writer: RecordingWriter) -> None:
    async with public_port(writer, connections=0) as place, Client.to(place.port) as client:
        await client.send(*[b"x" * 65536] * 16)
        check_refusal(await client.reply(), 503, "too_many_connections")


async def test_those_turned_away_are_bounded_too(
    writer: RecordingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them is an open file, which Redis and the admin site need as well."""
    monkeypatch.setattr(module, "LINGERING", 2)
    async with public_port(writer, connections=0) as place:
        async with (
            Client.to(place.port) as first,
            Client.to(place.port) as second,
            Client.to(place.port) as third,
        ):
            for client in (first, second, third):
                check_refusal(await client.reply(), 503, "too_many_connections")
            lingering = place.listener._connections._lingering
            assert len(lingering) == 2
        await until(lambda: not lingering)


async def test_whoever_is_turned_away_and_stays_is_closed_after_a_while(
    writer: RecordingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one, "LINGER_SECONDS", 0.05)
    async with public_port(writer, connections=0) as place, Client.to(place.port) as client:
        await client.reply()
        await until(lambda: not place.listener._connections._lingering)


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"POST /webhooks",
        request_bytes()[: -len(BODY)],
        request_bytes()[:-1],
        chunked_head() + b"5\r\nabc",
        request_bytes(),
        request_bytes() * 3,
        request_bytes() + b"POST /",
        request_bytes(headers={"Expect": "100-continue"})[: -len(BODY)],
        request_bytes(b"", length=10**9),
        b"garbage",
    ],
)
@pytest.mark.parametrize("way", ["reset", "close", "half"])
async def test_a_client_that_vanishes_at_any_stage_leaves_nothing_behind(
    writer: RecordingWriter, begun: bytes, way: str
) -> None:
    times = {"header_seconds": 100, "body_seconds": 100, "keepalive_seconds": 100}
    async with public_port(writer, **times) as place:
        async with Client.to(place.port) as client:
            await client.send(begun)
            if way == "reset":
                client.writer.transport.abort()
            elif way == "close":
                client.writer.close()
            else:
                client.writer.write_eof()
                await client.reader.read()
        await until(lambda: not connections(place) and place.held == 0)
        assert (await ask(place.port, request_bytes())).status == 202


@contextmanager
def deaf(place: Running) -> Iterator[socket.socket]:
    """A client with hardly any room for answers."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", place.port))
        client.setblocking(False)  # noqa: FBT003  # its name
        yield client


async def test_a_client_that_does_not_read_its_answers_loses_its_connection(
    writer: RecordingWriter,
) -> None:
    async def ask_for_ever(client: socket.socket) -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(client, SMALL * 100)

    async with public_port(writer) as place:
        with deaf(place) as client:
            await until(lambda: bool(connections(place)))
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(ask_for_ever(client), PATIENCE)
            await until(lambda: not connections(place))


async def test_an_answer_that_nobody_takes_keeps_no_connection_open(
    writer: RecordingWriter,
) -> None:
    """A few answers in the kernel's way are enough: a closed connection waits for its buffer."""
    loop = asyncio.get_running_loop()
    async with public_port(writer, keepalive_seconds=0.2) as place:
        with deaf(place) as client:
            await until(lambda: bool(connections(place)))
            (connection,) = connections(place)
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(ConnectionResetError):  # it has been closed by then
                    while connection.transport and not connection.transport.get_write_buffer_size():
                        await loop.sock_sendall(client, SMALL * 10)
                        await until(lambda: connection.is_idle or not connections(place))
            await until(lambda: not connections(place))


async def test_headers_behind_a_request_under_way_are_bounded_too(writer: RecordingWriter) -> None:
    writer.gate.clear()
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(request_bytes())
        await writer.reached.wait()
        (connection,) = connections(place)
        await client.send(b"POST / HTTP/1.1\r\n")
        for number in range(10):
            await client.send(b"X-%d: " % number + b"x" * 5000 + b"\r\n")
        await until(lambda: connection.is_ending)
        writer.gate.set()
        reply = await client.reply()
        assert (reply.status, reply.headers["connection"]) == (202, "close")


async def test_headers_behind_a_request_under_way_have_no_more_time_than_others(
    writer: RecordingWriter,
) -> None:
    writer.gate.clear()
    async with public_port(writer, header_seconds=0.1) as place, Client.to(place.port) as client:
        await client.send(request_bytes())
        await writer.reached.wait()
        (connection,) = connections(place)
        await client.send(b"POST / HTTP/1.1\r\n")
        await until(lambda: connection.is_ending)
        writer.gate.set()
        assert (await client.reply()).status == 202
        await ends(client)


async def test_a_body_may_be_larger_than_headers_may(writer: RecordingWriter) -> None:
    body = b"x" * 500_000
    async with public_port(writer) as place, Client.to(place.port) as client:
        for _ in range(3):
            assert (await client.ask(request_bytes(body))).status == 202
            half = request_bytes(body)
            assert (await client.ask(half[:1000], half[1000:])).status == 202


@pytest.mark.whole("its handler reads no body")
async def test_an_answer_that_has_begun_is_not_followed_by_another(
    writer: RecordingWriter,
) -> None:
    async def breaks_off(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        raise ValueError

    async with public_port(writer) as place:
        place.listener._connections.request_handler = breaks_off
        async with Client.to(place.port) as client:
            await client.send(request_bytes())
            said = await client.reader.read()
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b"begun\r\n")


async def test_a_handler_that_fails_is_answered_like_any_other_failure(
    writer: RecordingWriter, log: CapturedLog
) -> None:
    async def fails(_: web.BaseRequest) -> web.StreamResponse:
        raise ValueError(PRIVATE)

    async with public_port(writer) as place:
        place.listener._connections.request_handler = fails
        async with Client.to(place.port) as client:
            check_refusal(await client.ask(request_bytes()), 503, "internal_error")
            await ends(client)
    (line,) = [line for line in log.lines if line["event"] == "delivery_refused"]
    assert (line["error"], line["code"]) == ("ValueError", "internal_error")
    assert "in fails" in line["traceback"]
    assert PRIVATE not in log.text
