"""Asks Sellfern's management API, retrying what may be retried with one idempotency key."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final
from urllib.parse import quote

import msgspec

from ingress.management.api_errors import (
    Answered,
    EventUnavailable,
    IdempotencyConflict,
    NoAnswer,
    NotFound,
    OperationUnavailable,
    ValidationFailed,
)
from ingress.management.exchange import Course, Exchange, Form, Request
from ingress.management.journal import Journal
from shared.sellfern.identifier import Id
from shared.sellfern.reference import Reference
from shared.settings.secret import Secret

LIST: Final = "GET /webhooks"
CREATE: Final = "POST /webhooks"
CHANGE: Final = "PATCH /webhooks/{id}"
REMOVE: Final = "DELETE /webhooks/{id}"
TEST: Final = "POST /webhooks/{id}/test"
DELIVERIES: Final = "GET /webhooks/{id}/deliveries"

# Answers that only the request itself can have led to, so an earlier attempt had no effect
# either, or Sellfern would have given its answer again.
_FINAL: Final = (ValidationFailed, NotFound, IdempotencyConflict)

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


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


class Client:
    """Sellfern's management API, as far as the API Reference lists it.

    A change is a context manager: inside its block the change has happened and its answer is
    there; only once the block has ended does the journal forget the request. Whatever has to be
    kept of an answer (a secret is shown once) is therefore kept in the block: after a crash
    anywhere the same request gets the same answer again.

    Args:
        exchange: sends the requests.
        reference: what there is to ask for.
        journal: of the requests whose outcome isn't known.
    """

    def __init__(self, exchange: Exchange, reference: Reference, journal: Journal) -> None:
        self._exchange = exchange
        self._access = exchange.access
        self._reference = reference
        self._journal = journal

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

    def _has_begun(self, request: Request) -> bool:
        organization = self._access.organization
        return self._journal.has_begun(organization, request.operation, request.canonical)

    async def _ask(self, operation: str, form: type[Form], endpoint_id: str = "") -> Form:
        request = self._request(operation, endpoint_id)
        return self._exchange.decoded(await self._exchange.send(request, Course()), form)

    @contextlib.asynccontextmanager
    async def _changing(self, request: Request, form: type[Form]) -> AsyncIterator[Form]:
        organization = self._access.organization
        entry, begun = self._journal.begin(
            organization, request.operation, request.canonical, request.summary
        )
        # An earlier process may have sent it: then a refusal of now doesn't tell what that one led
        # to.
        course = Course(doubtful=begun)
        try:
            reply = await self._exchange.send(request, course, entry)
        except (Answered, NoAnswer) as exc:
            if isinstance(exc, _FINAL) or not course.doubtful:
                self._journal.settle(entry)
            raise
        # The journal forgets it only behind the block: whoever dies in there asks again by the same
        # key.
        yield self._exchange.decoded(reply, form)
        self._journal.settle(entry)

    def _creation(self, url: str, events: Sequence[str], *, enabled: bool) -> Request:
        body = {"url": url, "events": list(events), "enabled": enabled}
        return self._request(CREATE, body=body)

    def _changes_of(self, endpoint_id: str) -> list[Request]:
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
    ) -> Request:
        if not self._reference.has_operation(operation):
            raise OperationUnavailable(operation)
        path = self._reference.path(operation).replace("{id}", quote(endpoint_id, safe=""))
        return Request(operation, self._access.url + path, body)

    def check_events(self, events: Sequence[str]) -> None:
        """Return if the API Reference lists all of these events.

        Raises:
            EventUnavailable: it doesn't list one.
        """
        for event in events:
            if not self._reference.is_available(event):
                raise EventUnavailable(event)
