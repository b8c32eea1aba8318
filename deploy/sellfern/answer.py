"""The answers of the management API, in the shape that Sellfern documents."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
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


@dataclass(eq=False)
class Refused(SellfernError):
    """A request is answered with an error.

    Attributes:
        status: of the HTTP answer.
        code: the documented name of the reason.
        message: a sentence for people.
        details: what machines may want to know, or None.
        headers: more headers of the answer.
    """

    status: HTTPStatus
    code: str
    message: str
    _: KW_ONLY
    details: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


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


def success(data: object, status: int = HTTPStatus.OK) -> Answer:
    """The answer to a request that did what it was to do."""
    return _answer(status, {"success": True, "data": data}, {})


def refused(exc: Refused) -> Answer:
    """The answer to a request that did nothing."""
    error: dict[str, object] = {"code": exc.code, "message": exc.message}
    if exc.details is not None:
        error["details"] = exc.details
    return _answer(exc.status, {"success": False, "error": error}, exc.headers)


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


def _answer(status: int, content: Mapping[str, object], more: Mapping[str, str]) -> Answer:
    request_id = f"req_{uuid4().hex}"
    body = msgspec.json.encode({**content, "meta": {"request_id": request_id}})
    # An answer may hold a secret, which no cache may keep.
    headers = {"Content-Type": _JSON, REQUEST_ID: request_id, "Cache-Control": "no-store"}
    return Answer(status, body, {**headers, **more})
