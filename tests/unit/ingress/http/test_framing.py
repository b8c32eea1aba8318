"""Facts about where requests end, as the bytes tell."""

import asyncio
from typing import Any, cast

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser

from ingress.http.framing import behind
from tests.ingress_support import chunked, request_bytes

ONE = request_bytes()
HALF = ONE[:50]
CHUNKS = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(
    b"1\r\n\r\n2"
)


def parsed(data: bytes) -> list[Any]:
    """The requests whose heads end in the data, as aiohttp has them."""
    loop = asyncio.new_event_loop()
    try:
        protocol = BaseProtocol(loop)
        parser = HttpRequestParser(protocol, loop, 2**16)
        protocol._parser = parser
        return list(cast("Any", parser.feed_data(data)[0]))
    finally:
        loop.close()


@pytest.mark.parametrize("half", [b"", b"P", HALF, b"\r\nPOST", b"\r\n\r\nP"])
@pytest.mark.parametrize(
    "whole",
    [
        ONE,
        ONE * 3,
        b"\r\n\r\n" + ONE,
        request_bytes(b"a\r\n\r\nb") + request_bytes(b""),
        CHUNKS,
        ONE + CHUNKS,
        CHUNKS * 2,
    ],
)
def test_what_is_behind_them_is_counted(whole: bytes, half: bytes) -> None:
    """But for empty lines: whether they are counted makes no difference."""
    size = behind(parsed(whole + half), whole + half)
    assert size is not None
    assert len(half.lstrip()) <= size <= len(half)


@pytest.mark.parametrize("rest", [b"", b"\r\n", b"\r\n\r\n", b"\n"])
def test_empty_lines_are_nothing(rest: bytes) -> None:
    assert behind(parsed(ONE + rest), ONE + rest) == 0


@pytest.mark.parametrize("cut", [1, 30, ONE.index(b"\r\n\r\n") + 2, ONE.index(b"\r\n\r\n") + 3])
def test_the_first_may_have_begun_before(cut: int) -> None:
    """The last three bytes that came before are enough."""
    data = ONE[max(0, cut - 3) :] + HALF
    assert behind(parsed(ONE + HALF), data, is_begun=True) == len(HALF)


@pytest.mark.parametrize("at", [0, 7])
def test_the_first_may_begin_behind_the_rest_of_another(at: int) -> None:
    assert behind(parsed(ONE), b"x" * at + ONE + HALF, at) == len(HALF)


def test_where_chunks_came_before_another_body_nobody_knows() -> None:
    assert behind(parsed(CHUNKS + ONE), CHUNKS + ONE) is None
    assert behind(parsed(ONE), b"0\r\n\r\n" + ONE, None) is None


def test_behind_what_is_no_request_there_is_nothing() -> None:
    assert behind([(object(), parsed(ONE)[0][1])], b"garbage") == 0
