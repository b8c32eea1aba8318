"""The way of one delivery: limits, endpoint, signature, durable enqueue, answer."""

from collections.abc import Callable, Mapping
from http import HTTPMethod
from time import time
from typing import Final, Protocol

from aiohttp import web
from multidict import istr

from ingress.http.answers import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    SECRET_UNAVAILABLE,
    UNKNOWN_ENDPOINT,
    Refusal,
    Refused,
)
from ingress.http.body import check_head, read_body
from ingress.http.bytes_in_flight import BytesInFlight
from ingress.http.secret_use import SecretUse
from ingress.settings import Limits
from shared.endpoints.endpoint import Endpoint, Endpoints, EndpointSecret
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


class Writer(Protocol):
    """Where deliveries go: a `QueueWriter`, or a fake of it."""

    async def accept(self, delivery: Delivery) -> Accepted:
        """Store one; returns once it is durable, raises Unavailable otherwise."""
        ...


class Receiver:
    """Takes deliveries in. It never parses a body.

    Args:
        endpoints: gives the endpoints as they are now.
        writer: stores deliveries durably.
        limits: what one client may ask.
    """

    def __init__(self, endpoints: Callable[[], Endpoints], writer: Writer, limits: Limits) -> None:
        self._endpoints = endpoints
        self._writer = writer
        self._limits = limits
        self.secret_use = SecretUse(endpoints)
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
        body = await read_body(request, self._limits, self.in_flight)
        now = time()
        self.secret_use.note(endpoint.id, self._verified(endpoint, claim, body, now))
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
    ) -> EndpointSecret:
        active = endpoint.active(now)
        secrets = [secret.value.reveal().encode() for secret in active]
        try:
            number = signature.verify_claim(endpoint.scheme, claim, body, secrets, now)
        except SignatureError as exc:
            # Whether it is genuine, only the secret that can't be read could say: no 401 then.
            if exc.code == signature.INVALID and endpoint.lacks_secret(now):
                raise Refused(SECRET_UNAVAILABLE) from exc
            exc.body = body  # for whoever compares what was signed with what came
            raise
        return active[number]

    def _endpoint(self, request: web.BaseRequest) -> Endpoint:
        """The endpoint that a request is for, once its head may be one of a delivery."""
        name = endpoint_id(request)
        if name is None:
            raise Refused(NOT_FOUND)
        if request.method != _POST:
            raise Refused(METHOD_NOT_ALLOWED)
        if self.closed is not None:
            raise Refused(self.closed)
        check_head(request, self._limits, self.in_flight)
        endpoint = self._endpoints().get(name)
        if endpoint is None:
            raise Refused(UNKNOWN_ENDPOINT)
        return endpoint

    def _delivery(
        self, endpoint: Endpoint, request: web.BaseRequest, body: bytes, now: float
    ) -> Delivery:
        return Delivery(
            endpoint=endpoint.id,
            organization=endpoint.organization_id,
            received_at=int(now * 1000),
            headers=_kept_headers(request.headers),
            body=body,
            weight=endpoint.weight,
            max_bytes=endpoint.max_bytes,
        )


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
