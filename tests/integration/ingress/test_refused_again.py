"""Facts about a connection whose last request was refused: the next is judged at once."""

import asyncio
from typing import Any

import pytest

from ingress.http.connection import Connection
from tests.ingress_support import BODY, Client, RecordingWriter, request_bytes
from tests.integration.ingress.public_port import (
    PATIENCE,
    check_refusal,
    connections,
    ends,
    public_port,
)

FALSE = request_bytes(headers={"X-Sellfern-Signature": "0" * 64})
NOBODY = request_bytes(path="/webhooks/nobody")
UPGRADE = {"Upgrade": "websocket", "Connection": "upgrade"}
UNSIGNED = request_bytes(headers={"X-Sellfern-Signature": "x"})
REFUSED = [
    (FALSE, 401, "signature_invalid"),
    (NOBODY, 404, "unknown_endpoint"),
    (UNSIGNED, 401, "signature_invalid"),
    (request_bytes(b"", path="/"), 404, "not_found"),
    (request_bytes(headers={"Content-Encoding": "gzip"}), 415, "unsupported_encoding"),
    (request_bytes(headers={"Expect": "100-continue", "X-Sellfern-Signature": ""}), 401, None),
]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Give what was refused at once, of what might have been."""
    seen: list[bool] = []
    refuse = Connection._refuse_at_once

    def noted(connection: Connection, data: bytes) -> bool:
        seen.append(refuse(connection, data))
        return seen[-1]

    monkeypatch.setattr(Connection, "_refuse_at_once", noted)
    return seen


@pytest.mark.whole("in pieces none is refused at once")
async def test_its_answers_are_the_same_and_whoever_delivers_after_all_is_taken(
    writer: RecordingWriter, at_once: list[bool]
) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        for raw, status, code in REFUSED * 2:
            reply = await client.ask(raw)
            check_refusal(reply, status, code or reply.code)
            assert "connection" not in reply.headers
            assert place.held == 0
        assert at_once == [True] * (2 * len(REFUSED) - 1)
        for _ in range(2):
            assert (await client.ask(request_bytes())).status == 202
        assert at_once[-1] is False
        assert len(at_once) == 2 * len(REFUSED)  # the second was accepted before
    assert [delivery.body for delivery in writer.deliveries] == [BODY] * 2


@pytest.mark.parametrize("other", [request_bytes(), FALSE, request_bytes(b"", method="GET")])
async def test_what_comes_with_it_or_in_pieces_is_answered_in_order(
    writer: RecordingWriter, other: bytes
) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.ask(request_bytes(b"", path="/"))
        alone = (await client.ask(request_bytes(b"", path="/"))).status
        await client.send(request_bytes() + other + request_bytes(b"", path="/"))
        first = (await client.reply()).status
        assert (alone, first) == (404, 202)
        assert (await client.reply()).status in {202, 401, 405}
        assert (await client.reply()).status == 404


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (request_bytes(headers={"Connection": "close"}, path="/"), 404),
        (request_bytes(b"", path="/").replace(b"HTTP/1.1", b"HTTP/1.0"), 404),
        (request_bytes(b"", path="/", headers=UPGRADE), 404),
        (b"xyz", 400),
        (b"garbage\r\n\r\n", 400),
    ],
)
async def test_one_that_is_the_last_ends_its_connection(
    writer: RecordingWriter, raw: bytes, status: int
) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.ask(request_bytes(b"", path="/"))
        assert (await client.ask(raw)).status == status
        await ends(client)


async def test_a_connection_that_is_only_refused_is_idle_in_between(
    writer: RecordingWriter,
) -> None:
    async with (
        public_port(writer, keepalive_seconds=0.3) as place,
        Client.to(place.port) as client,
    ):
        for _ in range(6):
            await client.ask(request_bytes(b"", path="/"))
            (connection,) = connections(place)
            await asyncio.sleep(0.1)
            assert connection.is_idle
            assert not connection.is_busy
        await ends(client)


async def test_while_the_process_leaves_it_ends_with_its_answer(writer: RecordingWriter) -> None:
    async with (
        public_port(writer, drain_delay=PATIENCE) as place,
        Client.to(place.port) as client,
    ):
        await client.ask(request_bytes(b"", path="/"))
        place.listener._connections.leaving = True
        reply: Any = await client.ask(request_bytes(b"", path="/"))
        assert (reply.status, reply.headers["connection"]) == (404, "close")
        await ends(client)
