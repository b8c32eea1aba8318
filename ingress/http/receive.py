"""The way of one delivery: endpoint, head, body within its limits, signature, durable enqueue."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from http import HTTPMethod
from time import time
from typing import Final, Protocol

from aiohttp import HttpVersion11, StreamReader, hdrs, web
from multidict import istr

from ingress.http.answers import (
    BAD_REQUEST,
    BODY_INCOMPLETE,
    BYTES_IN_FLIGHT,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    PAYLOAD_TOO_LARGE,
    REQUEST_TIMEOUT,
    SECRET_UNAVAILABLE,
    UNKNOWN_ENDPOINT,
    UNSUPPORTED_ENCODING,
    Refusal,
    Refused,
)
from ingress.http.bytes_in_flight import BytesInFlight
from ingress.settings import Limits
from shared.endpoints.endpoint import CurrentEndpoints, Endpoint
from shared.errors import SignatureError
from shared.queue.job import Delivery
from shared.queue.writer import Accepted
from shared.sellfern import signature

ROUTE: Final = "/webhooks/"
"""What comes before the endpoint's id in its URL."""

KEPT_HEADERS: Final = (istr("Content-Type"), istr("User-Agent"), istr("X-Sellfern-Event"))
"""Unsigned headers that stay with the delivery for whoever reads it later; never trusted."""

KEPT_LENGTH: Final = 256
"""Characters that are kept of each."""

_KEPT: Final = [(str(name).lower(), name) for name in KEPT_HEADERS]


_POST: Final = HTTPMethod.POST.value  # a text: Python looks members of enums up slowly


_INFLATED: Final = frozenset(
    {
        *("gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd"),
        *("dcb", "dcz", "pack200-gzip", "exi", "aes128gcm"),  # the rest of IANA's list
        *("bzip2", "x-bzip2", "lz4", "lzma", "snappy", "xz"),  # seen, though on no list
    }
)
"""The content codings of bodies that aren't what they say until they are inflated or deciphered."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Writer(Protocol):
    """Where deliveries go: a `QueueWriter`, or a fake of it."""

    async def accept(self, delivery: Delivery) -> Accepted:
        """Store one; returns once it is durable, raises Unavailable otherwise."""
        ...


class Receiver:
    """Takes deliveries in. It never parses a body.

    Args:
        endpoints: knows them as they are now.
        writer: stores deliveries durably.
        limits: what one client may ask.
    """

    def __init__(self, endpoints: CurrentEndpoints, writer: Writer, limits: Limits) -> None:
        self._endpoints = endpoints
        self._writer = writer
        self._limits = limits
        self.verified: Counter[tuple[str, bytes]] = Counter()
        """How many deliveries to an endpoint a secret has verified, since this process began."""
        self.wrong: Counter[str] = Counter()
        """How many deliveries to an endpoint none has verified since one has."""
        self.in_flight = BytesInFlight(limits.bytes_in_flight)
        self.closed: Refusal | None = None
        """Why every delivery is turned away: the process has just begun."""

    async def receive(self, request: web.BaseRequest) -> Accepted:
        """Take one delivery in; returns once it is durable.

        Raises:
            Refused: its sender has to be told why not.
            SignatureError: no secret of the endpoint verifies it.
            Unavailable: it can't be stored durably just now.
        """
        endpoint = self._endpoint(request)
        claim = signature.read_claim(endpoint.scheme, request.headers)
        # Who can't be genuine by his headers has been refused by now: his body costs nothing.
        body = await read_body(request, self._limits, self.in_flight)
        now = time()
        self.verified[endpoint.id, self._verified(endpoint, claim, body, now)] += 1
        return await self._writer.accept(self._delivery(endpoint, request, body, now))

    def judge(self, request: web.BaseRequest, body: bytes) -> None:
        """Say why a request would be refused that has come whole, if it would be.

        Raises:
            Refused, SignatureError: as `receive` would.
        """
        endpoint = self._endpoint(request)
        claim = signature.read_claim(endpoint.scheme, request.headers)
        self._verified(endpoint, claim, body, time())

    def _verified(
        self, endpoint: Endpoint, claim: signature.Claim, body: bytes, now: float
    ) -> bytes:
        """The secret that signed a body; what comes for an endpoint in vain is counted in a row."""
        try:
            secret = _verified(endpoint, claim, body, now)
        except SignatureError:
            self.wrong[endpoint.id] += 1
            raise
        if self.wrong:
            self.wrong.pop(endpoint.id, None)
        return secret

    def _endpoint(self, request: web.BaseRequest) -> Endpoint:
        """The endpoint that a request is for, once its head may be one of a delivery."""
        name = endpoint_id(request)
        if name is None:
            raise Refused(NOT_FOUND)
        if request.method != _POST:
            raise Refused(METHOD_NOT_ALLOWED)
        # After the path: what isn't for us is told so in any case.
        if self.closed is not None:
            raise Refused(self.closed)
        check_head(request, self._limits, self.in_flight)
        endpoint = self._endpoints.current.get(name)
        if endpoint is None:
            raise Refused(UNKNOWN_ENDPOINT)
        return endpoint

    def _delivery(
        self, endpoint: Endpoint, request: web.BaseRequest, body: bytes, now: float
    ) -> Delivery:
        return Delivery(
            endpoint=endpoint.id,
            organization=endpoint.organization_id,
            # The moment by which its secret was judged, and not a later one.
            received_at=int(now * 1000),
            headers=_kept_headers(request.headers),
            body=body,
            weight=endpoint.weight,
            max_bytes=endpoint.max_bytes,
        )


def _verified(endpoint: Endpoint, claim: signature.Claim, body: bytes, now: float) -> bytes:
    """The secret that signed a body."""
    secrets = endpoint.active_secrets(now)
    try:
        return secrets[signature.verify_claim(endpoint.scheme, claim, body, secrets, now)]
    except SignatureError as exc:
        # Whether it is genuine, only the secret that can't be read could say: no 401 then.
        if exc.code == signature.INVALID and endpoint.lacks_secret(now):
            raise Refused(SECRET_UNAVAILABLE) from exc
        exc.body = body  # for whoever compares what was signed with what came
        raise


def endpoint_id(request: web.BaseRequest) -> str | None:
    """The last part of the URL, as the client wrote it; None for a URL of another kind."""
    path = request.rel_url.raw_path
    return path.removeprefix(ROUTE) if path.startswith(ROUTE) else None


def _kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: _text(headers[key]) for name, key in _KEPT if key in headers}


def _text(value: str) -> str:
    """A header's value as text: bytes that are no UTF-8 come as lone surrogates."""
    value = value[:KEPT_LENGTH]
    if value.isascii():
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


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
    _refuse_beyond(in_flight, length - request.content.total_bytes)


def _refuse_beyond(in_flight: BytesInFlight, size: int) -> None:
    if in_flight.held + size > in_flight.most:
        raise Refused(BYTES_IN_FLIGHT)


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
    _refuse_beyond(in_flight, 0)
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
