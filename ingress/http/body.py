"""The limits on the size of a delivery's body and on the time that it takes."""

import asyncio
from typing import Final

from aiohttp import HttpVersion11, StreamReader, hdrs, web

from ingress.http.answers import (
    BAD_REQUEST,
    BODY_INCOMPLETE,
    PAYLOAD_TOO_LARGE,
    REQUEST_TIMEOUT,
    UNSUPPORTED_ENCODING,
    Refused,
)
from ingress.http.bytes_in_flight import BytesInFlight
from ingress.settings import Limits

_INFLATED: Final = frozenset(
    {
        *("gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd"),
        *("dcb", "dcz", "pack200-gzip", "exi", "aes128gcm"),  # the rest of IANA's list
        *("bzip2", "x-bzip2", "lz4", "lzma", "snappy", "xz"),  # seen, though on no list
    }
)
"""The content codings of bodies that aren't what they say until they are inflated or deciphered."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def check_head(request: web.BaseRequest, limits: Limits, in_flight: BytesInFlight) -> None:
    """Judge a body by what its headers announce.

    Raises:
        Refused: 415 for a compressed body, since nothing is ever inflated; 413 for a length over
            the limit; 503 where it doesn't fit beside the others; 400 for chunks in HTTP/1.0, which
            has none, so that a proxy may see another end of the body than we do.
    """
    headers = request.headers
    if hdrs.CONTENT_ENCODING in headers and _is_coded(headers.getall(hdrs.CONTENT_ENCODING)):
        raise Refused(UNSUPPORTED_ENCODING)
    announced = headers.get(hdrs.CONTENT_LENGTH)
    if announced is None:
        _check_transfer(request)
        return
    try:
        length = int(announced)
    except ValueError:  # the parser has made sure of digits, of which int takes only so many
        raise Refused(PAYLOAD_TOO_LARGE) from None
    if length > limits.body_bytes:
        raise Refused(PAYLOAD_TOO_LARGE)
    in_flight.refuse_beyond(length - request.content.total_bytes)


def _is_coded(values: list[str]) -> bool:
    """Whether one of the codings means that the body is compressed.

    Senders write there what is no coding, such as ``UTF-8``, ``none`` or nothing at all; whether
    such a body is right, its signature tells.
    """
    # A coding has no parameters; whoever writes some, as in `gzip;q=1`, means it all the same.
    words = (word.partition(";")[0] for value in values for word in value.split(","))
    codings = (word.strip().lower() for word in words)
    return not _INFLATED.isdisjoint(codings)


def _check_transfer(request: web.BaseRequest) -> None:
    coding = request.headers.get(hdrs.TRANSFER_ENCODING)
    if coding is None:
        return
    if coding.lower() != "chunked":
        raise Refused(UNSUPPORTED_ENCODING)
    if request.version < HttpVersion11:
        raise Refused(BAD_REQUEST)


async def read_body(request: web.BaseRequest, limits: Limits, in_flight: BytesInFlight) -> bytes:
    """Read the body, bytes as they came.

    Raises:
        Refused: 413 as soon as it is over the limit; 408 when it isn't complete in time, or others
            need its bytes; 503 where it doesn't fit beside those that are complete; 400 when the
            client ends it early.
    """
    content = request.content
    try:
        if content.is_eof():  # a small body comes together with its headers
            body = content.read_nowait()
        else:
            async with asyncio.timeout(limits.body_seconds):
                await _invite(request)
                body = await _read_rest(content, limits)
    except TimeoutError:
        raise Refused(REQUEST_TIMEOUT) from None
    except (web.RequestPayloadError, OSError, RuntimeError) as exc:
        # aiohttp raises RuntimeError where the connection is gone before the first wait.
        raise Refused(BODY_INCOMPLETE) from exc
    _check_size(len(body), limits)
    in_flight.refuse_beyond(0)
    return body


async def _invite(request: web.BaseRequest) -> None:
    """Answer ``Expect: 100-continue``, with which a client asks before it sends the body."""
    asks = request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"
    if asks and request.version >= HttpVersion11:
        await request.writer.write(_CONTINUE)
        request.writer.output_size = 0  # the answer itself is still to come


async def _read_rest(content: StreamReader, limits: Limits) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        while not content.at_eof():
            chunks.append(await content.readany())
            size += len(chunks[-1])
            _check_size(size, limits)
        return b"".join(chunks)
    finally:  # what ended it holds this frame, until garbage is collected
        chunks.clear()


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.body_bytes:
        raise Refused(PAYLOAD_TOO_LARGE)
