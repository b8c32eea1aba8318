"""Facts about whoever is sent away unanswered: told in a while, so that it doesn't come at once."""

import asyncio
import contextlib
import time
from collections import Counter
from typing import Final

import pytest

from ingress.http import connections as turns
from ingress.http import ending_connection as module
from ingress.http.connection import Connection
from tests.ingress_support import BODY, Client, RecordingWriter, Running, chunked, request_bytes
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

FALSE = {"X-Sellfern-Signature": "0" * 64}
LONG = {"header_seconds": 3 * PATIENCE, "body_seconds": 3 * PATIENCE}
HEAD = request_bytes()[: -len(BODY) - 2]
TINY = chunked_head(headers=FALSE) + chunked(*[b"x"] * 40_000)
TOO_LONG = HEAD + b"".join(b"X-%d: %s\r\n" % (number, b"x" * 7000) for number in range(6))
GIVEN_UP: Final = [
    pytest.param(HEAD + b"X-Long: " + b"x" * 5000, 408, "request_timeout", id="head"),
    pytest.param(request_bytes(headers=FALSE)[:-1], 408, "request_timeout", id="body"),
    pytest.param(TOO_LONG, 431, "headers_too_large", id="too long a head"),
    pytest.param(
        HEAD + b"X-Long: " + b"x" * 9000 + b"\r\n\r\n",
        431,
        "headers_too_large",
        id="too long a line",
    ),
    pytest.param(TINY, 400, "chunk_overhead", id="tiny chunks"),
]
LATER: Final = 0.8


@pytest.fixture(autouse=True)
def _while_that_can_be_measured(monkeypatch: pytest.MonkeyPatch, told_later: None) -> None:
    monkeypatch.setattr(module, "LATER_SECONDS", LATER)


async def given_up(place: Running, client: Client, raw: bytes, status: int) -> Connection:
    """The connection of a client that has sent what is refused; 408: as others need its bytes."""
    await client.send(raw)
    await until(lambda: bool(connections(place)))
    (connection,) = connections(place)
    if status == 408:
        await until(lambda: place.held == len(raw))
        connection._holding.end()
    return connection


@pytest.mark.parametrize(("raw", "status", "code"), GIVEN_UP)
async def test_its_bytes_are_free_at_once_and_its_answer_comes_in_a_while(
    writer: RecordingWriter, raw: bytes, status: int, code: str
) -> None:
    async with public_port(writer, **LONG) as place, Client.to(place.port) as client:
        began = time.monotonic()
        await given_up(place, client, raw, status)
        await until(lambda: place.held == 0)
        assert time.monotonic() - began < LATER / 2 or status != 408
        check_refusal(await client.reply(), status, code)
        assert time.monotonic() - began >= LATER / 2
        await ends(client)


@pytest.mark.whole("in pieces, nothing is under way when the head has come")
async def test_what_came_whole_before_is_answered_at_once_and_only_the_end_waits(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer, **LONG) as place, Client.to(place.port) as client:
        began = time.monotonic()
        await client.send(request_bytes() + TOO_LONG)
        assert (await client.reply()).status == 202
        answered = time.monotonic()
        assert place.held == 0
        await ends(client)
        assert answered - began < LATER / 2 <= time.monotonic() - answered
    assert len(writer.deliveries) == 1


@pytest.mark.parametrize(("raw", "status", "code"), GIVEN_UP)
async def test_whoever_leaves_meanwhile_leaves_nothing_behind(
    writer: RecordingWriter, raw: bytes, status: int, code: str
) -> None:
    async with public_port(writer, **LONG) as place:  # it sees to what is held
        async with Client.to(place.port) as client:
            connection = await given_up(place, client, raw, status)
            await until(lambda: connection.is_told_later)
        await until(lambda: not connections(place))


async def test_who_is_given_up_is_counted_then_however_soon_he_leaves(
    writer: RecordingWriter, log: CapturedLog
) -> None:
    async with public_port(writer, **LONG) as place:
        async with Client.to(place.port) as client:
            connection = await given_up(place, client, TOO_LONG, 431)
            await until(lambda: connection.is_told_later)
        await until(lambda: not connections(place))
    lines = [line for line in log.lines if line["event"] == "delivery_refused"]
    assert [line["code"] for line in lines] == ["headers_too_large"]


async def test_who_has_ended_his_side_is_told_all_the_same(writer: RecordingWriter) -> None:
    async with public_port(writer, **LONG) as place, Client.to(place.port) as client:
        await client.send(TOO_LONG)
        client.writer.write_eof()
        check_refusal(await client.reply(), 431, "headers_too_large")
        await ends(client)


async def test_headers_that_do_not_come_in_time_are_refused_then(writer: RecordingWriter) -> None:
    async with public_port(writer, header_seconds=0.1) as place, Client.to(place.port) as client:
        began = time.monotonic()
        await client.send(HEAD)
        check_refusal(await client.reply(), 408, "request_timeout")
        assert time.monotonic() - began < LATER / 2


async def test_a_process_that_ends_tells_at_once(writer: RecordingWriter) -> None:
    async with public_port(writer, **LONG) as place, Client.to(place.port) as client:
        await client.send(HEAD)
        await until(lambda: place.held > 0)
        (connection,) = connections(place)
        place.listener._connections.leaving = True
        began = time.monotonic()
        connection._holding.end()
        check_refusal(await client.reply(), 408, "request_timeout")
        assert time.monotonic() - began < LATER / 2


def test_not_all_are_told_in_the_same_moment() -> None:
    moments = [module.later() for _ in range(50)]
    assert all(LATER / 2 <= each <= 1.5 * LATER for each in moments)
    assert max(moments) - min(moments) > LATER / 4


@pytest.mark.whole("in pieces none is refused at once")
async def test_of_many_who_are_refused_again_and_again_few_are_in_one_turn_of_the_loop(
    writer: RecordingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = 0
    is_over = False
    refused: Counter[int] = Counter()
    times: Counter[Connection] = Counter()
    refuse = Connection._refuse_at_once

    def counted(connection: Connection, data: bytes) -> bool:
        times[connection] += 1
        if times[connection] > 2:  # until many have been refused, nobody waits
            refused[turn] += 1
        return refuse(connection, data)

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        if not is_over:
            asyncio.get_running_loop().call_soon(next_turn)

    async def ask_on(client: Client) -> None:
        for _ in range(6):
            assert (await client.ask(request_bytes(headers=FALSE))).status == 401

    rows: Counter[int] = Counter()
    let_go_on = turns.Connections._let_go_on

    def row(connections: turns.Connections) -> None:
        rows[turn] += 1
        let_go_on(connections)

    monkeypatch.setattr(turns.Connections, "_let_go_on", row)
    monkeypatch.setattr(Connection, "_refuse_at_once", counted)
    async with public_port(writer) as place, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client.to(place.port)) for _ in range(100)]
        next_turn()
        await asyncio.gather(*map(ask_on, clients))
        is_over = True
    assert refused.total() >= 300
    # Those that wait no more, and as many that needn't wait.
    assert max(refused.values()) <= 2 * turns.AT_ONCE
    assert max(rows.values()) == 1
