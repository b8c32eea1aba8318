"""The path of one event: decode, mark, judge, handle, settle."""

from collections.abc import Awaitable, Callable, Collection, Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias, final

import msgspec

from shared.endpoints.endpoint import CurrentEndpoints
from shared.errors import EnvelopeError
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue.job import Delivery, bears_digest, is_job_of, organization_of
from shared.sellfern import envelope as envelopes
from shared.sellfern.envelope import UNREADABLE, Envelope
from worker.events import Event, Organization
from worker.lifespans import Lifespan
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
from worker.pipeline.policy import Limits, Policy
from worker.pipeline.reports import Reporter
from worker.pipeline.transitions import Claim, Mark, Marked, MarkRequest, Refused, Settled
from worker.pipeline.work import Ask, Handle, Room, Settle, Work
from worker.registry import Handlers, Registration
from worker.state import State
from worker.turns import Turn, UnreadableKeyError

# Whose mark changes hands again and again must not keep a worker for ever, nor one whose handler
# writes what it reads by a way of its own. Others conflict twice at the most: there are turns.
_MOST_ROUNDS: Final = 10
# Members of enums by names of their own: Python looks them up five times as fast, once an event.
_OVERDUE: Final = Settled.OVERDUE
_UNPROVABLE: Final = Mark.UNPROVABLE
_ANOTHER_ROUND: Final = (Settled.AGAIN, Settled.CONFLICT)
_FREE: Final = (Mark.FRESH, Mark.OWN, Mark.TAKEN_OVER, Mark.UNPROVABLE)
_TAKEN: Final = (Mark.DUPLICATE, Mark.CONFLICTING)
_HELD: Final = (Mark.HELD, Mark.HELD_CONFLICTING)
_NOT_ITS_TURN: Final = (Mark.IN_LINE, Mark.LATER, Mark.SUPERSEDED)
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
        superseded: ids of the events that it stands for.
    """

    delivery: Delivery
    envelope: Envelope
    created: float
    provable_until: int
    superseded: tuple[str, ...] = ()


Walk: TypeAlias = Generator[Ask, Any, Settled | Refused]


@dataclass(frozen=True, slots=True)
class Path:
    """The way that every claimed job goes.

    It yields what it wants of others and is sent their answer, so it knows neither Redis nor the
    event loop, and reads from top to bottom. Whatever it raises, its driver makes a failed attempt.

    Attributes:
        handlers: the registry.
        listed: the events that Sellfern's API Reference lists.
        policy: the rules.
        endpoints: those of this moment, which know the organizations' settings.
        log: where handlers' loggers come from.
        report: told of conflicting events.
        read_state: reads a value of an organization's state.
        most_uncounted: bytes of a body up to which nobody asks what it takes once it is decoded.
        resources: what a lifespan has given.
        job_prefix: what the ids of all its jobs begin with: their partition's tag.
    """

    handlers: Handlers
    listed: Collection[str]
    policy: Policy
    endpoints: CurrentEndpoints
    log: FilteringBoundLogger
    report: Reporter
    read_state: ReadState
    most_uncounted: int
    resources: Callable[[Lifespan | None], Any]
    job_prefix: str

    def walk(self, work: Work) -> Walk:
        """Take a job to its end; anew while its mark or a value that was read has changed."""
        settled: Settled | Refused
        for work.rounds in range(1, _MOST_ROUNDS + 1):
            opened, turn = self._open(work), None
            if self.handlers.has_turns and type(opened) is Opened:
                turn = yield from self._turn(work, opened)
                # Cancelled meanwhile, it keeps the turn that it has: it asks for none without.
                opened = self._admit(work) or opened
            found: Registration | Handle | Outcome
            if type(opened) is Opened:
                event_id, until = opened.envelope.id, opened.provable_until
                marked = yield MarkRequest(work.claim, event_id, until, turn)
                work.is_marking = False
                judged = self._judge(work, opened, marked)
                if isinstance(judged, Settled):
                    return judged
                found = judged or self._registered(opened)
                if type(found) is Registration:
                    # What is ignored is never decoded.
                    if found.function is not None and self._needs_room(work, opened):
                        yield Room(opened.delivery.body)
                    found = self._handler(work, opened, found)
            else:
                found = opened
            outcome: Outcome = (yield found) if type(found) is Handle else found
            found = outcome  # and what was decoded goes
            settled = yield Settle(outcome)
            # It can't be applied as it is, and it couldn't the next time: an attempt that has
            # failed.
            if type(settled) is Refused:
                settled = yield Settle(Later(f"commit: {settled}"))
            if settled is _OVERDUE:
                settled = yield Settle(_overdue(outcome))
            if settled not in _ANOTHER_ROUND:
                return settled
        # Nothing is spent: neither is a failure of the handler.
        settled = yield Settle(Released())
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
        # Another round reads anew: what was read before may have changed.
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
        if work.rounds == 1 and not is_job_of(
            claim.job, delivery.organization, delivery.body, self.job_prefix
        ):
            misnamed = _misnamed(claim.job, delivery, self.job_prefix)
            if misnamed is not None:
                return misnamed
        # Beside others it may be as innocent as they are, however often that has happened.
        if claim.alone and claim.claims >= self.policy.max_claims:
            return _crashed(claim)
        if work.is_newer:
            return Waiting("newer_record", "a newer version wrote the payload", patience=None)
        return None

    def _needs_room(self, work: Work, opened: Opened) -> bool:
        """Whether to ask before it is decoded: a megabyte of JSON may be 26 of Python."""
        return len(opened.delivery.body) > self.most_uncounted and work.share is None

    def _turn(self, work: Work, opened: Opened) -> Generator[Ask, Any, Turn | None]:
        """Whose turn the event needs, if anybody's; without a key that can be read, nobody's."""
        found, envelope = self._registered(opened), opened.envelope
        rule = found.turn if type(found) is Registration else None
        if type(found) is not Registration or rule is None:
            return None
        try:
            if rule.function is None:
                return rule.of_data(envelope.data)
            if self._needs_room(work, opened):
                yield Room(opened.delivery.body)
                if work.is_cancelled:
                    return None
            data = _data(found, envelope.data)
            event = _event(opened, data, work.claim.attempts + 1)
            return rule.of_event(rule.function, event)
        except (UnreadableKeyError, *UNREADABLE) as exc:
            self.report.key_unread(work, str(exc))
            return None

    def _judge(
        self, work: Work, opened: Opened, marked: Marked | Refused
    ) -> Outcome | Settled | None:
        """Why the event must not reach a handler, or ``None``."""
        if type(marked) is Refused:
            return Later(f"mark: {marked}")
        if marked.mark in _NOT_ITS_TURN:
            return self.report.not_its_turn(work, marked)
        opened.superseded = marked.superseded
        # While the mark was on its way the worker may have been told to stop.
        if work.is_cancelled:
            return Released(in_doubt=work.in_doubt)
        if marked.mark not in _FREE:
            ended = self._judge_mark(work, opened, marked.mark)
            if ended is not None:
                return ended
        return self._judge_event(opened, marked)

    def _judge_mark(self, work: Work, opened: Opened, mark: Mark) -> Outcome | None:
        """Why its mark keeps the event from a handler, or ``None``."""
        if mark in _OTHER_BYTES:
            self.report.conflicting(work.claim, opened.envelope)
        if mark in _TAKEN:
            return Duplicate()
        if mark in _HELD:
            return Held()
        if mark is Mark.LOST:
            return Released(in_doubt=work.in_doubt)  # and is told so once more
        if mark is Mark.REVIVED:
            # A redelivery has brought it back to life, with all its attempts before it.
            work.claim.attempts = 0
        return None

    def _judge_event(self, opened: Opened, marked: Marked) -> Dead | None:
        """Why this event must not be handled, or ``None``: ownership, catalogue, age, in order."""
        envelope, delivery, limits = opened.envelope, opened.delivery, self.policy.limits
        # First, since all else would be said of an event that may be somebody else's.
        if envelope.organization_id != delivery.organization:
            return Dead(
                "organization_mismatch",
                f"signed by {delivery.organization}, but the body says {envelope.organization_id}",
            )
        if envelope.type not in self.listed:
            return Dead(
                "unavailable_event",
                f"{envelope.type} is not available in Sellfern's API Reference",
            )
        return (
            # By when it came, not by now: waiting in our queue makes no event stale.
            _judge_age(delivery.received_at / 1000 - opened.created, limits)
            # By Redis's clock, too: what only was ahead when it came, since ours was slow, is not.
            or _judge_future(opened.created - max(delivery.received_at, marked.now) / 1000, limits)
            or _judge_provability(marked, opened.created, limits)
        )

    def _registered(self, opened: Opened) -> Registration | Outcome:
        """Who handles the event, or what becomes of it without."""
        key = (opened.envelope.type, opened.delivery.organization)
        # Nearly always it has been found before, which costs no call.
        registration = self.handlers.found.get(key) or self.handlers.find(*key)
        if registration is None:
            error = f"no handler is registered for {opened.envelope.type}"
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
            data = _data(registration, envelope.data)
        except UNREADABLE as exc:
            return Dead("malformed", f"data: {exc}")
        work.handler = registration.name
        event = _event(opened, data, work.claim.attempts + 1)
        organization = self._organization(event, work, delivery)
        function = registration.function
        if registration.lender is not None:
            function = registration.taking(self.resources(registration.lifespan))
        return Handle(function, event, organization)

    def _organization(self, event: Event[Any], work: Work, delivery: Delivery) -> Organization:
        organization = event.organization_id
        profile = self.endpoints.current.organizations.get(organization)

        # Bound here, so that a handler has no way to name another organization's keys.
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
            # Made when it is asked for: most handlers log nothing.
            logger=lambda: self.log.bind(organization=organization, event_id=event.id),
            settings=profile.settings if profile else {},
        )


def walk_after_failure(error: BaseException) -> Walk:
    """What is left of a path when a step of our own has failed: so has the attempt."""
    settled: Settled | Refused = yield Settle(Later(text_of(error), failed=True))
    return settled


def _data(registration: Registration, raw: msgspec.Raw) -> Any:
    """The data as the handler wants it; mended only where it can't be read as it is."""
    try:
        return registration.data.strictly(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return registration.data.decode(raw)


def _event(opened: Opened, data: Any, attempt: int) -> Event[Any]:
    envelope, delivery = opened.envelope, opened.delivery
    return Event(
        id=envelope.id,
        type=envelope.type,
        created_at=envelope.created_at,
        organization_id=delivery.organization,
        data=data,
        raw=delivery.body,
        attempt=attempt,
        received_at=datetime.fromtimestamp(delivery.received_at / 1000, tz=UTC),
        superseded=opened.superseded,
    )


def _judge_age(age: float, limits: Limits) -> Dead | None:
    if age <= limits.max_event_age:
        return None
    return Dead(
        "stale",
        f"created {timedelta(seconds=round(age))} before it was received; "
        f"the limit is {timedelta(seconds=limits.max_event_age)}",
    )


def _judge_future(ahead: float, limits: Limits) -> Dead | None:
    if ahead <= limits.clock_skew:
        return None
    return Dead(
        "stale",
        f"created {timedelta(seconds=round(ahead))} after now, and after it was received; "
        f"clocks may be {timedelta(seconds=limits.clock_skew)} apart",
    )


def _judge_provability(marked: Marked, created: float, limits: Limits) -> Dead | None:
    """Without a mark, an old event can't be told from a finished one whose mark has expired."""
    if marked.mark is not _UNPROVABLE:
        return None
    return Dead(
        "unprovable",
        f"created {timedelta(seconds=round(marked.now / 1000 - created))} ago, longer than marks "
        f"are kept ({timedelta(seconds=limits.dedupe_retention)}): it may have been handled before",
    )


def _misnamed(job: str, delivery: Delivery, prefix: str) -> Dead | None:
    """What becomes of a delivery whose job's id isn't made of it; ``None`` for a foreign id.

    A stock producer gives its jobs any names, but for those of another organization: under such a
    one its events would take that organization's turns.
    """
    if organization_of(job, prefix) != delivery.organization:
        return Dead(
            "undecodable",
            f"expected a job id that begins with {prefix}{delivery.organization}:, as its payload "
            f"says, got {job}",
        )
    if bears_digest(job):
        return Dead("payload_changed", "the payload holds other bytes than its job's id names")
    return None


def _crashed(claim: Claim) -> Dead:
    """What is known of a job that keeps ending workers: not why, nor whether one is gone."""
    many = f"{claim.claims} claim{'' if claim.claims == 1 else 's'}"
    return Dead(
        "crashed",
        f"{many} ended without an outcome: its worker stopped renewing the lease, or ended",
    )


def _overdue(outcome: Outcome) -> Outcome:
    """Nobody was found in time who can handle it."""
    if isinstance(outcome, Waiting):
        return Dead(outcome.reason, outcome.error)
    return outcome
