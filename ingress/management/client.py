"""Asks Sellfern's management API, retrying what may be retried with one idempotency key."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import count
from random import random
from time import monotonic
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote

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
    EventUnavailable,
    IdempotencyConflict,
    NoAnswer,
    NotFound,
    OperationUnavailable,
    OutcomeUnknown,
    UnreadableAnswer,
    ValidationFailed,
    error_class,
)
from ingress.management.journal import Journal, Pending
from shared.sellfern import identifier
from shared.sellfern.identifier import Id
from shared.sellfern.reference import Reference
from shared.settings.durations import retry_after
from shared.settings.secret import Secret

LIST: Final = "GET /webhooks"
CREATE: Final = "POST /webhooks"
CHANGE: Final = "PATCH /webhooks/{id}"
REMOVE: Final = "DELETE /webhooks/{id}"
TEST: Final = "POST /webhooks/{id}/test"
DELIVERIES: Final = "GET /webhooks/{id}/deliveries"

_MOST_BYTES: Final = 4 * 1024 * 1024
_SHOWN: Final = 300
_EMPTY: Final = b'{"success":true}'  # what a 204 says
# No JSON: what is too large is told as an answer in another form, whatever it holds.
_TOO_LARGE: Final = b"?"
_CONNECT_SECONDS: Final = 5.0
_LEAST_SECONDS: Final = 1.0
# Answers that only the request itself can have led to, so an earlier attempt had no effect
# either, or Sellfern would have given its answer again.
_FINAL: Final = (ValidationFailed, NotFound, IdempotencyConflict)

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Form = TypeVar("_Form")


class RemoteEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as Sellfern has it.

    Attributes:
        id: Sellfern's.
        url: where its deliveries go.
        events: the names of the events that it gets.
        enabled: whether it gets any.
        created_at: if Sellfern tells.
        updated_at: if Sellfern tells.
    """

    id: _Name
    url: str
    events: list[str]
    enabled: bool
    created_at: datetime | None = None
    updated_at: datetime | None = None


class CreatedEndpoint(RemoteEndpoint, frozen=True, kw_only=True):
    """An endpoint that has just been created.

    Attributes:
        secret: what its deliveries are signed with, if the answer shows it.
    """

    secret: Secret | None = None


class RemoteDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery as Sellfern has it. Nothing is published on its fields, so each may be absent."""

    id: Id | None = None
    event_id: Id | None = None
    event: str | None = None
    status: str | None = None
    attempts: int | None = None
    response_status: int | None = None
    error: str | None = None
    created_at: str | None = None
    last_attempt_at: str | None = None
    next_attempt_at: str | None = None


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
class _Request:
    """One request, whole."""

    operation: str
    url: str
    body: Mapping[str, object] | None = None

    @property
    def method(self) -> str:
        return self.operation.partition(" ")[0]

    @property
    def canonical(self) -> bytes:
        """The same bytes for the same request, however its fields were put together."""
        return msgspec.json.encode([self.method, self.url, self.body], order="sorted")

    @property
    def summary(self) -> str:
        body = "" if self.body is None else f" {msgspec.json.encode(self.body).decode()}"
        return f"{self.method} {self.url}{body}"


@dataclass(frozen=True, slots=True)
class _Reply:
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
class _Course:
    """How a request has gone so far.

    Attributes:
        doubtful: whether some attempt may have had an effect that isn't known.
    """

    doubtful: bool = False


class Client:
    """Sellfern's management API, as far as the API Reference lists it.

    A change is a context manager: inside its block the change has happened and its answer is
    there; only once the block has ended does the journal forget the request. Whatever has to be
    kept of an answer (a secret is shown once) is therefore kept in the block: after a crash
    anywhere the same request gets the same answer again.

    Args:
        session: makes the requests; see `client_session`.
        access: where, and as whom.
        reference: what there is to ask for.
        journal: of the requests whose outcome isn't known.
        persistence: how long to go on.
        told: is told on a line what is waited for.
    """

    def __init__(
        self,
        session: ClientSession,
        access: Access,
        reference: Reference,
        journal: Journal,
        *,
        persistence: Persistence = Persistence(),
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._session = session
        self._access = access
        self._reference = reference
        self._journal = journal
        self._persistence = persistence
        self._told = told
        # Should an answer repeat the key, then no message is to.
        self._mask = access.key.reveal().encode(), str(access.key).encode()

    async def endpoints(self) -> list[RemoteEndpoint]:
        """The organization's endpoints.

        Raises:
            ApiError: they can't be had.
        """
        return await self._ask(LIST, list[RemoteEndpoint])

    async def deliveries(self, endpoint_id: str) -> list[RemoteDelivery]:
        """The latest deliveries to an endpoint.

        Raises:
            ApiError: they can't be had.
        """
        return await self._ask(DELIVERIES, list[RemoteDelivery], endpoint_id)

    def creating(
        self, url: str, events: Sequence[str], *, enabled: bool
    ) -> contextlib.AbstractAsyncContextManager[CreatedEndpoint]:
        """Create an endpoint.

        Raises:
            ApiError: it isn't sure to exist.
            JournalError: nothing was sent.
        """
        self.check_events(events)
        return self._changing(self._creation(url, events, enabled=enabled), CreatedEndpoint)

    def switching(
        self, endpoint_id: str, *, enabled: bool
    ) -> contextlib.AbstractAsyncContextManager[RemoteEndpoint]:
        """Enable or disable an endpoint.

        Raises:
            ApiError: it isn't sure to be done.
            JournalError: nothing was sent.
        """
        request = self._request(CHANGE, endpoint_id, {"enabled": enabled})
        return self._changing(request, RemoteEndpoint)

    @contextlib.asynccontextmanager
    async def removing(self, endpoint_id: str) -> AsyncIterator[None]:
        """Remove an endpoint; what was unknown of changes of it no longer matters then.

        Raises:
            ApiError: it isn't sure to be done.
            JournalError: nothing was sent.
        """
        async with self._changing(self._request(REMOVE, endpoint_id), object):
            yield
            for request in self._changes_of(endpoint_id):
                self._journal.drop(self._access.organization, request.operation, request.canonical)

    def testing(self, endpoint_id: str) -> contextlib.AbstractAsyncContextManager[object]:
        """Have a test delivery sent; what is answered isn't documented.

        Raises:
            ApiError: it isn't sure to be sent.
            JournalError: nothing was asked.
        """
        return self._changing(self._request(TEST, endpoint_id), object)

    def has_begun_creating(self, url: str, events: Sequence[str], *, enabled: bool) -> bool:
        """Whether this very endpoint may have been created already, outcome unknown."""
        return self._has_begun(self._creation(url, events, enabled=enabled))

    def has_begun_enabling(self, endpoint_id: str) -> bool:
        """Whether an endpoint may have been enabled already, outcome unknown."""
        return self._has_begun(self._request(CHANGE, endpoint_id, {"enabled": True}))

    def has_begun_removing(self, endpoint_id: str) -> bool:
        """Whether an endpoint may have been removed already, outcome unknown."""
        return self._has_begun(self._request(REMOVE, endpoint_id))

    def _has_begun(self, request: _Request) -> bool:
        organization = self._access.organization
        return self._journal.has_begun(organization, request.operation, request.canonical)

    async def _ask(self, operation: str, form: type[_Form], endpoint_id: str = "") -> _Form:
        request = self._request(operation, endpoint_id)
        return self._decoded(await self._send(request, _Course()), form)

    @contextlib.asynccontextmanager
    async def _changing(self, request: _Request, form: type[_Form]) -> AsyncIterator[_Form]:
        organization = self._access.organization
        entry, begun = self._journal.begin(
            organization, request.operation, request.canonical, request.summary
        )
        # An earlier process may have sent it: then a refusal of now doesn't tell what that one led
        # to.
        course = _Course(doubtful=begun)
        try:
            reply = await self._send(request, course, entry)
        except (Answered, NoAnswer) as exc:
            if isinstance(exc, _FINAL) or not course.doubtful:
                self._journal.settle(entry)
            raise
        # The journal forgets it only behind the block: whoever dies in there asks again by the same
        # key.
        yield self._decoded(reply, form)
        self._journal.settle(entry)

    def _creation(self, url: str, events: Sequence[str], *, enabled: bool) -> _Request:
        body = {"url": url, "events": list(events), "enabled": enabled}
        return self._request(CREATE, body=body)

    def _changes_of(self, endpoint_id: str) -> list[_Request]:
        """The requests that change an endpoint, but its removal."""
        bodies = {CHANGE: ({"enabled": True}, {"enabled": False}), TEST: (None,)}
        return [
            self._request(operation, endpoint_id, body)
            for operation, all_bodies in bodies.items()
            if self._reference.has_operation(operation)
            for body in all_bodies
        ]

    def _request(
        self, operation: str, endpoint_id: str = "", body: Mapping[str, object] | None = None
    ) -> _Request:
        if not self._reference.has_operation(operation):
            raise OperationUnavailable(operation)
        path = self._reference.path(operation).replace("{id}", quote(endpoint_id, safe=""))
        return _Request(operation, self._access.url + path, body)

    def check_events(self, events: Sequence[str]) -> None:
        """Return if the API Reference lists all of these events.

        Raises:
            EventUnavailable: it doesn't list one.
        """
        for event in events:
            if not self._reference.is_available(event):
                raise EventUnavailable(event)

    async def _send(
        self, request: _Request, course: _Course, entry: Pending | None = None
    ) -> _Reply:
        """Send a request until it is answered for good, or until its time is up."""
        deadline = monotonic() + self._persistence.deadline
        # An attempt that has no time for an answer would only cast doubt on the outcome.
        last_start = deadline - min(_LEAST_SECONDS, self._persistence.timeout)
        for attempt in count(1):
            outcome = await self._attempt(request, entry, deadline)
            if isinstance(outcome, _Reply) and outcome.status < HTTPStatus.BAD_REQUEST:
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
        self, request: _Request, entry: Pending | None, deadline: float
    ) -> _Reply | _Silence:
        headers = {"x-api-key": self._access.key.reveal(), "Accept": "application/json"}
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
                return _Reply(response.status, wait, await _read(response))
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

    def _wait(self, outcome: _Reply | _Silence, attempt: int) -> float | None:
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

    def _error(self, request: _Request, outcome: _Reply | _Silence) -> Answered | NoAnswer:
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

    def _decoded(self, reply: _Reply, form: type[_Form]) -> _Form:
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


def _leaves_doubt(outcome: _Reply | _Silence) -> bool:
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
