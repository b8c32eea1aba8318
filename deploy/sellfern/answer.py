"""The answers of the management API, in the shape that Sellfern documents."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final
from uuid import uuid4

import msgspec
from aiohttp import web

from shared.errors import SellfernError

REQUEST_ID: Final = "X-Request-Id"
"""The header that carries ``meta.request_id`` as well."""

REPLAYED: Final = "Idempotent-Replayed"
"""The header of an answer that was given before; the body is the first one to the byte."""

_JSON: Final = "application/json"


class Refused(SellfernError):
    """A request is answered with an error.

    Attributes:
        status: of the HTTP answer.
        code: the documented name of the reason.
        message: a sentence for people.
        details: what machines may want to know, or None.
        headers: more headers of the answer.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        *,
        details: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = dict(headers or {})
        super().__init__(f"{code}: {message}")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that can be given more than once.

    Attributes:
        status: of HTTP.
        body: JSON.
        headers: all but those that aiohttp sets.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def replayed(self) -> "Answer":
        """The same answer, marked as given before."""
        return replace(self, headers={**self.headers, REPLAYED: "true"})

    def response(self) -> web.Response:
        """The answer as aiohttp sends it."""
        return web.Response(status=self.status, body=self.body, headers=self.headers)


def new_request_id() -> str:
    """A fresh ``meta.request_id``."""
    return f"req_{uuid4().hex}"


def success(data: object, request_id: str, status: int = HTTPStatus.OK) -> Answer:
    """The answer to a request that did what it was to do."""
    meta = {"request_id": request_id}
    body = msgspec.json.encode({"success": True, "data": data, "meta": meta})
    return Answer(status, body, _headers(request_id))


def refused(exc: Refused, request_id: str) -> Answer:
    """The answer to a request that did nothing."""
    error: dict[str, object] = {"code": exc.code, "message": exc.message}
    if exc.details is not None:
        error["details"] = exc.details
    meta = {"request_id": request_id}
    body = msgspec.json.encode({"success": False, "error": error, "meta": meta})
    return Answer(exc.status, body, _headers(request_id) | exc.headers)


def not_found() -> Refused:
    """The refusal that tells nothing: another organization's, removed, or never there."""
    # One answer for all three, so that nobody learns which ids others have.
    return Refused(HTTPStatus.NOT_FOUND, "not_found", "there is no such resource")


def invalid(message: str, *issues: tuple[str, str]) -> Refused:
    """The refusal of a request that isn't as documented.

    Args:
        message: a sentence for people.
        issues: where in the request, and what was expected there.
    """
    listed = [{"path": path, "message": expected} for path, expected in issues]
    return Refused(HTTPStatus.BAD_REQUEST, "validation_error", message, details={"issues": listed})


def rate_limited(seconds: int) -> Refused:
    """The refusal of a request too many."""
    headers = {"Retry-After": str(seconds)}
    message = f"too many requests; try again after {seconds} s"
    return Refused(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", message, headers=headers)


def _headers(request_id: str) -> dict[str, str]:
    # An answer may hold a secret, which no cache may keep.
    return {"Content-Type": _JSON, REQUEST_ID: request_id, "Cache-Control": "no-store"}
