"""What happens to one claimed job: decode, mark, judge, handle, settle."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter, time
from typing import Any

import msgspec
from structlog.typing import FilteringBoundLogger

from shared import keys
from shared.endpoints import OrganizationProfile
from shared.errors import Unavailable
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
from worker.time_limit import TimeLimit
from worker.transitions import Claim, Mark, Marked, MarkRequest, Refused, Settled, Settlement
from worker.work import Work

_MOST_ROUNDS = 10
_MOST_ERROR_CHARACTERS = 2000


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

    async def run(self, claim: Claim, delivery: Delivery | None) -> Settled:
        """Handle one claimed job and settle it.

        Another round follows where the mark changed hands, or a value that the handler read has
        changed before the commit.

        Raises:
            Unavailable: Redis stayed away; nothing was settled and the lease brings it back.
            asyncio.CancelledError: the worker stops; the job has been given back.
        """
        work = Work(claim, delivery)
        try:
            for _ in range(_MOST_ROUNDS):
                outcome = await self._outcome(work)
                settled = await self._settle(work, outcome)
                if settled not in (Settled.AGAIN, Settled.CONFLICT):
                    return settled
            return await self._settle(work, Later("the state kept changing before the commit"))
        except asyncio.CancelledError:
            with contextlib.suppress(Unavailable):  # the lease gives it back all the same
                await self._settle(work, Released())
            raise

    async def _outcome(self, work: Work) -> Outcome:
        """One round, up to what should become of the job."""
        work.state = None
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
        marked = await self._mark(work, decoded)
        if not isinstance(marked, Marked):
            return marked
        verdict = judgement.judge(
            decoded,
            organization=work.delivery.organization,
            received_at=work.delivery.received_at,
            marked=marked,
            reference=self.reference,
            limits=self.policy.limits,
        )
        return verdict or await self._handle(work, decoded, work.delivery)

    async def _mark(self, work: Work, envelope: Envelope) -> Marked | Outcome:
        try:
            until = judgement.provable_until(envelope, self.policy.limits)
            marked = await self.ledger.mark(MarkRequest(work.claim, envelope.id, until))
        except Refused as exc:
            return Later(f"mark: {exc}")
        if marked.mark is Mark.LOST:
            return Released()  # which is lost as well, and told so
        if marked.mark in (Mark.DUPLICATE, Mark.CONFLICTING):
            if marked.mark is Mark.CONFLICTING:
                self.report.conflicting(work.claim, envelope)
            return Duplicate()
        if marked.mark is Mark.REVIVED:
            work.claim.attempts = 0
        return marked

    async def _handle(self, work: Work, envelope: Envelope, delivery: Delivery) -> Outcome:
        registration = self.handlers.find(envelope.type, delivery.organization)
        if registration is None:
            return Dead("no_handler", f"no handler is registered for {envelope.type}")
        if registration.function is None:
            return Done()
        try:
            data = registration.data.decode(envelope.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            return Dead("malformed", f"data: {exc}")
        event = _event(envelope, delivery, data, work.claim.attempts + 1)
        started = perf_counter()
        try:
            return await self._attempt(work, registration.function, event)
        finally:
            work.seconds = perf_counter() - started

    async def _attempt(self, work: Work, function: HandlerFunction, event: Event[Any]) -> Outcome:
        organization = self._organization(event)
        limit = TimeLimit(self.policy.handler_timeout)
        try:
            with limit:
                result = await function(event, organization)
        except (Exception, SystemExit, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and limit.is_cancelled_from_outside:
                raise
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

    async def _settle(self, work: Work, outcome: Outcome) -> Settled:
        outcome = self._last_attempt(work.claim, outcome)
        settlement = self._settlement(work, outcome)
        try:
            settled = await self.ledger.settle(settlement)
        except Refused as exc:
            outcome = self._last_attempt(work.claim, Later(f"commit: {exc}"))
            settled = await self.ledger.settle(self._settlement(work, outcome))
        self.report.settled(work, outcome, settled, now=time())
        return settled

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
