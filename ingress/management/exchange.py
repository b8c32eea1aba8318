"""One request to Sellfern's management API, asked until it is answered, as often as may be."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import count
from random import random
from time import monotonic
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
)

from ingress.management.api_errors import (
    Answered,
    NoAnswer,
    OutcomeUnknown,
    UnreadableAnswer,
    error_class,
)
from ingress.management.journal import Pending
from shared.sellfern import identifier
from shared.sellfern.identifier import Id
from shared.settings.durations import retry_after
from shared.settings.secret import Secret

_MOST_BYTES: Final = 4 * 1024 * 1024
_SHOWN: Final = 300
_EMPTY: Final = b'{"success":true}'  # what a 204 says
# No JSON: what is too large is told as an answer in another form, whatever it holds.
_TOO_LARGE: Final = b"?"
_CONNECT_SECONDS: Final = 5.0
_LEAST_SECONDS: Final = 1.0

Form = TypeVar("Form")


@dataclass(frozen=True, slots=True)
class Access:
    """What a client needs to be let in.

    Attributes:
        url: of the API, without a slash at its end.
        key: the API key.
        organization: the one that the key belongs to.
    """

    url: str
    key: Secret
    organization: str


@dataclass(frozen=True, slots=True)
class Persistence:
    """How long a client goes on; all in seconds.

    Attributes:
        deadline: for a request with all its attempts.
        timeout: for one attempt.
        base: the bound of the delay after the first attempt.
        cap: the highest bound.
    """

    deadline: float = 60.0
    timeout: float = 15.0
    base: float = 0.5
    cap: float = 10.0

    def delay(self, attempt: int, drawn: float) -> float:
        """The delay after an attempt, from 1: exponential with full jitter.

        Args:
            attempt: how many have been made.
            drawn: evenly from 0 to 1.
        """
        return drawn * min(self.cap, self.base * 2.0 ** min(attempt - 1, 60))


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whole."""

    operation: str
    url: str
    body: Mapping[str, object] | None = None

    @property
    def method(self) -> str:
        """Such as ``GET``."""
        return self.operation.partition(" ")[0]

    @property
    def canonical(self) -> bytes:
        """The same bytes for the same request, however its fields were put together."""
        return msgspec.json.encode([self.method, self.url, self.body], order="sorted")

    @property
    def summary(self) -> str:
        """The same for people."""
        body = "" if self.body is None else f" {msgspec.json.encode(self.body).decode()}"
        return f"{self.method} {self.url}{body}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    retry_after: float | None
    body: bytes


@dataclass(frozen=True, slots=True)
class _Silence:
    """Nothing came back: why, whether the request may have arrived, whether to try again."""

    why: str
    perhaps_sent: bool = True
    passing: bool = True


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""
    details: Any = None


class _Meta(msgspec.Struct):
    request_id: str = ""


class _Body(msgspec.Struct):
    success: bool = False
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None
    meta: _Meta | None = None

    @property
    def request_id(self) -> str:
        return self.meta.request_id[:_SHOWN] if self.meta else ""


@dataclass(slots=True)
class Course:
    """How a request has gone so far.

    Attributes:
        doubtful: whether some attempt may have had an effect that isn't known.
    """

    doubtful: bool = False


class Exchange:
    """Sends requests, and reads what comes back.

    Args:
        session: makes them; see `client_session`.
        access: where, and as whom.
        persistence: how long to go on.
        told: is told on a line what is waited for.

    Attributes:
        access: the same.
    """

    def __init__(
        self,
        session: ClientSession,
        access: Access,
        persistence: Persistence,
        told: Callable[[str], None],
    ) -> None:
        self._session = session
        self.access = access
        self._persistence = persistence
        self._told = told
        # Should an answer repeat the key, then no message is to.
        self._mask = access.key.reveal().encode(), str(access.key).encode()

    async def send(self, request: Request, course: Course, entry: Pending | None = None) -> Reply:
        """Send a request until it is answered for good, or until its time is up.

        Args:
            request: which.
            course: is told whether an attempt may have had an effect that isn't known.
            entry: of the journal, whose key tells Sellfern that attempts are of one request.

        Raises:
            ApiError: it was refused, or wasn't answered in time.
        """
        deadline = monotonic() + self._persistence.deadline
        # An attempt that has no time for an answer would only cast doubt on the outcome.
        last_start = deadline - min(_LEAST_SECONDS, self._persistence.timeout)
        for attempt in count(1):
            outcome = await self._attempt(request, entry, deadline)
            if isinstance(outcome, Reply) and outcome.status < HTTPStatus.BAD_REQUEST:
                return outcome
            error = self._error(request, outcome)
            wait = self._wait(outcome, attempt)
            # Doubt stays: a later answer tells of its own attempt, not of those before it.
            course.doubtful |= _leaves_doubt(outcome)
            if wait is None and isinstance(error, Answered):
                raise error
            if wait is None or monotonic() + wait >= last_start:
                if entry is not None and course.doubtful:
                    raise OutcomeUnknown(request.operation, entry.key, str(error)) from error
                raise error
            self._told(f"{error}; trying again in {wait:.1f} s")
            await asyncio.sleep(wait)
        raise AssertionError("counting has no end")  # pragma: no cover

    async def _attempt(
        self, request: Request, entry: Pending | None, deadline: float
    ) -> Reply | _Silence:
        headers = {"x-api-key": self.access.key.reveal(), "Accept": "application/json"}
        if entry is not None:
            headers["Idempotency-Key"] = entry.key
        # Never 0, which aiohttp takes for no limit at all.
        seconds = max(0.001, min(self._persistence.timeout, deadline - monotonic()))
        try:
            async with self._session.request(
                request.method,
                request.url,
                json=request.body,
                headers=headers,
                timeout=ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS),
                allow_redirects=False,  # the key is for this host alone
            ) as response:
                after = response.headers.get("Retry-After", "").strip()
                wait = retry_after(after, datetime.now(UTC))
                return Reply(response.status, wait, await _read(response))
        except TimeoutError:
            return _Silence(f"no answer within {seconds:.1f} s")
        # Nothing was sent, and another attempt would meet the same certificate.
        except (ClientConnectorCertificateError, ClientConnectorSSLError) as exc:
            why = f"no connection that can be trusted ({type(exc).__name__})"
            return _Silence(why, perhaps_sent=False, passing=False)
        except ClientConnectorError as exc:
            why = f"no connection ({exc.os_error.strerror or type(exc.os_error).__name__})"
            return _Silence(why, perhaps_sent=False)
        except (ClientError, OSError) as exc:
            return _Silence(f"the connection was lost ({type(exc).__name__})")

    def _wait(self, outcome: Reply | _Silence, attempt: int) -> float | None:
        """Seconds until the next attempt; None where another one would be wrong."""
        drawn = self._persistence.delay(attempt, random())  # noqa: S311  # it spreads load
        if isinstance(outcome, _Silence):
            return drawn if outcome.passing else None
        if outcome.status == HTTPStatus.TOO_MANY_REQUESTS:
            return drawn if outcome.retry_after is None else outcome.retry_after
        if outcome.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # What it asks for is the least: should it name one moment to all, they still come
            # apart.
            return max(drawn, outcome.retry_after or 0.0)
        return None

    def _error(self, request: Request, outcome: Reply | _Silence) -> Answered | NoAnswer:
        if isinstance(outcome, _Silence):
            return NoAnswer(f"{request.method} {request.url}: {outcome.why}")
        body = _body_of(outcome.body.replace(*self._mask))
        error = body.error or _Error(message="an answer in another form than documented")
        return error_class(outcome.status, error.code)(
            error.message[:_SHOWN],
            status=outcome.status,
            code=error.code[:_SHOWN],
            details=error.details,
            request_id=body.request_id,
        )

    def decoded(self, reply: Reply, form: type[Form]) -> Form:
        """What a reply says, in this form.

        Raises:
            UnreadableAnswer: it says something else.
        """
        body = _body_of(reply.body or _EMPTY)
        why = "no success"
        if body.success and reply.status < HTTPStatus.MULTIPLE_CHOICES:
            try:
                return msgspec.json.decode(body.data, type=form, dec_hook=_custom)
            except msgspec.ValidationError as exc:  # names a place, never what is there
                why = str(exc)
        raise UnreadableAnswer(
            f"expected an answer as documented, got another: {why}",
            status=reply.status,
            request_id=body.request_id,
        )


def client_session() -> ClientSession:
    """A session that keeps no cookies and takes no proxy or password from the environment."""
    return ClientSession(cookie_jar=DummyCookieJar())


def _leaves_doubt(outcome: Reply | _Silence) -> bool:
    if isinstance(outcome, _Silence):
        return outcome.perhaps_sent
    return outcome.status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _custom(form: type, value: object) -> object:
    """Make an id or a secret of what was read, and take what isn't documented as it is."""
    if form is object:
        return value
    if form is Id:
        return identifier.text(value)
    if isinstance(value, str) and value:
        return Secret(value)
    raise ValueError("expected a secret that is a text")


def _body_of(content: bytes) -> _Body:
    """What an answer says; nothing where it isn't in Sellfern's shape."""
    try:
        return msgspec.json.decode(content, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Body()


async def _read(response: ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > _MOST_BYTES:
            return _TOO_LARGE
    return bytes(body)
