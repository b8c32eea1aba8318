"""The public site: one answer for every request, whatever happens to it, told in moderation."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from http import HTTPStatus
from secrets import token_hex
from time import monotonic, perf_counter
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong

from ingress.clients import Network, client_address
from ingress.http import answers
from ingress.http.answers import BAD_REQUEST, HEADERS_TOO_LARGE, INTERNAL_ERROR, Refusal, Refused
from ingress.http.connection import Connection
from ingress.http.receive import Receiver, endpoint_id
from shared.errors import SignatureError, Unavailable
from shared.observe import metrics
from shared.observe.logs import get_logger
from shared.observe.tally import Count
from shared.queue.writer import Accepted

DIGEST_LENGTH: Final = 12
"""Characters of a body's digest in a line: enough to tell two apart, too few to be the body's."""

_REQUEST_ID_BYTES: Final = 16  # random, as in a UUID, whose class takes four times as long

LINES_A_SECOND: Final = 10
"""Refusals of one kind that are logged in one second; nobody is to fill the disk."""

_SHOWN_LENGTH: Final = 64


def counter(outcome: str) -> Count:
    """The counter of the requests that ended so."""
    return metrics.INGRESS_REQUESTS.labels(outcome)


_ACCEPTED: Final = {
    Accepted.NEW: counter("accepted"),
    Accepted.KNOWN: counter("known"),
}
# Nearly every one: found without a look at a table, whose keys Python would have to hash.
_NEW: Final = Accepted.NEW
_COUNT_NEW: Final = _ACCEPTED[_NEW]
_log = get_logger()


class Site:
    """Answers requests, and what never became one.

    Args:
        receiver: takes deliveries in.
        trusted: the proxies whose word is taken for the address of a client.
    """

    def __init__(self, receiver: Receiver, trusted: Sequence[Network] = ()) -> None:
        self._receiver = receiver
        self._trusted = trusted
        self._refusals = Refusals()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; never raises but when it is cancelled."""
        started = perf_counter()
        request_id = token_hex(_REQUEST_ID_BYTES)
        response = await self._respond(request, request_id)
        is_unread = not request.content.is_eof()
        connection = request.protocol
        is_ending = isinstance(connection, Connection) and connection.is_ending
        if is_unread or is_ending:
            response.force_close()
            if is_unread or response.status == HTTPStatus.BAD_REQUEST:
                _leave_unread(request)
        metrics.INGRESS_DURATION.observe(perf_counter() - started)
        return response

    def refused(self, refusal: Refusal) -> bytes:
        """Note the refusal of a connection; the answer as bytes."""
        request_id = token_hex(_REQUEST_ID_BYTES)
        self._refusals.note(refusal, request_id)
        return answers.Rejection(refusal, request_id).rendered(HttpVersion11, is_kept=False)

    def refused_at_once(self, request: web.BaseRequest, body: bytes) -> bytes | None:
        """Note the refusal of a request that has come whole; the answer, None where it isn't."""
        started = perf_counter()
        # No task was made, and none will be: this answers what `answer` would, in the same words.
        signed = None
        try:
            self._receiver.judge(request, body)
        except Refused as exc:
            refusal = exc.refusal
        except SignatureError as exc:
            refusal, signed = answers.unauthorized(exc), exc.body
        except Exception:  # noqa: BLE001  # `answer` will tell
            return None
        else:
            return None
        request_id = token_hex(_REQUEST_ID_BYTES)
        self._note(refusal, request_id, request, signed, {})
        # Who calls this has made sure that the connection goes on.
        raw = answers.Rejection(refusal, request_id).rendered(request.version, is_kept=True)
        metrics.INGRESS_DURATION.observe(perf_counter() - started)
        return raw

    def failed(self, status: HTTPStatus, exc: BaseException | None) -> web.StreamResponse:
        """Note what aiohttp couldn't parse or hand over; the answer to it."""
        refusal = _misfit(status, exc)
        request_id = token_hex(_REQUEST_ID_BYTES)
        more = _fault(exc) if refusal is INTERNAL_ERROR else {"error": type(exc).__name__}
        self._refusals.note(refusal, request_id, **more)
        return answers.Rejection(refusal, request_id)

    async def _respond(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        more: dict[str, object] = {}
        body = None
        try:
            accepted = await self._receiver.receive(request)
        except Refused as exc:
            refusal = exc.refusal
        except SignatureError as exc:
            refusal, body = answers.unauthorized(exc), exc.body
        except Unavailable as exc:
            refusal = answers.unavailable(exc)
        except Exception as exc:  # noqa: BLE001  # the sender is to try again, whatever it was
            refusal = INTERNAL_ERROR
            more |= _fault(exc)
        else:
            (_COUNT_NEW if accepted is _NEW else _ACCEPTED[accepted]).total += 1
            _log.debug("delivery_accepted", request_id=request_id, status=accepted.value)
            return answers.Success(accepted, request_id)
        self._note(refusal, request_id, request, body, more)
        return answers.Rejection(refusal, request_id)

    def _note(
        self,
        refusal: Refusal,
        request_id: str,
        request: web.BaseRequest,
        body: bytes | None,
        more: Mapping[str, object],
    ) -> None:
        self._refusals.note(
            refusal,
            request_id,
            endpoint=endpoint_id(request),
            # A callback: in a flood nearly all are only counted, and a digest costs more than that.
            details=lambda: self._details(request, body),
            **more,
        )

    def _details(self, request: web.BaseRequest, body: bytes | None) -> dict[str, object]:
        """Who sent it; and what its sender may compare, should something on the way change it."""
        details: dict[str, object] = {"client": client_address(request, self._trusted)}
        if body is not None:
            digest = sha256(body).hexdigest()[:DIGEST_LENGTH]
            details |= {"body_bytes": len(body), "body_sha256": digest}
        return details


def _leave_unread(request: web.BaseRequest) -> None:
    """Have the rest dropped, which aiohttp would go on to parse.

    Nobody needs a refused body, nor can say where a request ends whose body may end in two places.
    """
    if isinstance(request.protocol, Connection):
        request.protocol.is_left_unread = True


def _misfit(status: HTTPStatus, exc: BaseException | None) -> Refusal:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return INTERNAL_ERROR
    return HEADERS_TOO_LARGE if isinstance(exc, LineTooLong) else BAD_REQUEST


def _fault(exc: BaseException | None) -> dict[str, object]:
    """Tell where an exception came from, without its text: that may quote the request."""
    frames = traceback.format_tb(exc.__traceback__) if exc is not None else []
    return {"error": type(exc).__name__, "traceback": "".join(frames)}


class Refusals:
    """Counts every refusal and logs some of each second.

    What clients do wrong and what goes wrong here have a budget each, so that a flood of the one
    doesn't hide the other.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._theirs = _Budget(clock)
        self._ours = _Budget(clock)

    def note(
        self,
        refusal: Refusal,
        request_id: str,
        *,
        endpoint: str | None = None,
        details: Callable[[], Mapping[str, object]] = dict,
        **more: object,
    ) -> None:
        """Take one refusal down.

        Args:
            refusal: why it was refused.
            request_id: as in the answer.
            endpoint: the last part of the URL, as the client wrote it.
            details: gives further fields that take a while to tell; asked for only where the
                refusal is logged.
            more: further fields; nothing of a body, a header or a secret.
        """
        counter(refusal.code).inc()
        is_ours = refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if is_ours:
            metrics.INGRESS_UNAVAILABLE.inc()
        # Counted in any case; only the lines have a budget.
        suppressed = (self._ours if is_ours else self._theirs).spend()
        if suppressed is None:
            return
        if suppressed:
            more["suppressed"] = suppressed
        if endpoint is not None:
            # The client has written it, as long as it liked.
            more["endpoint"] = endpoint[:_SHOWN_LENGTH]
        _log.warning(
            "delivery_refused",
            status=int(refusal.status),
            code=refusal.code,
            request_id=request_id,
            **more,
            **details(),
        )


class _Budget:
    """So many lines a second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second = -1
        self._spent = 0
        self._suppressed = 0

    def spend(self) -> int | None:
        """How many lines were suppressed before this one; None where this one is, too."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._spent = second, 0
        self._spent += 1
        if self._spent > LINES_A_SECOND:
            self._suppressed += 1
            return None
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
