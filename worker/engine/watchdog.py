"""Does from a thread of its own what a worker's loop can't while it stands still."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any, Final

from shared.errors import Problem
from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.program.awaiting import AwaitedPrimary
from shared.queue.partitions import Partitions, check_place
from shared.redis.connection import REDIS_ERRORS, server_of
from worker.at_work import Doing
from worker.engine.at_work import blocking
from worker.engine.claims import Claims
from worker.engine.leases import Leases
from worker.engine.process import Exit, Leave
from worker.engine.supervision import Supervisor
from worker.outcomes import Dead, Later, Outcome, Released
from worker.pipeline.attempts import origin_of
from worker.pipeline.batcher import Outage
from worker.pipeline.driver import Pipeline
from worker.pipeline.pulse import Pulse
from worker.pipeline.transitions import Settled, Settlement, Transitions
from worker.pipeline.work import Work
from worker.tracebacks import place

_BATCH: Final = 40
_STILL_HELD: Final = (Settled.AGAIN, Settled.CONFLICT, Settled.OVERDUE)
_MOST_FRAMES: Final = 12
_LOOPS: Final = "worker.engine.process"
"""The module that runs the loop."""

_FILE_SECONDS: Final = 2.0
"""How soon Redis hears of caps, weights and rates that the endpoints file has changed, and of what
takes long."""

_CLOSING: Final = 2.0
"""Seconds that giving back may take: the loop stands still, and Redis may have gone, too."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What a worker has in one partition.

    Attributes:
        number: of the partition; ``None`` where it is the only one.
        leases: the worker's signs of life.
        claims: what it holds.
        pipeline: knows the rules, and where ends are told.
        announced: told of each sign of life that has reached Redis.
        log: told when Redis goes away.
    """

    number: int | None
    leases: Leases
    claims: Claims
    pipeline: Pipeline
    announced: Callable[[], None]
    log: FilteringBoundLogger

    async def beat_forever(self, transitions: Transitions, primary: AwaitedPrimary) -> None:
        """A sign of life every third of a lease, whatever Redis does.

        Before the first one nothing is claimed, so it is given to the right primary only: what is
        claimed of another one would be handled under wrong names.
        """
        await primary.found()
        outage = Outage(self.log, "renew")
        while True:
            try:
                await self.leases.beat(transitions)
            except REDIS_ERRORS as exc:
                await outage.pause(exc)
            else:
                outage.over()
                self.announced()
                await self._sleep(self.leases.lease / 3, transitions)

    async def _sleep(self, seconds: float, transitions: Transitions) -> None:
        """Sleep until the next sign of life; tell meanwhile what the endpoints file says now."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            await asyncio.sleep(min(left, _FILE_SECONDS))
            with suppress(*REDIS_ERRORS):  # the next sign of life says so
                await self.leases.show(transitions)
                if left > _FILE_SECONDS:
                    await self.leases.tell_changes(transitions)

    async def part(self, transitions: Transitions, blocking: Work | None, seconds: float) -> None:
        """Settle for the loop what it holds; see `Parting.settle`."""
        works = self.claims.works()
        try:
            # First, so that the jobs of a claim that nobody has read aren't suspected of this.
            await self.claims.asked.disown(transitions)
            await Parting(self.pipeline, transitions).settle(works, blocking, seconds)
            await transitions.leave(self.leases.worker)
        except (Exception, asyncio.CancelledError) as exc:
            self.log.warning("left_to_lease", jobs=len(works), error=str(exc))
            raise


@dataclass(slots=True)
class Watchdog:
    """Looks after one worker; its coroutines run in another thread than the worker's.

    It renews the leases, and ends the process once one event has kept the loop for as long as a
    handler may take; at once where what blocks is stuck, since nobody gets on beside it, not even
    to leave. Where it can't run either, as beside an extension that keeps Python's lock, the leases
    expire. Where the whole process was suspended, it judges nothing.

    Attributes:
        watched: what it has in each partition, by number. Each is renewed on its own: a Redis that
            stands still delays no other's.
        pulse: of the worker's loop.
        loop: the worker's.
        thread: the id of the thread that runs it.
        open_partitions: connections of this thread's own.
        leave: ends the process.
        log: told of a loop that stands still.
        blocking: what keeps the loop from turning, while it stands still.
    """

    watched: Sequence[Watched]
    pulse: Pulse
    loop: asyncio.AbstractEventLoop
    thread: int
    open_partitions: Callable[[], AbstractAsyncContextManager[Partitions]]
    leave: Leave
    log: FilteringBoundLogger
    _supervisor: Supervisor = field(init=False)
    _primaries: Sequence[AwaitedPrimary] = field(default=(), init=False)
    _blamed: tuple[Work | None, float] = field(default=(None, 0.0), init=False)
    _keeper: "Work | asyncio.Task[Any] | None" = field(default=None, init=False)
    _keeps_from: float = field(default=0.0, init=False)
    _has_left: bool = field(default=False, init=False)
    blocking: Doing | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._supervisor = Supervisor(self.log, copy_context())

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Renew and watch, in this loop, while the block runs."""
        async with self.open_partitions() as partitions:
            here = [Transitions(partition) for partition in partitions]
            primaries = _awaited(partitions)
            self._primaries = list(dict.fromkeys(primaries))
            for each, transitions, primary in zip(self.watched, here, primaries, strict=True):
                name = "renew" if each.number is None else f"renew {each.number}"
                self._supervisor.keep(name, partial(each.beat_forever, transitions, primary))
            self._supervisor.keep("watch", partial(self._watch_forever, here))
            try:
                yield
            finally:
                await self._supervisor.stop()

    def missing(self) -> list[str]:
        """The loops that are not running."""
        return self._supervisor.missing()

    def misplaced(self) -> list[Problem]:
        """The primaries that came back as others, where nothing has begun."""
        return [problem for each in self._primaries for problem in each.misplaced()]

    def take_blamed(self) -> Work | None:
        """The event that kept the loop from turning until now, if known; asked in the loop."""
        blamed, since = self._blamed
        # The loop may have ticked before that was written down: then it is of a stand-still before.
        return blamed if since == self.pulse.before else None

    async def _watch_forever(self, here: Sequence[Transitions]) -> None:
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
                said, counted, self.blocking = False, 0.0, None
                continue
            work = self._blocking()
            stack = self._hidden(self._stack())
            self.blocking = blocking(work, self._task_name() or "", still, stack)
            # What is new since the last look, so that one long stand-still is counted as it goes
            # on.
            _count(work, still - counted)
            counted = still
            self._blamed = (work, since)
            if not said:
                said = True
                self._say("loop_blocked", work, still)
            code = self._why_to_leave(work, kept)
            # Once: to leave takes seconds, and the loop stands still for all of them.
            if code is not None and not self._has_left:
                self._has_left = True
                if code is Exit.BLOCKED:
                    self._say("worker_blocked", work, kept)
                await self._leave(here, work, kept, code)

    def _why_to_leave(self, work: Work | None, kept: float) -> Exit | None:
        pipeline = self.watched[0].pipeline  # attempts and rules are the same in all
        is_stuck = work is not None and pipeline.attempts.is_stuck(work)
        if kept > self.pulse.limit and is_stuck:
            return Exit.STUCK
        return Exit.BLOCKED if kept > pipeline.policy.handler_timeout else None

    async def _leave(
        self, here: Sequence[Transitions], work: Work | None, seconds: float, code: Exit
    ) -> None:
        """Settle for the loop what it holds, and end the process."""
        for each in self.watched:
            each.claims.claim_no_more()  # should the loop wake up meanwhile
        if code is Exit.STUCK:
            self.watched[0].claims.note_stuck()
        try:
            async with asyncio.timeout(_CLOSING):
                # All at once, since the Redis of one may have gone.
                parts = zip(self.watched, here, strict=True)
                await asyncio.gather(
                    *(each.part(there, work, seconds) for each, there in parts),
                    return_exceptions=True,
                )
        except TimeoutError:
            pass  # the process has to end, and each has said what it left
        finally:
            self.leave(code, at_once=True)  # the loop will not do it

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
        named = work.naming() if work is not None else {"handler": None, "task": self._task_name()}
        self.log.error(event, **named, seconds=round(still, 3), stack=self._stack())

    def _task_name(self) -> str | None:
        task = asyncio.current_task(self.loop)
        return None if task is None else task.get_name()

    def _hidden(self, text: str) -> str:
        return self.watched[0].pipeline.attempts.masks.own.hide(text)

    def _stack(self) -> str:
        """Where the worker's thread is in what its loop does, the innermost call last."""
        places: list[str] = []
        frame: FrameType | None = sys._current_frames().get(self.thread)  # noqa: SLF001  public but in name
        while frame is not None and len(places) < _MOST_FRAMES:
            # How the program came to its loop says nothing of what stands still in it. But that has
            # no frame of its own where the loop calls what is written in C.
            if places and frame.f_globals.get("__name__") == _LOOPS:
                break
            places.append(place(frame.f_code, frame.f_lineno))
            frame = frame.f_back
        return " > ".join(reversed(places))


def _awaited(partitions: Partitions) -> list[AwaitedPrimary]:
    """The primary of each partition; one that works has been enough for the start."""
    primaries, found = partitions.by_primary(), dict[int, AwaitedPrimary]()
    for number, there in enumerate(primaries):
        # Which node of a cluster has one is known once that has been reached.
        at = f"partition {number}" if partitions.in_cluster else server_of(there[0].redis)
        primary = AwaitedPrimary(
            partial(check_place, partitions, number, drains=True),
            named=at,
            is_found=len(primaries) == 1,
        )
        found |= {partition.number: primary for partition in there}
    return [found[partition.number] for partition in partitions]


def _count(work: Work | None, seconds: float) -> None:
    metrics.LOOP_BLOCKED.labels("" if work is None else work.type).inc(max(0.0, seconds))


@dataclass(frozen=True, slots=True)
class Parting:
    """The last word about each event of a worker that is about to end.

    Should the loop wake up meanwhile and say another: the token lets one of the two through.

    Attributes:
        pipeline: knows the rules, and where ends are told.
        transitions: on a connection of the thread that does this.
    """

    pipeline: Pipeline
    transitions: Transitions

    async def settle(self, works: list[Work], blocking: Work | None, seconds: float) -> None:
        """Charge the event that blocks, and give the others back.

        Nobody is charged where nothing is known of who blocks. What a handler was at then stays
        counted: one of these it was, and should that happen again, they run in smaller groups.

        Args:
            works: all that the worker holds.
            blocking: the one that blocks, if known.
            seconds: for how long.
        """
        ends = [(work, *self._end(work, blocking, seconds)) for work in works]
        left = await self._settle_all(ends)
        # Its commit came too late, or was refused: it is given back like those that still run.
        back = [(work, Released(), Settlement(work.claim, "release")) for work in left]
        await self._settle_all(back)

    async def _settle_all(self, ends: Sequence[tuple[Work, Outcome, Settlement]]) -> list[Work]:
        """Settle and tell; answers those that are still held."""
        left: list[Work] = []
        for start in range(0, len(ends), _BATCH):
            batch = ends[start : start + _BATCH]
            settled = await self.transitions.settle([settlement for _, _, settlement in batch])
            for (work, outcome, _), answer in zip(batch, settled, strict=True):
                if not isinstance(answer, Settled) or answer in _STILL_HELD:
                    left.append(work)
                elif answer is not Settled.LOST or work.settling is None:
                    # Else it was sent a second time: the first one has been applied.
                    self.pipeline.report.settled(work, outcome, answer, now=time.time())
        return left

    def _end(self, work: Work, blocking: Work | None, seconds: float) -> tuple[Outcome, Settlement]:
        settling = work.settling
        goes_on = work is blocking and self._goes_on(work)
        if settling is not None and not goes_on:
            # It has ended; only its commit is still to be sent, or its reply read.
            return settling
        outcome: Outcome
        if work is blocking:
            said = "didn't end when it was cancelled, and " if goes_on else ""
            said += f"blocked the worker for {seconds:.1f} s"
            outcome = Later(said, failed=True, blocked=True)
        else:
            outcome = Released(in_doubt=blocking is None and work.attempt is not None)
        outcome = self.pipeline.settlements.final(work, outcome)
        return outcome, self.pipeline.settlements.of(work, outcome)

    def _goes_on(self, work: Work) -> bool:
        """Whether its attempt is to be settled as failed since it doesn't end."""
        settling = work.settling
        is_failed = settling is not None and isinstance(settling[0], Later | Dead)
        return is_failed and self.pipeline.attempts.is_stuck(work)
