"""The path of one event: decode, mark, judge, handle, settle."""

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, final

import msgspec

from shared.endpoints.endpoint import CurrentEndpoints
from shared.errors import EnvelopeError
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue import keys
from shared.queue.job import Delivery
from shared.sellfern import envelope as envelopes
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
from worker.pipeline import judgement
from worker.pipeline.policy import Policy
from worker.pipeline.reports import Report
from worker.pipeline.transitions import (
    Mark,
    Marked,
    MarkRequest,
    Refused,
    Settled,
    Settlement,
    pack,
)
from worker.pipeline.work import Ask, Handle, Room, Settle, Work
from worker.registry import Handlers, Registration
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
    """A job that can be read.

    Attributes:
        delivery: what came.
        envelope: what its body claims.
        created: when its event was, epoch seconds.
        provable_until: until when, in epoch milliseconds, its mark would be there were it done.
    """

    delivery: Delivery
    envelope: Envelope
    created: float
    provable_until: int


Walk: TypeAlias = Generator[Ask, Any, Settled | Refused]


@dataclass(frozen=True, slots=True)
class Path:
    """The way that every claimed job goes.

    It yields what it wants of others and is sent their answer, so it knows neither Redis nor the
    event loop, and reads from top to bottom. Whatever it raises, its driver makes a failed attempt.

    Attributes:
        handlers: the registry.
        reference: the events that Sellfern's API Reference lists.
        policy: the rules.
        random: draws evenly from 0 to 1.
        endpoints: those of this moment, which know the organizations' settings.
        log: where handlers' loggers come from.
        report: told of conflicting events.
        read_state: reads a value of an organization's state.
        most_uncounted: bytes of a body up to which nobody asks what it takes once it is decoded.
    """

    handlers: Handlers
    reference: Reference
    policy: Policy
    random: Callable[[], float]
    endpoints: CurrentEndpoints
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
                marked = yield MarkRequest(work.claim, opened.envelope.id, opened.provable_until)
                found = self._judge(work, opened, marked) or self._registered(opened)
                if type(found) is Registration:
                    body = opened.delivery.body
                    if len(body) > self.most_uncounted and found.function is not None:
                        yield Room(body)
                    found = self._handler(work, opened, found)
            else:
                found = opened
            outcome: Outcome = (yield found) if type(found) is Handle else found
            found = outcome  # and what was decoded goes
            settled: Settled | Refused = yield self.settle(work, outcome)
            if type(settled) is Refused:
                settled = yield self.settle(work, Later(f"commit: {settled}"))
            if settled is _OVERDUE:
                settled = yield self.settle(work, _overdue(outcome))
            if settled not in _ANOTHER_ROUND:
                return settled
        settled = yield self.settle(work, Later("the state kept changing before the commit"))
        return settled

    def walk_after_failure(self, work: Work, error: BaseException) -> Walk:
        """What is left of the path when a step of our own has failed: so has the attempt."""
        settled: Settled | Refused = yield self.settle(work, Later(text_of(error), failed=True))
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
        try:
            work.envelope = envelope = envelopes.decode(delivery.body)
        except EnvelopeError as exc:
            return Dead("malformed", str(exc))
        created, limits = envelope.created_at.timestamp(), self.policy.limits
        # A mark is kept for the retention from the event's end, which isn't before its creation.
        until = round((created + limits.dedupe_retention - limits.clock_skew) * 1000)
        return Opened(delivery, envelope, created, until)

    def _unfit(self, work: Work, delivery: Delivery) -> Outcome | None:
        """Why its name or its past keeps it from a handler, or ``None``."""
        claim = work.claim
        # Once is enough: another round is about the same bytes.
        if work.rounds == 1 and not keys.is_job_of(claim.job, delivery.organization, delivery.body):
            misnamed = judgement.of_misnamed(claim.job, delivery)
            if misnamed is not None:
                return misnamed
        # Beside others it may be as innocent as they are, however often that has happened.
        if claim.alone and claim.claims >= self.policy.max_claims:
            return judgement.of_crashed(claim)
        if work.is_newer:
            return Waiting("newer_record", "a newer version wrote the payload", patience=None)
        return None

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
            limits=self.policy.limits,
        )

    def _registered(self, opened: Opened) -> Registration | Outcome:
        """Who handles the event, or what becomes of it without."""
        event_type = opened.envelope.type
        registration = self.handlers.find(event_type, opened.delivery.organization)
        if registration is None:
            error = f"no handler is registered for {event_type}"
            return Waiting("no_handler", error, self.policy.no_handler_patience)
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
        profile = self.endpoints.current.organizations().get(organization)

        async def read(key: str) -> bytes | None:
            return await self.read_state(organization, key)

        work.state = State(
            read,
            event_id=event.id,
            received_at=delivery.received_at,
            tombstone=self.policy.limits.dedupe_retention,
        )
        return Organization(
            id=organization,
            state=work.state,
            logger=lambda: self.log.bind(organization=organization, event_id=event.id),
            settings=profile.settings if profile else {},
        )

    # The end: what Redis is asked to make of the job

    def settle(self, work: Work, outcome: Outcome) -> Settle:
        """What is wanted for an outcome, or for the one that counts in its place."""
        outcome = self._final(work, outcome)
        settlement = self._settlement(work, outcome)
        settlement.packed = pack(settlement.details)  # here, since batches are bounded by bytes
        return Settle(outcome, settlement)

    def _final(self, work: Work, outcome: Outcome) -> Outcome:
        """The outcome that counts: a last attempt, or a second one that blocked, buries it."""
        if type(outcome) is Released:  # a handler that was cancelled doesn't say why
            return Released(in_doubt=outcome.in_doubt or work.in_doubt)
        if type(outcome) is not Later:
            return outcome
        if outcome.blocked and work.claim.blocked:
            return Dead("blocked", outcome.error, attempted=True, failed=outcome.failed)
        if work.claim.attempts + 1 >= self.policy.max_attempts:
            return Dead("exhausted", outcome.error, attempted=True, failed=outcome.failed)
        return outcome

    def _settlement(self, work: Work, outcome: Outcome) -> Settlement:
        """The verb of ``settle.lua`` with its details."""
        match outcome:
            case Done():
                return Settlement(work.claim, "done", self._commit(work.state))
            case Later():
                return Settlement(work.claim, "retry", self._retry(work, outcome))
            case Dead():
                details = (*_burial(work, outcome), self._breaker(outcome))
                return Settlement(work.claim, "dead", details)
            case Waiting(reason=reason, patience=patience):
                longest = None if patience is None else round(patience * 1000)
                return Settlement(work.claim, "wait", (reason, longest))
            case Duplicate() | Held():
                return Settlement(work.claim, "hold" if outcome == Held() else "duplicate")
            case Released(in_doubt=in_doubt):
                return Settlement(work.claim, "abandon" if in_doubt else "release")

    def _commit(self, state: State | None) -> tuple[Any, ...]:
        retention = round(self.policy.limits.dedupe_retention * 1000)
        if state is None:
            return (retention, (), (), False)
        # The script unpacks details that are equal once: what changes nothing needs no received-at.
        received_at = state.received_at if state.operations else 0
        reads, operations = tuple(state.reads.items()), tuple(state.operations)
        return (retention, reads, operations, True, received_at)

    def _retry(self, work: Work, outcome: Later) -> tuple[Any, ...]:
        after = outcome.after
        if after is None:
            after = self.policy.backoff.delay(work.claim.attempts + 1, self.random)
        details = (round(after * 1000), self._breaker(outcome))
        return (*details, True) if outcome.blocked else details

    def _breaker(self, outcome: Later | Dead) -> tuple[Any, ...] | None:
        """What the script needs to judge the organization by; nothing unless a handler failed."""
        return self.policy.breaker.packed() if outcome.failed else None


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


def _overdue(outcome: Outcome) -> Outcome:
    """Nobody was found in time who can handle it."""
    if isinstance(outcome, Waiting):
        return Dead(outcome.reason, outcome.error)
    return outcome


def _burial(work: Work, dead: Dead) -> tuple[Any, ...]:
    delivery = work.delivery
    return (
        dead.reason,
        dead.error.encode(errors="backslashreplace").decode(),  # Lua takes no half of a surrogate
        work.type,
        delivery.endpoint if delivery else "",
        delivery.received_at if delivery else 0,
        dead.attempted,
    )
