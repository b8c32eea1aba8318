"""Facts about the small HTTP client."""

import asyncio

import pytest

from tests.bench.http_client import Connection, answered
from tests.bench.load import CONNECTIONS
from tests.ingress_support import RecordingWriter, request_bytes, running

ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello"


def test_an_answer_has_a_status_once_its_body_is_complete() -> None:
    assert [answered(ANSWER[:end]) for end in range(len(ANSWER))] == [None] * len(ANSWER)
    assert answered(ANSWER) == (202, len(ANSWER))
    assert answered(ANSWER + ANSWER) == (202, len(ANSWER))


def test_an_answer_may_have_no_body() -> None:
    answer = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
    assert answered(answer) == (503, len(answer))


async def test_requests_go_one_after_the_other_over_a_connection() -> None:
    async with running(RecordingWriter()) as ingress:
        connection = await Connection.to(ingress.port)
        statuses = [await connection.ask(request_bytes(b"%d" % n)) for n in range(3)]
        connection.close()
    assert statuses == [202, 202, 202]


async def test_a_request_may_be_sent_before_the_one_before_it_is_answered() -> None:
    async with running(RecordingWriter()) as ingress:
        connection = await Connection.to(ingress.port)
        asked = [connection.ask(request_bytes(b"%d" % number)) for number in range(3)]
        assert await asyncio.gather(*asked) == [202, 202, 202]
        connection.close()


async def test_a_connection_that_ends_tells_whoever_waits() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        connection = await Connection.to(server.sockets[0].getsockname()[1])
        with pytest.raises(ConnectionError):
            await connection.ask(b"GET / HTTP/1.1\r\n\r\n")


def test_the_load_has_many_connections() -> None:
    assert CONNECTIONS == 64
