"""Tells those who watch over handlers of each failure, beside the events and never in their way."""

import asyncio
from collections import deque
from contextvars import Context
from dataclasses import dataclass
from typing import Final

import msgspec

from shared.endpoints.endpoint import CurrentEndpoints
from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.program import forking
from shared.queue.job import organization_of
from worker.failures import Failure, Hook
from worker.masking import Masks
from worker.outcomes import Dead, Later
from worker.pipeline.attempts import CURRENT, Task, own_context
from worker.pipeline.transitions import Settled
from worker.pipeline.work import Work
from worker.registry import Handlers, full_name
from worker.tracebacks import masked_text, traceback_of

SECONDS: Final = 10.0
"""What a hook may take."""

_AT_ONCE: Final = 8
_MOST_WAITING: Final = 100
_SAID_EVERY: Final = 10.0
"""Seconds between two lines about failures that no hook is told of."""


@dataclass(frozen=True, slots=True)
class Telling:
    """One failure, to be told to one hook.

    Attributes:
        kind: ``on_error`` or ``on_dead``.
        hook: the author's.
        failure: what it is told.
        work: the event, with the hook in its handler's place.
    """

    kind: str
    hook: Hook
    failure: Failure
    work: Work

    def count(self, outcome: str) -> None:
        """Count how it ended."""
        metrics.FAILURE_HOOKS.labels(self.kind, outcome).inc()


class Hooks:
    """Runs the hooks, each in a task that knows its event, a few at once.

    What fails faster than hooks are told of it must not pile up: beyond a hundred that wait,
    failures are counted and not told. A hook that doesn't end when it is cancelled keeps its place
    among the few.

    Args:
        handlers: who knows the hooks.
        endpoints: those of this moment.
        masks: hide secrets in what hooks raise.
        log: told of what becomes of them.
        seconds: that each may take.
    """

    def __init__(
        self,
        handlers: Handlers,
        endpoints: CurrentEndpoints,
        masks: Masks,
        log: FilteringBoundLogger,
        *,
        seconds: float = SECONDS,
    ) -> None:
        self._handlers = handlers
        self._endpoints = endpoints
        self._masks = masks
        self._log = log
        self._seconds = seconds
        self._context: Context = own_context()
        self._waiting: deque[Telling] = deque()
        self._running: dict[asyncio.Task[None], Telling] = {}
        self._limits: dict[asyncio.Task[None], asyncio.TimerHandle] = {}
        self._overdue: set[asyncio.Task[None]] = set()
        self._lost = 0
        self._said_at = -_SAID_EVERY

    def are_any(self) -> bool:
        """Whether anybody is to be told of anything."""
        return bool(self._handlers.on_error_hooks or self._handlers.on_dead_hooks)

    def tell(
        self, work: Work, outcome: Later | Dead, settled: Settled, job_prefix: str = ""
    ) -> None:
        """Tell whom it concerns of an attempt that Redis has taken note of.

        Args:
            work: the event.
            outcome: of its attempt.
            settled: what Redis made of it.
            job_prefix: what the ids of all jobs of its partition begin with.
        """
        told: list[tuple[str, Hook]] = []
        if outcome.failed and settled in {Settled.RETRIED, Settled.DEAD}:
            told += [("on_error", hook) for hook in self._handlers.on_error_hooks]
        if settled is Settled.DEAD:
            told += [("on_dead", hook) for hook in self._handlers.on_dead_hooks]
        if not told:
            return
        failure = self._failure(work, outcome, job_prefix)
        for kind, hook in told:
            telling = Telling(
                kind, hook, failure, _standing_for(work, f"{kind}: {full_name(hook)}")
            )
            if len(self._waiting) < _MOST_WAITING:
                self._waiting.append(telling)
            else:
                self._lose(telling)
        self._go_on()

    async def drain(self, seconds: float) -> None:
        """Let those end that wait or run, for so long at the most; cancel the others."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                while self._running:
                    await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            for telling in self._waiting:
                self._lose(telling)
            self._waiting.clear()
            for task in list(self._running):
                task.cancel()
        self._say_lost()

    def _failure(self, work: Work, outcome: Later | Dead, job_prefix: str) -> Failure:
        organization = work.delivery.organization if work.delivery else ""
        organization = organization or organization_of(work.claim.job, job_prefix)
        profile = self._endpoints.current.organizations.get(organization)
        fault = outcome.fault
        return Failure(
            job=work.claim.job,
            organization_id=organization,
            settings=profile.settings if profile else {},
            event_id=work.envelope.id if work.envelope else "",
            type=work.type,
            event=fault.event,
            exception=fault.exception,
            handler=work.handler,
            reason=outcome.reason if isinstance(outcome, Dead) else "",
            attempt=work.claim.attempts + 1,
            error=outcome.error,
            traceback=fault.traceback,
            will_retry=isinstance(outcome, Later),
            after=outcome.after if isinstance(outcome, Later) else None,
        )

    def _go_on(self) -> None:
        while self._waiting and len(self._running) < _AT_ONCE:
            self._start(self._waiting.popleft())

    def _start(self, telling: Telling) -> None:
        # Under the event: who blocks the loop is named by it, and a handler that cancels all tasks
        # that it finds ends no hook of another's.
        context = self._context.copy()
        context.run(CURRENT.set, telling.work)
        loop = asyncio.get_running_loop()
        task: Task[None] = Task(self._call(telling), loop=loop, context=context)
        task.origin = telling.work
        self._running[task] = telling
        limit = loop.call_later(self._seconds, self._cut_short, task, context=self._context)
        self._limits[task] = limit
        task.add_done_callback(self._ended, context=self._context)

    async def _call(self, telling: Telling) -> None:
        error: BaseException | None = None
        try:
            await telling.hook(telling.failure)
        except BaseException as exc:  # noqa: BLE001  not even `sys.exit` of a hook ends the worker
            error = exc
        if forking.GUARD.is_child:  # which has no business in the worker's loop
            forking.end(error)
        if error is None:
            telling.count("done")
        elif asyncio.current_task() not in self._overdue:
            self._note("failed", telling, error)

    def _cut_short(self, task: "asyncio.Task[None]") -> None:
        telling = self._running[task]
        self._overdue.add(task)
        telling.count("overdue")
        said = f"it took longer than {self._seconds:g} s"
        self._log.warning("failure_hook_overdue", **telling.work.naming(), error=said)
        task.cancel()

    def _note(self, outcome: str, telling: Telling, error: BaseException) -> None:
        telling.count(outcome)
        failure = telling.failure
        hide = self._masks.of(failure.organization_id, failure.settings).hide
        self._log.error(
            "failure_hook_failed",
            **telling.work.naming(),
            error=masked_text(error, hide),
            traceback=traceback_of(error, hide),
        )

    def _ended(self, task: "asyncio.Task[None]") -> None:
        telling = self._running.pop(task)
        self._limits.pop(task).cancel()  # it would keep the event for as long as hooks may take
        if task.cancelled() and task not in self._overdue:  # before its first step
            telling.count("failed")
        self._overdue.discard(task)
        self._go_on()
        if not self._waiting:
            self._say_lost()

    def _lose(self, telling: Telling) -> None:
        telling.count("lost")
        self._lost += 1
        if asyncio.get_running_loop().time() - self._said_at >= _SAID_EVERY:
            self._say_lost()

    def _say_lost(self) -> None:
        if self._lost:
            self._log.warning("failure_hooks_lost", number=self._lost)
            self._lost = 0
            self._said_at = asyncio.get_running_loop().time()


def _standing_for(work: Work, handler: str) -> Work:
    """A work of the same event for a hook, in which nothing is held any more, nor its body."""
    delivery, envelope = work.delivery, work.envelope
    if delivery is not None:
        delivery = msgspec.structs.replace(delivery, body=b"")
    if envelope is not None:  # whose data is a view of the body
        envelope = msgspec.structs.replace(envelope, data=msgspec.Raw())
    return Work(work.claim, delivery, _nobody, envelope=envelope, handler=handler)


def _nobody(_: object) -> None:
    """Told of the end of what has ended already."""
