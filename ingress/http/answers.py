"""The answers of the ingress, in the vendor's own shape."""

from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Final

import msgspec
from aiohttp import HttpVersion, HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter

from shared.errors import SellfernError, SignatureError, Unavailable
from shared.queue.writer import Accepted

RETRY_AFTER_SECONDS: Final = 5
"""When a sender is asked to come again after a 503."""

REQUEST_ID: Final = "X-Request-Id"
"""The header that carries ``meta.request_id`` as well."""

_JSON: Final = "application/json"
_SERVER: Final = "sellfern-ingress"  # rather than aiohttp's, which tells its version
_SUCCESS: Final = {
    accepted: f'{{"success":true,"data":{{"status":"{accepted.value}"}},"meta":{{"request_id":"'
    for accepted in Accepted
}
# Nearly every answer: members of enums by names of their own, since Python looks them up slowly.
_NEW: Final = Accepted.NEW
_STORED: Final = _SUCCESS[_NEW]
_ACCEPTED: Final = HTTPStatus.ACCEPTED


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not accepted, as its sender is told.

    Attributes:
        status: of the HTTP answer.
        code: a stable name of the reason.
        message: a sentence; holds nothing that came from outside.
    """

    status: HTTPStatus
    code: str
    message: str


class Refused(SellfernError):
    """A request is not accepted.

    Attributes:
        refusal: why.
    """

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(f"{refusal.code}: {refusal.message}")


NOT_FOUND: Final = Refusal(HTTPStatus.NOT_FOUND, "not_found", "there is nothing here")
UNKNOWN_ENDPOINT: Final = Refusal(
    HTTPStatus.NOT_FOUND, "unknown_endpoint", "no endpoint has this id"
)
METHOD_NOT_ALLOWED: Final = Refusal(
    HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "deliveries are sent by POST"
)
BAD_REQUEST: Final = Refusal(HTTPStatus.BAD_REQUEST, "bad_request", "this is not valid HTTP")
HEADERS_TOO_LARGE: Final = Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "the headers are too large"
)
BODY_INCOMPLETE: Final = Refusal(
    HTTPStatus.BAD_REQUEST, "body_incomplete", "the body ended before its announced end"
)
CHUNK_OVERHEAD: Final = Refusal(
    HTTPStatus.BAD_REQUEST, "chunk_overhead", "the chunks take too many bytes beside the body"
)
REQUEST_TIMEOUT: Final = Refusal(
    HTTPStatus.REQUEST_TIMEOUT, "request_timeout", "the request did not arrive in time"
)
PAYLOAD_TOO_LARGE: Final = Refusal(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "payload_too_large", "the body is over the size limit"
)
UNSUPPORTED_ENCODING: Final = Refusal(
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", "a body is taken as it is signed"
)
REDIS_AWAITED: Final = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "redis_awaited", "this process waits for its Redis"
)
BYTES_IN_FLIGHT: Final = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "bytes_in_flight", "too many bytes are being received"
)
TOO_MANY_CONNECTIONS: Final = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", "too many connections are open"
)
SECRET_UNAVAILABLE: Final = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "secret_unavailable", "a secret of this endpoint can't be read"
)
INTERNAL_ERROR: Final = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "internal_error", "the delivery was not stored; send it again"
)


def unauthorized(exc: SignatureError) -> Refusal:
    """The refusal of a delivery that no secret of its endpoint verifies."""
    return Refusal(HTTPStatus.UNAUTHORIZED, exc.code, str(exc))


def unavailable(exc: Unavailable) -> Refusal:
    """The refusal of a delivery that can't be stored durably just now."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, exc.code, exc.message)


class _Whole(web.StreamResponse):
    """An answer that is written as one piece.

    aiohttp builds an answer from a table of headers that it fills and reads again, which took a
    sixth of the time of a whole delivery.

    Args:
        status: of the answer.
        fields: its own header lines, each with its end.
        body: what it says.
        request_id: of this request.
    """

    def __init__(self, status: HTTPStatus, fields: str, body: str, request_id: str) -> None:
        super().__init__(status=status)
        self._fields = fields
        self._content = body.encode()
        self._request_id = request_id

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write all of it."""
        is_kept = request.keep_alive if self.keep_alive is None else self.keep_alive
        self._keep_alive = is_kept  # which the connection asks for
        raw = self.rendered(request.version, is_kept=is_kept)
        if request.method == hdrs.METH_HEAD:
            raw = raw[: -len(self._content)]
        await request.writer.write(raw)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """There is nothing left to write."""

    def rendered(self, version: HttpVersion, *, is_kept: bool) -> bytes:
        """The whole answer, for a connection that is kept or isn't."""
        connection = ""
        if is_kept != (version >= HttpVersion11):  # what the version doesn't say already
            connection = f"Connection: {'keep-alive' if is_kept else 'close'}\r\n"
        head = (
            f"HTTP/{version.major}.{version.minor} {self.status} {self.reason}\r\n"
            f"Content-Type: {_JSON}\r\n"
            f"{REQUEST_ID}: {self._request_id}\r\n"
            f"Server: {_SERVER}\r\n"
            f"{self._fields}"
            f"Content-Length: {len(self._content)}\r\n"
            f"Date: {_date(int(time()))}\r\n"
            f"{connection}\r\n"
        )
        return head.encode("ascii") + self._content


class Success(_Whole):
    """The answer to a delivery that is stored durably: always the same but for its id.

    Args:
        accepted: how.
        request_id: of this request.
    """

    def __init__(self, accepted: Accepted, request_id: str) -> None:
        opening = _STORED if accepted is _NEW else _SUCCESS[accepted]
        super().__init__(_ACCEPTED, "", f'{opening}{request_id}"}}}}', request_id)


class Rejection(_Whole):
    """The answer to a request that is not accepted, as cheap as that to one that is.

    Args:
        refusal: why.
        request_id: of this request.
    """

    def __init__(self, refusal: Refusal, request_id: str) -> None:
        fields, opening = _parts(refusal)
        super().__init__(refusal.status, fields, f'{opening}{request_id}"}}}}', request_id)


# Bounded, since the text about a signature names the header of a scheme that a file describes.
@lru_cache(maxsize=64)
def _parts(refusal: Refusal) -> tuple[str, str]:
    """The header lines of a refusal, and its body up to the id."""
    fields = ""
    if refusal.status is HTTPStatus.SERVICE_UNAVAILABLE:
        fields = f"Retry-After: {RETRY_AFTER_SECONDS}\r\n"
    elif refusal.status is HTTPStatus.METHOD_NOT_ALLOWED:
        fields = "Allow: POST\r\n"
    error = msgspec.json.encode({"code": refusal.code, "message": refusal.message}).decode()
    return fields, f'{{"success":false,"error":{error},"meta":{{"request_id":"'


# A second has thousands of answers.
@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
