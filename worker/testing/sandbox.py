"""Delivers events to handlers in a test: a worker's own path, over a ledger in memory."""

# ruff: noqa: ARG002  # a witness is told what a pipeline tells its observer and its reporter

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final

from shared.endpoints.endpoint import CurrentEndpoints, Endpoints, OrganizationProfile
from shared.observe.structlog_alone import (
    EventDict,
    FilteringBoundLogger,
    WrappedLogger,
    structlog,
)
from shared.queue.job import Delivery, job_id, organization_of
from shared.sellfern import identifier
from shared.sellfern.envelope import Envelope
from shared.sellfern.reference import Entry, Reference, load_default
from worker import outcomes
from worker.events import body_of
from worker.outcomes import Busy, Done, Later, took_too_long
from worker.pipeline import hooks
from worker.pipeline.driver import Pipeline
from worker.pipeline.policy import Backoff, Breaker, Limits, Policy
from worker.pipeline.transitions import Claim, Marked, Refused, Settled
from worker.pipeline.work import Ask, Handle, Settle, Work
from worker.registry import Handlers
from worker.testing.ledger import MemoryLedger
from worker.testing.results import (
    Dead,
    DeliveryError,
    Duplicate,
    Failed,
    Handled,
    Held,
    Ignored,
    NoHandler,
    Outcome,
    Rejected,
    Released,
    Result,
    Retried,
    Throttled,
)

ORGANIZATION: Final = "org_123"
"""Whose events these are, where a test doesn't say."""

_NONE_GIVEN: Final = object()
"""``None`` may be what somebody's lifespan gives."""

_DAY: Final = 86_400.0
_LIMITS: Final = Limits(max_event_age=6 * _DAY, dedupe_retention=7 * _DAY, clock_skew=300.0)
"""As a worker has them where nobody says otherwise."""

# pytest shows what it is told where a test fails, so a traceback stands beside the assertion; by
# itself it says nothing.
_tracebacks: Final = logging.getLogger(__name__)
_tracebacks.addHandler(logging.NullHandler())


@dataclass(slots=True)
class _Witness:
    """Sees one delivery go its way: the pipeline's observer, its reporter, and its log.

    Attributes:
        lines: what was logged.
        raised: by the handler; or what it returned, where that is an exception.
        refused: why what it wrote can't be committed.
        end: what the ledger was asked last, and what it made of it.
        handler: its name, where one ran.
        after: seconds that it asked for, before the backoff decides.
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    raised: BaseException | None = None
    refused: Refused | None = None
    end: tuple[outcomes.Outcome, Settled] | None = None
    handler: str = ""
    after: float | None = None

    # The observer

    def begins(self, work: Work) -> None: ...

    def asks(self, work: Work, asked: Ask) -> None:
        if isinstance(asked, Handle):
            self.raised, self.handler = None, work.handler
            asked.function = self._watched(asked.function)
        elif isinstance(asked, Settle) and isinstance(asked.outcome, Later):
            self.after = asked.outcome.after

    def is_told(self, work: Work, asked: Ask, answer: object) -> None:
        if isinstance(answer, Refused):
            self.refused = answer

    def ends(self, work: Work, result: Settled | Exception) -> None: ...

    def _watched(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(*given: Any) -> Any:
            __tracebackhide__ = True
            try:
                result = await function(*given)
            except BaseException as exc:
                self.raised = exc
                raise
            if isinstance(result, BaseException):
                self.raised = result
            return result

        return watched

    # The reporter

    def conflicting(self, claim: Claim, envelope: Envelope) -> None:
        self.log.warning("event_conflicting", event_id=envelope.id)

    def key_unread(self, work: Work, error: str) -> None:
        self.log.warning("event_key_unread", error=error)

    def not_its_turn(self, work: Work, marked: Marked) -> Settled:
        raise AssertionError(marked)  # there are no turns here

    def settled(
        self, work: Work, outcome: outcomes.Outcome, settled: Settled, *, now: float
    ) -> None:
        self.end = (outcome, settled)
        if isinstance(outcome, Done) and outcome.returned:
            self.log.warning("handler_returned_value", value=outcome.returned)

    # The log

    @property
    def log(self) -> FilteringBoundLogger:
        logger: FilteringBoundLogger = structlog.wrap_logger(
            None,
            processors=[self._keep],
            wrapper_class=structlog.make_filtering_bound_logger("debug"),
            context_class=dict,
            cache_logger_on_first_use=False,
        )
        return logger

    def _keep(self, _logger: WrappedLogger, level: str, fields: EventDict) -> EventDict:
        if fields.get("exc_info") is True:
            fields["exc_info"] = sys.exc_info()[1]
        self.lines.append({"event": fields.pop("event"), "level": level, **fields})
        raise structlog.DropEvent

    # What a test is told

    def outcome(self, limit: float) -> Outcome:  # noqa: PLR0911  # one for each end
        asked, settled = self.end or (Done(), Settled.RELEASED)
        match settled, asked:
            case Settled.DONE, _:
                return Handled() if self.handler else Ignored()
            case Settled.RETRIED, Later():
                if not asked.failed and self.refused is None:
                    return Retried(self.after, asked.error)
                return Failed(self._error(asked.error, limit), asked.error)
            case Settled.DEAD, outcomes.Dead(reason="rejected"):
                return Rejected(asked.error)
            case Settled.DEAD, outcomes.Dead():
                has_failed = asked.failed or self.refused is not None
                error = self._error(asked.error, limit) if has_failed else None
                return Dead(asked.reason, asked.error, error)
            case Settled.THROTTLED, Busy():
                return Throttled(asked.after, asked.error)
        return _WITHOUT_MORE.get(settled, Released)()

    def _error(self, why: str, limit: float) -> BaseException:
        """The exception of a failed attempt, with the traceback that there is."""
        if isinstance(self.raised, asyncio.CancelledError) and why.startswith(took_too_long(limit)):
            error: BaseException = TimeoutError(why)
            error.__cause__ = self.raised  # which says where it waited
            return error
        return self.refused or self.raised or DeliveryError(why)


_WITHOUT_MORE: Final[Mapping[Settled, type[Duplicate | Held | NoHandler]]] = {
    Settled.DUPLICATE: Duplicate,
    Settled.HELD: Held,
    Settled.WAITING: NoHandler,
}


class Sandbox:
    """Takes events to their handlers as a worker does, and keeps marks and state in between.

    What differs: there is one event at a time of the same bytes, nobody waits for a turn or a rate,
    and time goes by with the events (see `deliver`), not by itself.

    Args:
        handlers: the registry.
        settings: what `Organization.settings` holds, of every organization.
        resources: what handlers take as their third argument, in the place of what a lifespan
            gives.
        available: events that your Sellfern's API Reference lists, and this project's doesn't.
        handler_timeout: seconds, as the setting ``HANDLER_TIMEOUT``.
        max_attempts: as the setting ``MAX_ATTEMPTS``.
    """

    def __init__(
        self,
        handlers: Handlers[Any],
        *,
        settings: Mapping[str, object] | None = None,
        resources: object = _NONE_GIVEN,
        available: Collection[str] = (),
        handler_timeout: float = 60.0,
        max_attempts: int = 12,
    ) -> None:
        self._handlers = handlers
        self._settings = dict(settings or {})
        self._resources = resources
        self._reference = _reference(available)
        self._policy = Policy(
            limits=_LIMITS,
            handler_timeout=handler_timeout,
            max_attempts=max_attempts,
            max_claims=3,
            backoff=Backoff(),
            breaker=Breaker(),
        )
        self._clock = _EPOCH
        self._created: dict[str, datetime] = {}
        self._running: dict[str, asyncio.Lock] = {}
        self._ledger = MemoryLedger(lambda: _milliseconds(self._clock))

    def put(self, organization: str, state: Mapping[str, Any]) -> None:
        """Let an organization's state have these values, as if a handler had put them.

        Raises:
            StateError: one of them can't be kept.
        """
        self._ledger.put(organization, state)

    def state(self, organization: str = ORGANIZATION) -> dict[str, Any]:
        """An organization's values."""
        return self._ledger.values(organization)

    async def deliver(
        self,
        event_type: str,
        data: object,
        *,
        organization: str | int = ORGANIZATION,
        event_id: str | None = None,
        attempt: int | None = None,
        created_at: datetime | None = None,
        received_at: datetime | None = None,
    ) -> Result:
        """Deliver an event, or deliver it again, and make one attempt at it.

        An id that was there before is a redelivery: of an event that is done a duplicate, of one
        that failed its next attempt.

        Args:
            event_type: such as ``order.updated``.
            data: what JSON can say: plain values, or an object of the handler's own type.
            organization: whose secret signed it.
            event_id: Sellfern's id of it; without one, ``evt_1``, ``evt_2``, ….
            attempt: which one it is, from 1; without it, one more than before.
            created_at: when it happened, aware. Without it now, and for a redelivery as before.
            received_at: when the ingress takes it, aware, which is what the time is from then on.
                Without it when it is created, unless that is before what was received last.

        Raises:
            ValueError: a time isn't aware, the attempt isn't from 1, the organization isn't an id.
            TypeError: the data is nothing that JSON can say, or the handler takes resources and
                there are none.
        """
        received, created, event_id = self._times(event_id, created_at, received_at)
        named = identifier.text(organization)
        body = body_of(event_id, event_type, created, named, data)
        job = job_id(named, body)
        if organization_of(job) != named:
            raise ValueError(f"organization: expected an id such as org_123, got {named!r:.80}")
        if attempt is not None and attempt < 1:
            raise ValueError(f"attempt: expected 1 or more, got {attempt}")
        self._check_resources(event_type, named)
        self._clock = max(self._clock, received)
        delivery = Delivery("test", named, _milliseconds(received), {}, body)
        async with self._running.setdefault(job, asyncio.Lock()):
            return await self._run(job, self._ledger.accept(job, delivery), attempt)

    def _check_resources(self, event_type: str, organization: str) -> None:
        found = self._handlers.find(event_type, organization)
        if found is not None and found.lender is not None and self._resources is _NONE_GIVEN:
            raise TypeError(f"resources: expected what {found.name} takes, got nothing")

    async def _run(self, job: str, delivery: Delivery, attempt: int | None) -> Result:
        witness = _Witness()
        claim = self._ledger.claim(job, None if attempt is None else attempt - 1)
        pipeline = self._pipeline(witness, delivery.organization)
        await pipeline.run(claim, delivery)
        await pipeline.hooks.drain(hooks.SECONDS)  # a test may be of what they do
        outcome = witness.outcome(self._policy.handler_timeout)
        result = Result(outcome, self._ledger.values(delivery.organization), witness.lines)
        if result.exception is not None:
            _tracebacks.error("%s failed", witness.handler, exc_info=result.exception)
        return result

    def _pipeline(self, witness: _Witness, organization: str) -> Pipeline:
        profile = OrganizationProfile(organization, 1.0, None, self._settings)
        endpoints: CurrentEndpoints = SimpleNamespace(
            current=Endpoints({}, {organization: profile})
        )
        return Pipeline(
            ledger=self._ledger,
            handlers=self._handlers,
            reference=self._reference,
            policy=self._policy,
            endpoints=endpoints,
            log=witness.log,
            report=witness,
            observer=witness,
            resources=lambda _: self._resources,
        )

    def _times(
        self, event_id: str | None, created_at: datetime | None, received_at: datetime | None
    ) -> tuple[datetime, datetime, str]:
        """When an event is received and was created, and its id."""
        for name, given in (("created_at", created_at), ("received_at", received_at)):
            if given is not None and given.utcoffset() is None:
                raise ValueError(f"{name}: expected an aware time, got {given!r}")
        event_id = event_id or f"evt_{len(self._created) + 1}"
        created = created_at or self._created.get(event_id) or received_at
        if created is None:
            # Later than the last one, so that their order is that of the deliveries.
            created = max(datetime.now(UTC), self._clock + timedelta(milliseconds=1))
        self._created[event_id] = created
        return received_at or max(created, self._clock), created, event_id


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _reference(available: Collection[str]) -> Reference:
    """The events that this project's Reference lists, with others."""
    own = load_default()
    more = {name: Entry(name=name, source="openapi", available=True) for name in available}
    return Reference({**own.events, **more}, own.operations)


async def deliver(
    handlers: Handlers[Any],
    event_type: str,
    data: object,
    *,
    organization: str | int = ORGANIZATION,
    attempt: int = 1,
    state: Mapping[str, Any] | None = None,
    settings: Mapping[str, object] | None = None,
    resources: object = _NONE_GIVEN,
    event_id: str = "evt_1",
    created_at: datetime | None = None,
    received_at: datetime | None = None,
    available: Collection[str] = (),
    handler_timeout: float = 60.0,
    max_attempts: int = 12,
) -> Result:
    """Deliver one event to its handler, as a worker does.

    Args:
        handlers: the registry.
        event_type: such as ``order.updated``.
        data: what JSON can say: plain values, or an object of the handler's own type.
        organization: whose secret signed it.
        attempt: which one it is, from 1.
        state: the organization's values before.
        settings: what `Organization.settings` holds.
        resources: what the handler takes as its third argument, in the place of what a lifespan
            gives.
        event_id: Sellfern's id of it.
        created_at: when it happened, aware; now, or when it was received.
        received_at: when the ingress took it, aware; when it was created.
        available: events that your Sellfern's API Reference lists, and this project's doesn't.
        handler_timeout: seconds, as the setting ``HANDLER_TIMEOUT``.
        max_attempts: as the setting ``MAX_ATTEMPTS``.

    Raises:
        ValueError: a time isn't aware, the attempt isn't from 1, the organization isn't an id.
        TypeError: the data is nothing that JSON can say, or the handler takes resources and there
            are none.
        StateError: a value of the state can't be kept.
    """
    sandbox = Sandbox(
        handlers,
        settings=settings,
        resources=resources,
        available=available,
        handler_timeout=handler_timeout,
        max_attempts=max_attempts,
    )
    sandbox.put(identifier.text(organization), state or {})
    return await sandbox.deliver(
        event_type,
        data,
        organization=organization,
        event_id=event_id,
        attempt=attempt,
        created_at=created_at,
        received_at=received_at,
    )
