"""What happens to one claimed job: decode, mark, judge, handle, settle."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from time import perf_counter, time
from typing import Any, Final, cast

import msgspec
from structlog.typing import FilteringBoundLogger

from shared import keys
from shared.endpoints import OrganizationProfile
from shared.errors import Unavailable
from shared.group_commit import resolve
from shared.job import Delivery
from shared.sellfern.envelope import Envelope
from shared.sellfern.reference import Reference
from worker import judgement
from worker.backoff import Backoff
from worker.breaker import Breaker
from worker.events import Event
from worker.ledger import Ledger
from worker.organization import Organization
from worker.outcomes import Dead, Done, Duplicate, Later, Outcome, Reject, Released, Retry
from worker.registry import HandlerFunction, Handlers
from worker.reports import Report
from worker.state import State
from worker.time_limit import TimeLimit, TimeLimits
from worker.transitions import Claim, Mark, Marked, MarkRequest, Refused, Settled, Settlement
from worker.work import Work

_MOST_ROUNDS = 10
_MOST_ERROR_CHARACTERS = 2000
_ANOTHER_ROUND: Final = (Settled.AGAIN, Settled.CONFLICT)


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of handling.

    Attributes:
        limits: of an event's age.
        handler_timeout: seconds that one attempt may take.
        max_attempts: attempts before the dead letter.
        max_claims: claims without an outcome before the job counts as one that kills workers.
        backoff: the delay between attempts.
        breaker: when an organization's events wait because its handlers keep failing.
    """

    limits: judgement.Limits
    handler_timeout: float
    max_attempts: int
    max_claims: int
    backoff: Backoff
    breaker: Breaker


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Takes claimed jobs to their end.

    Attributes:
        ledger: Redis, in batches.
        handlers: the registry.
        reference: the events that Sellfern's API Reference lists.
        policy: the rules.
        profiles: what the endpoints file says now, by organization.
        log: where handlers' loggers come from.
        report: told of every end.
        random: draws evenly from 0 to 1.
    """

    ledger: Ledger
    handlers: Handlers
    reference: Reference
    policy: Policy
    profiles: Callable[[], Mapping[str, OrganizationProfile]]
    log: FilteringBoundLogger
    report: Report
    random: Callable[[], float] = field(default=random.random)
    _limits: TimeLimits = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_limits", TimeLimits(self.policy.handler_timeout))

    async def run(self, claim: Claim, delivery: Delivery | None) -> Settled:
        """Handle one claimed job and settle it.

        Raises:
            Unavailable: Redis stayed away; nothing was settled and the lease brings it back.
            asyncio.CancelledError: the worker stops; the job has been given back.
        """
        end: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        work = Work(claim, delivery, partial(resolve, end))
        self.start(work)
        try:
            return await asyncio.shield(end)
        except asyncio.CancelledError:
            work.cancel()
            with contextlib.suppress(Unavailable):  # the lease gives it back all the same
                await end
            raise

    def start(self, work: Work) -> None:
        """Handle a claimed job and settle it; `Work.ended` is told.

        No step waits: what Redis answers and what the handler returns call the next one. A task is
        made for the handler only, since tasks and futures would cost more than all other steps.
        """
        self._begin_round(work)

    def _begin_round(self, work: Work) -> None:
        """The first one, or another: the mark changed hands, or a value that the handler read."""
        work.rounds += 1
        work.state = None
        try:
            dead = self._decode(work)
            if work.is_cancelled:
                self._settle(work, Released())
            elif dead is not None:
                self._settle(work, dead)
            else:
                self._mark(work)
        except Exception as exc:  # noqa: BLE001  whatever one event does, it must be told
            work.ended(exc)

    def _decode(self, work: Work) -> Dead | None:
        """Learn what it is about, up to its envelope."""
        if work.delivery is None:
            return Dead("undecodable", "the payload is not a record that this version reads")
        if keys.organization_of(work.claim.job) != work.delivery.organization:
            return Dead("undecodable", _mislabelled(work.claim, work.delivery))
        if work.claim.claims >= self.policy.max_claims:
            return Dead("crashed", f"{work.claim.claims} workers went away while they had it")
        decoded = judgement.decode(work.delivery.body)
        if isinstance(decoded, Dead):
            return decoded
        work.envelope = decoded
        return None

    def _mark(self, work: Work) -> None:
        envelope = cast("Envelope", work.envelope)
        until = judgement.provable_until(envelope, self.policy.limits)
        request = MarkRequest(work.claim, envelope.id, until)
        self.ledger.post_mark(request, partial(self._marked, work))

    def _marked(self, work: Work, marked: Marked | Exception) -> None:
        try:
            outcome = self._judge(work, marked)
            if outcome is None:
                self._hand_over(work)
            else:
                self._settle(work, outcome)
        except Exception as exc:  # noqa: BLE001  as in `_begin_round`
            work.ended(exc)

    def _judge(self, work: Work, marked: Marked | Exception) -> Outcome | None:
        """Why the event must not reach a handler, or ``None``."""
        if isinstance(marked, Refused):
            return Later(f"mark: {marked}")
        if isinstance(marked, Exception):
            raise marked
        if work.is_cancelled or marked.mark is Mark.LOST:
            return Released()  # a lost one is told so once more
        envelope, delivery = cast("Envelope", work.envelope), cast("Delivery", work.delivery)
        if marked.mark in (Mark.DUPLICATE, Mark.CONFLICTING):
            if marked.mark is Mark.CONFLICTING:
                self.report.conflicting(work.claim, envelope)
            return Duplicate()
        if marked.mark is Mark.REVIVED:
            work.claim.attempts = 0
        return judgement.judge(
            envelope,
            organization=delivery.organization,
            received_at=delivery.received_at,
            marked=marked,
            reference=self.reference,
            limits=self.policy.limits,
        )

    def _hand_over(self, work: Work) -> None:
        """Give the event to its handler, in a task of its own."""
        envelope, delivery = cast("Envelope", work.envelope), cast("Delivery", work.delivery)
        registration = self.handlers.find(envelope.type, delivery.organization)
        if registration is None:
            dead = Dead("no_handler", f"no handler is registered for {envelope.type}")
            self._settle(work, dead)
            return
        if registration.function is None:
            self._settle(work, Done())
            return
        try:
            data = registration.data.decode(envelope.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            self._settle(work, Dead("malformed", f"data: {exc}"))
            return
        event = _event(envelope, delivery, data, work.claim.attempts + 1)
        asyncio.get_running_loop().create_task(self._handle(work, registration.function, event))

    async def _handle(self, work: Work, function: HandlerFunction, event: Event[Any]) -> None:
        # Known from here on, not before: a task that is cancelled before it starts never does.
        work.handling = asyncio.current_task()
        outcome: Outcome = Released()
        started = perf_counter()
        try:
            if not work.is_cancelled:
                outcome = await self._attempt(work, function, event)
            work.seconds = perf_counter() - started
            work.handling = None
            self._settle(work, outcome)
        except Exception as exc:  # noqa: BLE001  as in `_begin_round`
            work.ended(exc)

    async def _attempt(self, work: Work, function: HandlerFunction, event: Event[Any]) -> Outcome:
        organization = self._organization(event)
        limit = TimeLimit(self._limits)
        try:
            with limit:
                result = await function(event, organization)
        except (Exception, SystemExit, asyncio.CancelledError) as exc:  # noqa: BLE001  any is one
            if isinstance(exc, asyncio.CancelledError) and limit.is_cancelled_from_outside:
                return Released()
            if isinstance(exc, asyncio.CancelledError | TimeoutError) and limit.is_over:
                error = f"the handler took longer than {self.policy.handler_timeout:g} s"
                return Later(error, failed=True)
            return _failure(exc)
        if result is not None and isinstance(result, Retry | Reject):
            return _failure(result)
        work.state = organization.state
        return Done()

    def _organization(self, event: Event[Any]) -> Organization:
        organization = event.organization_id
        profile = self.profiles().get(organization)

        async def read(key: str) -> bytes | None:
            return await self.ledger.read_state(organization, key)

        return Organization(
            id=organization,
            state=State(read, event_id=event.id, tombstone=self.policy.limits.dedupe_retention),
            logger=lambda: self.log.bind(organization=organization, event_id=event.id),
            settings=profile.settings if profile else {},
        )

    def _settle(self, work: Work, outcome: Outcome) -> None:
        outcome = self._last_attempt(work.claim, outcome)
        work.leave_slot()
        settlement = self._settlement(work, outcome)
        self.ledger.post_settlement(settlement, partial(self._settled, work, outcome))

    def _settled(self, work: Work, outcome: Outcome, settled: Settled | Exception) -> None:
        try:
            if isinstance(settled, Refused) and not work.is_refused:
                work.is_refused = True
                self._settle(work, Later(f"commit: {settled}"))
                return
            if not isinstance(settled, Exception):
                self.report.settled(work, outcome, settled, now=time())
                if settled in _ANOTHER_ROUND and self._goes_on(work):
                    return
        except Exception as exc:  # noqa: BLE001  as in `_begin_round`
            settled = exc
        work.ended(settled)

    def _goes_on(self, work: Work) -> bool:
        """Begin another round, or settle for less; whether there was still something to do."""
        work.is_refused = False
        if work.rounds > _MOST_ROUNDS:
            return False
        if work.rounds < _MOST_ROUNDS:
            self._begin_round(work)
        else:
            work.rounds += 1
            self._settle(work, Later("the state kept changing before the commit"))
        return True

    def _last_attempt(self, claim: Claim, outcome: Outcome) -> Outcome:
        """The one place that knows how many attempts there are."""
        if isinstance(outcome, Later) and claim.attempts + 1 >= self.policy.max_attempts:
            return Dead("exhausted", outcome.error, attempted=True, failed=outcome.failed)
        return outcome

    def _settlement(self, work: Work, outcome: Outcome) -> Settlement:
        match outcome:
            case Done():
                return Settlement(work.claim, "done", self._commit(work.state))
            case Later(after=after):
                if after is None:
                    after = self.policy.backoff.delay(work.claim.attempts + 1, self.random)
                details = (round(after * 1000), self._breaker(outcome))
                return Settlement(work.claim, "retry", details)
            case Dead():
                details = (*_burial(work, outcome), self._breaker(outcome))
                return Settlement(work.claim, "dead", details)
            case Duplicate():
                return Settlement(work.claim, "duplicate")
            case Released():
                return Settlement(work.claim, "release")

    def _breaker(self, outcome: Later | Dead) -> tuple[Any, ...] | None:
        """What the script needs to judge the organization by; nothing unless a handler failed."""
        return self.policy.breaker.packed() if outcome.failed else None

    def _commit(self, state: State | None) -> tuple[Any, ...]:
        retention = round(self.policy.limits.dedupe_retention * 1000)
        if state is None:
            return (retention, (), (), False)
        return (retention, tuple(state.reads.items()), tuple(state.operations), True)


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


def _failure(exc: BaseException) -> Outcome:
    match exc:
        case Reject(why=why):
            return Dead("rejected", why[:_MOST_ERROR_CHARACTERS], attempted=True)
        case Retry(after=after):
            return Later(str(exc)[:_MOST_ERROR_CHARACTERS], after)
    return Later(f"{type(exc).__name__}: {exc}"[:_MOST_ERROR_CHARACTERS], failed=True)


def _burial(work: Work, dead: Dead) -> tuple[Any, ...]:
    return (
        dead.reason,
        dead.error.encode(errors="backslashreplace").decode(),
        work.envelope.type if work.envelope else "",
        work.delivery.endpoint if work.delivery else "",
        work.delivery.received_at if work.delivery else 0,
        dead.attempted,
    )
