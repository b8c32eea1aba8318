"""Drives claimed jobs along their path: asks others for what it wants, and brings their answers."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from time import time
from typing import Any, Final, Protocol

from shared.endpoints.endpoint import CurrentEndpoints
from shared.errors import TransitionError, Unavailable
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue.group_commit import Tell, resolve
from shared.queue.job import Delivery, organization_of
from shared.redis.connection import REDIS_ERRORS
from shared.sellfern.reference import Reference
from worker.lifespans import Lifespan
from worker.masking import Masks
from worker.outcomes import Dead, Later
from worker.pipeline.attempts import Attempts, leave_slot
from worker.pipeline.hooks import Hooks
from worker.pipeline.memory import MemoryBudget, estimate
from worker.pipeline.path import Path, walk_after_failure
from worker.pipeline.policy import Policy
from worker.pipeline.reports import Reporter
from worker.pipeline.settling import Settlements
from worker.pipeline.transitions import (
    Claim,
    Marked,
    MarkRequest,
    Refused,
    Settled,
    Settlement,
)
from worker.pipeline.work import Ask, Handle, Room, Settle, Work
from worker.registry import Handlers
from worker.tracebacks import traceback_of

AWAY: Final = (Unavailable, TransitionError, *REDIS_ERRORS)
"""What Redis answers when there is nobody to settle with: the lease brings the event back."""


_DONE: Final = Settled.DONE


class Ledger(Protocol):
    """Keeps the marks of events and the state of organizations: Redis, in batches, or its like.

    Whoever asks is told an answer, or the error for which there is none: at once or later, once.
    """

    def post_mark(self, request: MarkRequest, tell: Tell[Marked]) -> None:
        """Set, or find, the mark of an event id."""

    def post_settlement(self, settlement: Settlement, tell: Tell[Settled]) -> None:
        """Make a job what its settlement says, and commit what its handler did to the state."""

    async def read_state(self, organization: str, key: str) -> bytes | None:
        """A raw value of an organization's state."""


class Observer(Protocol):
    """Follows works from step to step; a tracer, say. It may put a context into a work."""

    def begins(self, work: Work) -> None:
        """Its path begins; what it sets in ``work.context`` holds for every step."""

    def asks(self, work: Work, asked: Ask) -> None:
        """Its path wants something."""

    def is_told(self, work: Work, asked: Ask, answer: object) -> None:
        """Its path is about to get the answer."""

    def ends(self, work: Work, result: Settled | Exception) -> None:
        """Its path has ended."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Takes claimed jobs to their end.

    This is the only place that catches what a step, a handler or Redis raises, so no way out of a
    path can skip its end: `Work.ended` is told once, whatever happens.

    Attributes:
        ledger: keeps marks and state.
        handlers: the registry.
        reference: the events that Sellfern's API Reference lists.
        policy: the rules.
        endpoints: those of this moment.
        log: where handlers' loggers come from.
        report: told of every end.
        memory: bounds what decoded bodies take.
        random: draws evenly from 0 to 1.
        observer: follows each work, if anybody does.
        masks: hide secrets in what is said of failures.
        hooks: tell of failures whoever has asked for it.
        resources: what a lifespan has given.
        job_prefix: what the ids of all its jobs begin with: their partition's tag.
        worker: its name, for the history of attempts.
    """

    ledger: Ledger
    handlers: Handlers
    reference: Reference
    policy: Policy
    endpoints: CurrentEndpoints
    log: FilteringBoundLogger
    report: Reporter
    memory: MemoryBudget = field(default_factory=MemoryBudget)
    random: Callable[[], float] = field(default=random.random)
    observer: Observer | None = None
    masks: Masks = field(default_factory=Masks, repr=False)
    hooks: Hooks = field(init=False, repr=False)
    resources: Callable[[Lifespan | None], Any] = field(default=lambda _: None)
    attempts: Attempts = field(init=False, repr=False)
    settlements: Settlements = field(init=False, repr=False)
    path: Path = field(init=False, repr=False)
    job_prefix: str = ""
    worker: str = ""

    def __post_init__(self) -> None:
        """Make the parts that are its own."""
        limit, grace = self.policy.handler_timeout, self.policy.stuck_after
        path = Path(
            handlers=self.handlers,
            listed=frozenset(self.reference.available_events()),
            policy=self.policy,
            endpoints=self.endpoints,
            log=self.log,
            report=self.report,
            read_state=self.ledger.read_state,
            most_uncounted=self.memory.most_uncounted,
            resources=self.resources,
            job_prefix=self.job_prefix,
        )
        # Frozen for everybody else: with another part, it is made anew, and so are these.
        hooks = Hooks(self.handlers, self.endpoints, self.masks, self.log)
        attempts = Attempts(
            limit, grace=grace, log=self.log, masks=self.masks, keeps_faults=hooks.are_any
        )
        object.__setattr__(self, "hooks", hooks)
        object.__setattr__(self, "attempts", attempts)
        object.__setattr__(self, "path", path)
        settlements = Settlements(self.policy, self.worker, self.masks, self.random)
        object.__setattr__(self, "settlements", settlements)

    def within(self, ledger: Ledger, job_prefix: str) -> "Pipeline":
        """The same in another partition, which keeps marks and states of its own.

        Attempts, memory and hooks are the worker's, wherever its events are from.
        """
        other = replace(self, ledger=ledger, job_prefix=job_prefix)
        object.__setattr__(other, "hooks", self.hooks)
        object.__setattr__(other, "attempts", self.attempts)
        return other

    async def run(
        self,
        claim: Claim,
        delivery: Delivery | None,
        *,
        is_newer: bool = False,
        has_payload: bool = True,
    ) -> Settled:
        """Handle one claimed job and settle it.

        Args:
            claim: proves the hold.
            delivery: what was received; ``None`` where the payload is no record that we read.
            is_newer: whether a newer version of this project wrote that payload.
            has_payload: whether there was one.

        Raises:
            Unavailable: Redis stayed away; nothing was settled and the lease brings it back.
            asyncio.CancelledError: the worker stops; the job has been given back.
        """
        end: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        tell = partial(resolve, end)
        work = Work(claim, delivery, tell, is_newer=is_newer, has_payload=has_payload)
        self.start(work)
        try:
            # Cancelling who waits must not cancel what the driver tells.
            return await asyncio.shield(end)
        except asyncio.CancelledError:
            work.cancel()
            with contextlib.suppress(Unavailable):  # the lease gives it back all the same
                await end
            raise

    def start(self, work: Work) -> None:
        """Handle a claimed job and settle it; `Work.ended` is told.

        Nothing waits: whoever has an answer takes the path's next step with it. A task is made
        for the handler only, since tasks and futures would cost more than all other steps.
        """
        work.path = self.path.walk(work)
        if self.observer is not None:
            self._observe(self.observer.begins, work)
        self._step(work, None)

    def _observe(self, call: Callable[..., None], *arguments: object) -> None:
        """Whoever only looks on changes no event's way, whatever happens to it."""
        try:
            call(*arguments)
        except Exception:
            self.log.exception("event_observer_failed")

    def _step(self, work: Work, answer: Any) -> None:
        """Take the path on to what it wants next, or to its end."""
        path = work.path
        if path is None:
            return  # it has ended: somebody knew better than to wait for this answer
        try:
            if isinstance(answer, Exception) and type(answer) is not Refused:
                self._go_without(work, answer)
            else:
                self._ask(work, path.send(answer))
        except StopIteration as end:
            self._end(work, end.value)
        except BaseException as exc:  # noqa: BLE001  whatever one event does, it must be told
            self._fail(work, exc)

    def _go_without(self, work: Work, error: Exception) -> None:
        """There is no answer: nobody to settle with, or a failure of our own."""
        if isinstance(error, AWAY):
            self._end(work, error)
        else:
            self._fail(work, error)

    def _fail(self, work: Work, error: BaseException) -> None:
        """A step of our own has failed: that is a failed attempt, not a lease left to expire."""
        if work.is_failed:  # a second time: not even that could be settled
            self._end(work, error if isinstance(error, Exception) else RuntimeError(repr(error)))
            return
        work.is_failed = True
        hide = self.masks.own.hide  # a type of the author's may have raised it
        traceback = traceback_of(error, hide)
        self.log.error("event_step_failed", job=work.claim.job, traceback=traceback)
        work.path = walk_after_failure(error)
        self._step(work, None)

    def _end(self, work: Work, result: Settled | Exception) -> None:
        work.path = None
        if self.observer is not None:
            self._observe(self.observer.ends, work, result)
        leave_slot(work)
        work.ended(result)

    def _ask(self, work: Work, asked: Ask) -> None:
        """Ask others for what the path wants; whoever has the answer goes on with it."""
        then = self._settled if type(asked) is Settle else self._step
        tell: Callable[[Any], None] = partial(then, work)
        if self.observer is not None:
            self._observe(self.observer.asks, work, asked)
            tell = partial(self._observed, work, asked, then)
        # By the exact type, the frequent ones first: `match` would cost more, three times an event.
        if type(asked) is MarkRequest:
            work.is_marking = True
            self.ledger.post_mark(asked, tell)
        elif type(asked) is Settle:
            outcome = self.settlements.final(work, asked.outcome)
            settlement = self.settlements.of(work, outcome)
            work.settling = (outcome, settlement)
            # Before the commit: slots are for handlers, and Redis works for others meanwhile.
            leave_slot(work)
            self.ledger.post_settlement(settlement, tell)
        elif type(asked) is Handle:
            self.attempts.start(work, asked, tell)
        elif type(asked) is Room:
            flow = organization_of(work.claim.job, self.job_prefix)
            share = work.share = self.memory.share(flow, estimate(asked.body))
            share.take(tell)
            if share.waits and self.memory.is_closed:
                work.cancel()  # others may have what it would wait for

    def _settled(self, work: Work, answer: Settled | Exception) -> None:
        settling, work.settling = work.settling, None
        if settling is not None and type(answer) is Settled:
            try:
                self.report.settled(work, settling[0], answer, now=time())
                if answer is not _DONE and isinstance(settling[0], Later | Dead):
                    self.hooks.tell(work, settling[0], answer, self.job_prefix)
            except Exception:  # what is settled can't be undone, nor be settled again
                self.log.exception("event_report_failed", job=work.claim.job)
        self._step(work, answer)

    def _observed(
        self, work: Work, asked: Ask, then: Callable[[Work, Any], None], answer: Any
    ) -> None:
        def go_on() -> None:
            if self.observer is not None:
                self._observe(self.observer.is_told, work, asked, answer)
            then(work, answer)

        if work.context is None:
            go_on()
        else:
            work.context.run(go_on)
