"""The path of one event: decode, mark, judge, handle, settle."""

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, final

import msgspec

from shared.endpoints.endpoint import OrganizationProfile
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue import keys
from shared.queue.job import Delivery
from shared.sellfern.envelope import Envelope
from shared.sellfern.reference import Reference
from worker.events import Event, Organization
from worker.outcomes import (
    Dead,
    Done,
    Duplicate,
    Held,
    Later,
    Outcome,
    Released,
    Waiting,
    text_of,
)
from worker.pipeline import judgement, memory
from worker.pipeline.reports import Report
from worker.pipeline.settlements import Settlements
from worker.pipeline.transitions import (
    Claim,
    Mark,
    Marked,
    MarkRequest,
    Refused,
    Settled,
    Settlement,
)
from worker.pipeline.work import Work
from worker.registry import HandlerFunction, Handlers, Registration
from worker.state import State

_MOST_ROUNDS: Final = 10
# Members of enums by names of their own: Python looks them up five times as fast, once an event.
_OVERDUE: Final = Settled.OVERDUE
_ANOTHER_ROUND: Final = (Settled.AGAIN, Settled.CONFLICT)
_FREE: Final = (Mark.FRESH, Mark.OWN, Mark.TAKEN_OVER, Mark.UNPROVABLE)
_TAKEN: Final = (Mark.DUPLICATE, Mark.CONFLICTING)
_HELD: Final = (Mark.HELD, Mark.HELD_CONFLICTING)
_OTHER_BYTES: Final = (Mark.CONFLICTING, Mark.HELD_CONFLICTING)

ReadState: TypeAlias = Callable[[str, str], Awaitable[bytes | None]]
"""Reads an organization's raw value by its key; to be awaited."""


@final
class Opened(msgspec.Struct, gc=False):
    """A job that can be read: what came, its envelope, its creation in epoch seconds."""

    delivery: Delivery
    envelope: Envelope
    created: float


@final
class Room(msgspec.Struct, gc=False):
    """Wanted: so many bytes of memory. The answer is that they are there, or work is cancelled."""

    size: int


@final
class Handle(msgspec.Struct, gc=False):
    """Wanted: the handler is run. The answer is its outcome."""

    function: HandlerFunction
    event: Event[Any]
    organization: Organization


@final
class Settle(msgspec.Struct, gc=False):
    """Wanted: an outcome is committed. The answer is what Redis made of it."""

    outcome: Outcome
    settlement: Settlement


Ask: TypeAlias = MarkRequest | Room | Handle | Settle
Walk: TypeAlias = Generator[Ask, Any, Settled | Refused]


@dataclass(frozen=True, slots=True)
class Path:
    """The way that every claimed job goes.

    It yields what it wants of others and is sent their answer, so it knows neither Redis nor the
    event loop, and reads from top to bottom. Whatever it raises, its driver makes a failed attempt.

    Attributes:
        handlers: the registry.
        reference: the events that Sellfern's API Reference lists.
        settlements: turns outcomes into what Redis is asked; has the rules.
        profiles: what the endpoints file says now, by organization.
        log: where handlers' loggers come from.
        report: told of conflicting events.
        read_state: reads a value of an organization's state.
        most_uncounted: bytes of a body up to which nobody asks what it takes once it is decoded.
    """

    handlers: Handlers
    reference: Reference
    settlements: Settlements
    profiles: Callable[[], Mapping[str, OrganizationProfile]]
    log: FilteringBoundLogger
    report: Report
    read_state: ReadState
    most_uncounted: int

    def walk(self, work: Work) -> Walk:
        """Take a job to its end; anew while its mark or a value that was read has changed."""
        for work.rounds in range(1, _MOST_ROUNDS + 1):
            opened = self._open(work)
            found: Registration | Handle | Outcome
            if type(opened) is Opened:
                marked = yield self._mark_request(work, opened)
                found = self._judge(work, opened, marked) or self._registered(opened)
                if type(found) is Registration:
                    body = opened.delivery.body
                    if len(body) > self.most_uncounted and found.function is not None:
                        yield Room(memory.estimate(body))
                    found = self._handler(work, opened, found)
            else:
                found = opened
            outcome: Outcome = (yield found) if type(found) is Handle else found
            found = outcome  # and what was decoded goes
            settled: Settled | Refused = yield self._settle(work, outcome)
            if type(settled) is Refused:
                settled = yield self._settle(work, Later(f"commit: {settled}"))
            if settled is _OVERDUE:
                settled = yield self._settle(work, _overdue(outcome))
            if settled not in _ANOTHER_ROUND:
                return settled
        settled = yield self._settle(work, Later("the state kept changing before the commit"))
        return settled

    def walk_after_failure(self, work: Work, error: BaseException) -> Walk:
        """What is left of the path when a step of our own has failed: so has the attempt."""
        settled: Settled | Refused = yield self._settle(work, Later(text_of(error), failed=True))
        return settled

    # The steps

    def _admit(self, work: Work) -> Outcome | None:
        """Why the job must not even be looked into, or ``None``."""
        if work.is_cancelled:
            return Released(in_doubt=work.in_doubt)
        if not work.has_payload:
            return Dead("payload_lost", "the payload of an accepted event is gone from Redis")
        return None

    def _open(self, work: Work) -> Opened | Outcome:
        """What it is about, up to its envelope; or why it goes no further."""
        work.state = None
        refused, delivery = self._admit(work), work.delivery
        if refused is not None:
            return refused
        if delivery is None:
            return Dead("undecodable", "the payload is not a record that this version reads")
        unfit = self._unfit(work, delivery)
        if unfit is not None:
            return unfit
        if work.is_newer:
            return Waiting("newer_record", "a newer version wrote the payload", patience=None)
        envelope = judgement.decode(delivery.body)
        if type(envelope) is Dead:
            return envelope
        work.envelope = envelope
        return Opened(delivery, envelope, envelope.created_at.timestamp())

    def _unfit(self, work: Work, delivery: Delivery) -> Dead | None:
        """Why its name or its past keeps it from a handler, or ``None``."""
        job = work.claim.job
        if work.rounds == 1 and not keys.is_job_of(job, delivery.organization, delivery.body):
            if keys.organization_of(job) != delivery.organization:
                return Dead("undecodable", _mislabelled(work.claim, delivery))
            if keys.bears_digest(job):
                changed = "the payload holds other bytes than its job's id names"
                return Dead("payload_changed", changed)
        # Beside others it may be as innocent as they are, however often that has happened.
        if work.claim.alone and work.claim.claims >= self.settlements.policy.max_claims:
            return Dead("crashed", _crashed(work.claim))
        return None

    def _mark_request(self, work: Work, opened: Opened) -> MarkRequest:
        until = judgement.provable_until(opened.created, self.settlements.policy.limits)
        return MarkRequest(work.claim, opened.envelope.id, until)

    def _judge(self, work: Work, opened: Opened, marked: Marked | Refused) -> Outcome | None:
        """Why the event must not reach a handler, or ``None``."""
        if type(marked) is Refused:
            return Later(f"mark: {marked}")
        if work.is_cancelled:
            return Released(in_doubt=work.in_doubt)
        if marked.mark not in _FREE:
            if marked.mark in _OTHER_BYTES:
                self.report.conflicting(work.claim, opened.envelope)
            if marked.mark in _TAKEN:
                return Duplicate()
            if marked.mark in _HELD:
                return Held()
            if marked.mark is Mark.LOST:
                return Released(in_doubt=work.in_doubt)  # and is told so once more
            if marked.mark is Mark.REVIVED:
                work.claim.attempts = 0
        return judgement.judge(
            opened.envelope,
            organization=opened.delivery.organization,
            created=opened.created,
            received_at=opened.delivery.received_at,
            marked=marked,
            reference=self.reference,
            limits=self.settlements.policy.limits,
        )

    def _registered(self, opened: Opened) -> Registration | Outcome:
        """Who handles the event, or what becomes of it without."""
        event_type = opened.envelope.type
        registration = self.handlers.find(event_type, opened.delivery.organization)
        if registration is None:
            error = f"no handler is registered for {event_type}"
            return Waiting("no_handler", error, self.settlements.policy.no_handler_patience)
        return registration

    def _handler(self, work: Work, opened: Opened, registration: Registration) -> Handle | Outcome:
        """The handler with what it gets, or what becomes of the event without."""
        if registration.function is None:
            return Done()
        if work.is_cancelled:  # while it waited for memory
            return Released(in_doubt=work.in_doubt)
        envelope, delivery = opened.envelope, opened.delivery
        try:
            data = registration.data.decode(envelope.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            return Dead("malformed", f"data: {exc}")
        work.handler = registration.name
        event = _event(envelope, delivery, data, work.claim.attempts + 1)
        organization = self._organization(event, work, delivery)
        return Handle(registration.function, event, organization)

    def _organization(self, event: Event[Any], work: Work, delivery: Delivery) -> Organization:
        organization = event.organization_id
        profile = self.profiles().get(organization)

        async def read(key: str) -> bytes | None:
            return await self.read_state(organization, key)

        work.state = State(
            read,
            event_id=event.id,
            received_at=delivery.received_at,
            tombstone=self.settlements.policy.limits.dedupe_retention,
        )
        return Organization(
            id=organization,
            state=work.state,
            logger=lambda: self.log.bind(organization=organization, event_id=event.id),
            settings=profile.settings if profile else {},
        )

    def _settle(self, work: Work, outcome: Outcome) -> Settle:
        outcome = self.settlements.final(work, outcome)
        work.leave_slot()
        return Settle(outcome, self.settlements.of(work, outcome))


def _event(envelope: Envelope, delivery: Delivery, data: Any, attempt: int) -> Event[Any]:
    return Event(
        id=envelope.id,
        type=envelope.type,
        created_at=envelope.created_at,
        organization_id=delivery.organization,
        data=data,
        raw=delivery.body,
        attempt=attempt,
        received_at=datetime.fromtimestamp(delivery.received_at / 1000, tz=UTC),
    )


def _mislabelled(claim: Claim, delivery: Delivery) -> str:
    """A job of a stock producer whose id would take it into another organization's names."""
    return (
        f"expected a job id that begins with {delivery.organization}:, as its payload says, "
        f"got {claim.job}"
    )


def _crashed(claim: Claim) -> str:
    """What is known: not why, nor whether the worker is gone."""
    many = f"{claim.claims} claim{'' if claim.claims == 1 else 's'}"
    return f"{many} ended without an outcome: its worker stopped renewing the lease, or ended"


def _overdue(outcome: Outcome) -> Outcome:
    """Nobody was found in time who can handle it."""
    if isinstance(outcome, Waiting):
        return Dead(outcome.reason, outcome.error)
    return outcome
