"""Runs handlers, each in a task that knows its event, and sees every one of them end.

A handler shares its loop with the worker and with other handlers. Whatever it starts inherits its
context, so a context variable tells of any task, however deep, under which event it was made. From
that one fact follow: whom to charge when a task that a handler left ends the process or blocks the
loop, and that a handler which cancels all tasks it can find ends none but its own event's.
"""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from dataclasses import replace
from time import perf_counter
from typing import Any, Final, TypeVar

import msgspec

from shared.errors import StateError
from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.program import forking
from worker.failures import explained
from worker.masking import Masks
from worker.outcomes import (
    DONE,
    Busy,
    Cause,
    Dead,
    Done,
    Later,
    Outcome,
    Released,
    outcome_of,
    text_of,
    took_too_long,
)
from worker.pipeline.work import Handle, Work
from worker.tracebacks import stack_of

_ASKED_AGAIN: Final = 4
"""Times that a handler is cancelled within the grace: the first leaves it half of the grace."""

Result = TypeVar("Result")

CURRENT: Final[ContextVar[Work | None]] = ContextVar("sellfern_event", default=None)
"""The event under which this code runs; ``None`` in the worker's own."""

_left: Final[set["Task[Any]"]] = set()
"""Tasks made under an event that have not been seen to end."""

_ended_the_loop: Final[list["Task[Any]"]] = []
"""Those that ended the loop. It may turn once more before it stops, and has forgotten them then."""

_FATAL: Final = (SystemExit, KeyboardInterrupt)
"""What asyncio lets out of a task and out of the loop."""


class Slots:
    """How many handlers a worker runs, of the events of one partition.

    Args:
        changed: set whenever it is one less.

    Attributes:
        busy: that many.
    """

    def __init__(self, changed: asyncio.Event) -> None:
        self.busy = 0
        self._changed = changed

    def leave(self) -> None:
        """One has ended."""
        self.busy -= 1
        self._changed.set()


def leave_slot(work: Work) -> None:
    """Let another handler run: this one has ended, whatever Redis still makes of it."""
    if work.share is not None:
        work.share.give_back()
        work.share = None
    if work.slots is not None:
        work.slots.leave()
        work.slots = None


class Attempt(msgspec.Struct, eq=False):
    """One run of a handler.

    It tells its outcome once: when the handler has ended, or when it goes on too long after it was
    cancelled, or when somebody knows better. From then on its `State` raises, so whatever still
    runs of it changes nothing.

    Attributes:
        attempts: those of the worker.
        work: whose event it is.
        handle: the handler with what it gets.
        tell: told the outcome.
        began: when it was given its task, by the performance counter.
        cause: who cancelled it first.
        is_over: whether its outcome has been told.
        has_started: whether its task has taken its first step.
        cancelled_at: when it was cancelled first, by the loop's clock.
        unexplained: seconds that it was given back though nobody knows who took them.
        has_blocked: whether it is known to have kept the worker's loop from turning.
        task: runs it.
    """

    attempts: "Attempts"
    work: Work
    handle: Handle
    tell: Callable[[Outcome], None]
    began: float
    cause: Cause = Cause.NOBODY
    is_over: bool = False
    has_started: bool = False
    cancelled_at: float = 0.0
    unexplained: float = 0.0
    has_blocked: bool = False
    task: "asyncio.Task[Any] | None" = None

    async def run(self) -> None:
        """Run the handler; the body of its task."""
        CURRENT.set(self.work)
        self.has_started = True
        try:
            handle = self.handle
            result: object = await handle.function(handle.event, handle.organization)
        except BaseException as exc:  # noqa: BLE001  however it ends, it must be told
            result = exc
        if forking.GUARD.is_child:  # which has no business in the worker's loop
            forking.end(result if isinstance(result, BaseException) else None)
        self.end(result)

    def end(self, result: object) -> None:
        """The handler has ended, with what it returned or raised."""
        if self.is_over:
            self.attempts.ended_late(self)
            return
        outcome = DONE if result is None else outcome_of(result, self.cause, self.attempts.seconds)
        self.give_up(outcome, "the handler has ended", result)
        if result is not None and inspect.iscoroutine(result):
            with contextlib.suppress(BaseException):  # where it had begun, it may do anything
                result.close()  # it would complain once more, at a time that nobody can tell

    def give_up(
        self,
        outcome: Outcome,
        why: str = "the attempt at its event is over",
        raised: object = None,
    ) -> None:
        """It has this outcome, whatever the handler still does.

        Args:
            outcome: of the event.
            why: what the state says to whoever still uses it.
            raised: by the handler, or returned, where that is why.
        """
        if self.is_over:
            return
        self.is_over = True
        self.work.seconds = perf_counter() - self.began
        self.attempts.forget(self)
        # An exception keeps its frames, and they the decoded data: beyond the slot, that of large
        # bodies would be memory that nobody counts.
        is_small = self.work.share is None
        leave_slot(self.work)
        state = self.handle.organization.state
        state.close(why)
        if state.unawaited and type(outcome) is Done:  # it would be committed without that
            said = f"{state.unawaited} was not awaited before the handler ended"
            outcome = Later(text_of(StateError(said)), failed=True)
        if outcome is not DONE and isinstance(outcome, Later | Dead | Busy):
            outcome = self._explained(
                outcome, raised, is_kept=is_small and self.attempts.keeps_faults()
            )
        self.tell(outcome)

    def _explained(self, outcome: Later | Dead | Busy, raised: object, *, is_kept: bool) -> Outcome:
        organization = self.handle.organization
        try:
            mask = self.attempts.masks.of(organization.id, organization.settings)
            return explained(outcome, raised, mask.hide, self.handle.event if is_kept else None)
        except BaseException:  # noqa: BLE001  as everywhere: it must be told, whatever is raised
            return replace(outcome, error="what went wrong can't be told")

    # Cancelling: asked, asked again, and in the end no longer waited for

    def cancel(self, cause: Cause = Cause.WORKER) -> None:
        """Have the handler end soon, one way or another."""
        if self.is_over or self.cause is not Cause.NOBODY:
            return
        self.cause = cause
        if not self.has_started:  # a task that is cancelled before it starts runs nothing
            self._ask()
            self.give_up(outcome_of(asyncio.CancelledError(), cause, self.attempts.seconds))
            return
        self.cancelled_at = asyncio.get_running_loop().time()
        self._ask()
        self.attempts.later(self.attempts.grace / 2, self._insist)

    def _ask(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _insist(self) -> None:
        """It was cancelled and goes on; it may be putting things in order, or swallow it."""
        if self.is_over:
            return
        if self.task is not None and self.task.done():  # without a word; see `Attempts.sweep`
            self.end(asyncio.CancelledError())
            return
        grace = self.attempts.grace
        # A little less than the grace, since timers are as exact as the clock's steps.
        if asyncio.get_running_loop().time() - self.cancelled_at < grace * 0.99:
            self._ask()
            self.attempts.later(grace / 2 / _ASKED_AGAIN, self._insist)
            return
        self.attempts.note_stuck(self)
        if self.cause is Cause.WORKER:
            self.give_up(Released())
        else:
            error = took_too_long(self.attempts.seconds)
            error = f"{error} and didn't end when it was cancelled"
            # The next time that it blocks ends the worker, and finds this settled.
            self.give_up(Later(error, failed=True, blocked=self.has_blocked))


class Attempts:
    """The handlers that a worker runs.

    What starts first is over first, since all have the same limit. So only the oldest needs the
    loop's timer: most handlers end before it is looked at, and cost no timer of their own.

    A handler starts in a copy of the context in which this object was made, so it sees nothing of
    what another one has set.

    Args:
        seconds: that a handler may take.
        grace: seconds that it may go on after it was cancelled; then it is stuck.
        log: told of stuck ones.
        masks: hide secrets in what is said of failures.
        keeps_faults: whether somebody is to be given what handlers raise.
    """

    def __init__(
        self,
        seconds: float,
        *,
        grace: float,
        log: FilteringBoundLogger,
        masks: Masks | None = None,
        keeps_faults: Callable[[], bool] = bool,
    ) -> None:
        self.seconds = seconds
        self.grace = grace
        self.masks = masks or Masks()
        self.keeps_faults = keeps_faults
        self.stuck: set[Attempt] = set()
        self._log = log
        self._context = own_context()
        self._running: dict[Attempt, float] = {}  # in the order of their ends
        # Whose timer is set. It is another loop's where each test has one of its own, say.
        self._timed_by: asyncio.AbstractEventLoop | None = None

    def start(self, work: Work, handle: Handle, tell: Callable[[Outcome], None]) -> None:
        """Run a handler from the loop's next turn on.

        Args:
            work: whose event it is.
            handle: the handler with what it gets.
            tell: told the outcome.
        """
        attempt = work.attempt = Attempt(self, work, handle, tell, perf_counter())
        context = (work.context or self._context).copy()
        loop = asyncio.get_running_loop()
        # Not by the factory: it would have to find out what is known here.
        task = attempt.task = Task(attempt.run(), loop=loop, context=context)
        task.origin = work
        end = loop.time() + self.seconds
        if self._timed_by is not loop:
            self._forget_ended_loops()
            self._timed_by = loop
            loop.call_at(end, self._look, context=self._context)
        self._running[attempt] = end

    def forget(self, attempt: Attempt) -> None:
        """It is over."""
        self._running.pop(attempt, None)
        attempt.work.attempt = None

    def _forget_ended_loops(self) -> None:
        """What a loop has left undone when it was closed neither goes on nor can be cancelled."""
        for attempt in list(self._running):
            if attempt.task is not None and attempt.task.get_loop().is_closed():
                self.forget(attempt)

    def excuse(self, seconds: float, *, but: Work | None) -> None:
        """Give handlers back the time in which the loop stood still: it was none of their doing.

        Where it isn't known whose doing it was, it may have been anyone's. Whoever blocks again and
        again, each time too short to be seen, would else give himself time without end: so each
        gets back as much as a handler may take, and no more.

        Args:
            seconds: for how long.
            but: the event that kept it, if known; it has had that time.
        """
        if but is not None and but.attempt is not None:
            but.attempt.has_blocked = True
        for attempt in self._running:
            if but is None:
                self._running[attempt] += min(seconds, self.seconds - attempt.unexplained)
                attempt.unexplained = min(attempt.unexplained + seconds, self.seconds)
            elif attempt.work is not but:
                self._running[attempt] += seconds
        # One that got less may be over before others that started before it.
        self._running = dict(sorted(self._running.items(), key=lambda each: each[1]))

    def sweep(self) -> None:
        """End those whose task has gone without a word.

        A task that is cancelled before its first step never runs, and says nothing.
        """
        for attempt in list(self._running):
            if attempt.task is not None and attempt.task.done():
                attempt.end(asyncio.CancelledError())

    def later(self, seconds: float, then: Callable[[], None]) -> None:
        """Call something later, in no handler's context."""
        asyncio.get_running_loop().call_later(seconds, then, context=self._context)

    def note_stuck(self, attempt: Attempt) -> None:
        """It didn't end when it was cancelled; it is no longer waited for."""
        self.stuck.add(attempt)
        metrics.HANDLERS_STUCK.set(len(self.stuck))
        metrics.HANDLERS_STUCK_TOTAL.labels(attempt.work.type).inc()
        self._log.error(
            "handler_stuck", **attempt.work.naming(), stack=stack_of(attempt.task) or "unknown"
        )

    def is_stuck(self, work: Work) -> bool:
        """Whether it is this event's handler that is no longer waited for, and goes on.

        Any thread may ask.
        """
        return any(attempt.work is work for attempt in list(self.stuck))

    def ended_late(self, attempt: Attempt) -> None:
        """A handler that nobody waited for any more has ended."""
        if attempt in self.stuck:
            self.stuck.discard(attempt)
            metrics.HANDLERS_STUCK.set(len(self.stuck))
            seconds = round(perf_counter() - attempt.began, 3)
            self._log.warning("handler_ended_late", **attempt.work.naming(), seconds=seconds)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timed_by is not loop:
            return  # another one's has taken over
        now = loop.time()
        while self._running:
            attempt, end = next(iter(self._running.items()))
            if end > now:
                loop.call_at(end, self._look, context=self._context)
                return
            del self._running[attempt]
            attempt.cancel(Cause.LIMIT)
        self._timed_by = None


# Which event a task was made under, and who may cancel it


class Task(asyncio.Task[Result]):
    """A task that knows its event: the worker's own, or a handler's. Whoever makes it says which.

    Only the worker may cancel it, and code under the same event.

    Attributes:
        origin: the event for which it runs; ``None`` for the worker's own.
    """

    origin: Work | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Ask it to end, unless that is none of the asking event's business; as in asyncio."""
        asking = CURRENT.get()
        if asking is not None and asking is not self.origin:
            return False
        return super().cancel(msg)


class LeftTask(Task[Result]):
    """A task that code under an event has made.

    Other events may cancel it: clients that handlers share work in tasks that one of them made.
    """

    def cancel(self, msg: Any | None = None) -> bool:
        """Ask it to end; as in asyncio."""
        return asyncio.Task.cancel(self, msg)


def make_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Result] | Generator[Any, None, Result],
    *,
    context: Context | None = None,
    **options: Any,
) -> Task[Result]:
    """Make a task; the loop's task factory."""
    # The worker's own contexts say that there is none, where a handler may be what asks. A library
    # that makes a task in an empty context says nothing, and works for whoever calls it.
    says = context is not None and CURRENT in context
    origin = context[CURRENT] if says and context is not None else CURRENT.get()
    if origin is None:
        return Task(coroutine, loop=loop, context=context, **options)
    task = LeftTask(coroutine, loop=loop, context=context, **options)
    task.origin = origin
    _left.add(task)
    task.add_done_callback(_seen_to_end)
    return task


def _seen_to_end(task: "Task[Any]") -> None:
    _left.discard(task)
    if isinstance(_error_of(task), _FATAL):
        _ended_the_loop.append(task)


def _error_of(task: "Task[Any]") -> BaseException | None:
    """What it raised; unlike `exception` that doesn't count as somebody having asked for it."""
    error: BaseException | None = task._exception  # noqa: SLF001
    return error


def origin_of(task: "asyncio.Task[Any] | None") -> Work | None:
    """The event under which a task was made, if any is known."""
    return task.origin if isinstance(task, Task) else None


def own_context() -> Context:
    """A copy of this context, of which is known that no event runs in it."""
    context = copy_context()
    context.run(CURRENT.set, None)
    return context


def raised_by(error: BaseException) -> Work | None:
    """The event whose task ended the loop with this error, if any is known."""
    tasks = [*_ended_the_loop, *_left]
    _ended_the_loop.clear()
    return next((task.origin for task in tasks if _error_of(task) is error), None)
