"""Renews the leases, and sees the worker's loop stand still, from a thread of its own."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from time import monotonic
from types import FrameType
from typing import Any, Final

from redis.asyncio import Redis

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.redis.connection import REDIS_ERRORS
from worker.engine.exits import Exit
from worker.engine.leases import Leases
from worker.engine.supervision import Supervisor
from worker.pipeline.attempts import naming, place
from worker.pipeline.origins import origin_of
from worker.pipeline.outage import Outage
from worker.pipeline.pulse import Pulse
from worker.pipeline.transitions import Transitions
from worker.pipeline.work import Work

_MOST_FRAMES: Final = 12

Leave = Callable[[Transitions, Work | None, float, Exit], Awaitable[None]]
"""Ends the process: what blocks it, as far as that is known, for how many seconds, with what."""


@dataclass(slots=True)
class Watchdog:
    """Looks after one worker; its coroutines run in another thread than the worker's.

    Where it can't run either, as beside an extension that keeps Python's lock, the leases expire.
    Where the whole process was suspended, it judges nothing.

    Attributes:
        leases: what the worker holds.
        pulse: of the worker's loop.
        loop: the worker's.
        thread: the id of the thread that runs it.
        limit: seconds for which one event may keep the loop until the process ends.
        open_redis: connections of this thread's own.
        is_stuck: whether an event's handler goes on though it was told to end.
        leave: called once the limit is over, and at once where what blocks is stuck: nobody gets on
            beside it, not even to leave.
        log: told of a loop that stands still.
        announced: told of each sign of life that has reached Redis.
    """

    leases: Leases
    pulse: Pulse
    loop: asyncio.AbstractEventLoop
    thread: int
    limit: float
    open_redis: Callable[[], AbstractAsyncContextManager[Redis]]
    is_stuck: Callable[[Work], bool]
    leave: Leave
    log: FilteringBoundLogger
    announced: Callable[[], None]
    _supervisor: Supervisor = field(init=False)
    _blamed: tuple[Work | None, float] = field(default=(None, 0.0), init=False)
    _keeper: "Work | asyncio.Task[Any] | None" = field(default=None, init=False)
    _keeps_from: float = field(default=0.0, init=False)
    _has_left: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._supervisor = Supervisor(self.log, copy_context())

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Renew and watch, in this loop, while the block runs."""
        async with self.open_redis() as redis:
            transitions = Transitions(redis)
            self._supervisor.keep("renew", lambda: self._beat_forever(transitions))
            self._supervisor.keep("watch", lambda: self._watch_forever(transitions))
            try:
                yield
            finally:
                await self._supervisor.stop()

    def missing(self) -> list[str]:
        """The loops that are not running."""
        return self._supervisor.missing()

    def take_blamed(self) -> Work | None:
        """The event that kept the loop from turning until now, if known; asked in the loop."""
        blamed, since = self._blamed
        # The loop may have ticked before that was written down: then it is of a stand-still before.
        return blamed if since == self.pulse.before else None

    async def _beat_forever(self, transitions: Transitions) -> None:
        """A sign of life every third of a lease, whatever Redis does."""
        outage = Outage(self.log, "renew")
        while True:
            try:
                await self.leases.beat(transitions)
            except REDIS_ERRORS as exc:
                await outage.pause(exc)
            else:
                outage.over()
                self.announced()
                await asyncio.sleep(self.leases.lease / 3)

    async def _watch_forever(self, transitions: Transitions) -> None:
        step = self.pulse.limit / 4
        said, counted = False, 0.0
        while True:
            before = monotonic()
            await asyncio.sleep(step)
            if monotonic() - before > step + self.pulse.limit:
                self.pulse.forgive()  # this thread stood still as well, so the process did
            since, still = self.pulse.last, self.pulse.still()
            kept = self._look_who_keeps_it(still)
            if still < self.pulse.limit:
                said, counted = False, 0.0
                continue
            work = self._blocking()
            _count(work, still - counted)
            counted = still
            self._blamed = (work, since)
            if not said:
                said = True
                self._say("loop_blocked", work, still)
            code = self._why_to_leave(work, kept)
            if code is not None and not self._has_left:
                self._has_left = True
                if code is Exit.BLOCKED:
                    self._say("worker_blocked", work, kept)
                await self.leave(transitions, work, kept, code)

    def _why_to_leave(self, work: Work | None, kept: float) -> Exit | None:
        if kept > self.pulse.limit and work is not None and self.is_stuck(work):
            return Exit.STUCK
        return Exit.BLOCKED if kept > self.limit else None

    def _look_who_keeps_it(self, still: float) -> float:
        """Seconds for which it has been the same event, or task, that keeps the loop.

        Many that each take a moment may come in one turn of the loop: then it is none of them.
        """
        task = asyncio.current_task(self.loop)
        keeper = origin_of(task) or task
        if keeper is not self._keeper or still < self._keeps_from:
            self._keeper, self._keeps_from = keeper, still
        return still - self._keeps_from

    def _blocking(self) -> Work | None:
        """The event whose code keeps the loop, as far as that can be told from here."""
        return self._keeper if isinstance(self._keeper, Work) else None

    def _say(self, event: str, work: Work | None, still: float) -> None:
        named = naming(work) if work is not None else {"handler": None, "task": self._task_name()}
        self.log.error(event, **named, seconds=round(still, 3), stack=self._stack())

    def _task_name(self) -> str | None:
        task = asyncio.current_task(self.loop)
        return None if task is None else task.get_name()

    def _stack(self) -> str:
        """Where the worker's thread is, the innermost call last."""
        places: list[str] = []
        frame: FrameType | None = sys._current_frames().get(self.thread)  # noqa: SLF001  public but in name
        while frame is not None and len(places) < _MOST_FRAMES:
            places.append(place(frame.f_code, frame.f_lineno))
            frame = frame.f_back
        return " > ".join(reversed(places))


def _count(work: Work | None, seconds: float) -> None:
    event_type = work.envelope.type if work is not None and work.envelope is not None else ""
    metrics.LOOP_BLOCKED.labels(event_type).inc(max(0.0, seconds))
