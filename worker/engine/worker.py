"""A worker's life: it visits each partition, and claims there until it is told to stop."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from time import monotonic
from typing import Any, Final

from shared.errors import Problem
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from worker.at_work import AtWork
from worker.engine.arq_functions import Context
from worker.engine.aside import Aside
from worker.engine.at_work import at_work
from worker.engine.claims import Duty
from worker.engine.leases import Leases, Profiles
from worker.engine.process import Leave
from worker.engine.supervision import Supervisor
from worker.engine.together import SharedClaims, Together
from worker.engine.visit import Visit, Visited
from worker.engine.watchdog import Watchdog, Watched
from worker.outcomes import Later, text_of
from worker.pipeline.attempts import make_task, own_context
from worker.pipeline.pulse import Pulse
from worker.pipeline.work import Work
from worker.registry import Handlers

_NOTICED: Final = 0.1
"""Seconds of a stand-still from which on handlers get them back."""

_CLOSING: Final = 2.0
"""Seconds that each part of closing may take; Redis may have gone meanwhile."""


class Worker(Visit):
    """The visit to the first partition, or the only one, which leads those to the others.

    Start-up and shutdown hooks, and burst, are arq's.

    Args:
        context: what ``handle_event`` needs; it is in arq's ``ctx``, too.
        partition: the first one.
        open_partitions: opens connections for another event loop: the watchdog's.
        name: of this worker, unique among those alive.
        description: what it says of itself in ``status``, JSON.
        profiles: caps and weights of the organizations as the endpoints file has them now.
        pulse: tells whether this worker's loop goes round.
        aside: the thread of the watchdog; without it the worker has one of its own.
        leave: ends the process for a reason, at once or once it has drained.
        tick: called a few times a second, in this worker's loop.
        is_burst: whether to end once nothing can be handled now; arq's own `burst` waits for what
            is deferred as well.
        others: the other partitions, in order.
        options: those of ``arq.Worker`` in the first one.
    """

    def __init__(
        self,
        context: Context,
        partition: Partition,
        *,
        open_partitions: Callable[[], AbstractAsyncContextManager[Partitions]],
        name: str,
        description: bytes,
        profiles: Callable[[], Profiles],
        pulse: Pulse,
        aside: Aside | None = None,
        leave: Leave,
        tick: Callable[[], None] | None = None,
        is_burst: bool = False,
        others: Sequence[Visited] = (),
        **options: Any,
    ) -> None:
        policy = context.pipeline.policy
        longest = policy.handler_timeout + policy.stuck_after
        duty = Duty.of(lease=context.lease, longest_handler=longest)
        together = Together(options["max_jobs"], duty) if others else None
        visiting: dict[str, Any] = {
            "name": name,
            "pulse": pulse,
            "leave": leave,
            "is_burst": is_burst,
        }
        super().__init__(Visited(context, partition, options), together, **visiting)
        self._visits = (self, *(Visit(each, together, **visiting) for each in others))
        self._open_partitions = open_partitions
        self._name = name
        self._log = context.log
        self._aside = aside
        self._leave = leave
        self._tick = tick
        self._own = own_context()
        self._supervisor = Supervisor(context.log, self._own)
        self._stack = contextlib.AsyncExitStack()
        self._watchdog: Watchdog | None = None
        self._profiles = profiles
        self._weights: tuple[Profiles, dict[str, float]] | None = None
        self._leases = [self._leases_of(visit, description) for visit in self._visits]

    def _leases_of(self, visit: Visit, description: bytes) -> Leases:
        return Leases(
            worker=self._name,
            description=description,
            slots=self.max_jobs,
            lease=visit.context.lease,
            held=visit.claims.held,
            names=lambda: self._names(visit.context.pipeline.handlers),
            # The same in each partition: whoever asks several of them has it once by its name.
            running=lambda: len(self.held()),
            stuck=visit.claims.stuck,
            lost=partial(self._from_aside, visit.claims.lose),
            profiles=self._profiles,
            log=visit.context.log,
            delay=self._pulse.delay,
            at_work=partial(self._at_work, visit),
        )

    def _names(self, handlers: Handlers) -> list[str]:
        return [self._name, *dict.fromkeys(each.name for each in handlers if each.name)]

    def _at_work(self, visit: Visit) -> AtWork:
        """What takes long in a partition; what is stuck, or blocks the loop, is told in each."""
        blocks = None if self._watchdog is None else self._watchdog.blocking
        return at_work(visit.claims.works(), visit.context.pipeline.attempts, blocks)

    async def main(self) -> None:
        """Start as arq does, then claim until told to stop."""
        loop = asyncio.get_running_loop()
        # The program has set it; who runs this worker in a loop of his own has not.
        if loop.get_task_factory() is None:
            loop.set_task_factory(make_task)
        for visit in self._visits:
            visit.loop = loop
            # As arq's own `main` does, for its functions and cron.
            visit.ctx["redis"] = visit.pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        await self._start_watchdog(loop)
        for visit in self._visits:
            self._keep("beat", visit, visit.beat_forever)
            self._keep("claim", visit, visit.claims.claim_forever)
            if isinstance(visit.claims, SharedClaims):
                weigh = partial(visit.claims.weigh_forever, self._known_weights)
                self._keep("weigh", visit, weigh)
        try:
            for visit in self._visits:
                await visit.claims.ended.wait()
        finally:
            await self._supervisor.stop()

    def _keep(self, name: str, visit: Visit, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Keep a visit's loop going; where there are several, it bears the partition's number."""
        is_only = len(self._visits) == 1
        self._supervisor.keep(name if is_only else f"{name} {visit.partition.number}", loop)

    def _known_weights(self) -> dict[str, float]:
        """Of the organizations of the endpoints file, where that isn't 1."""
        profiles = self._profiles()
        if self._weights is None or self._weights[0] is not profiles:
            found = {each.organization: each.weight for each in profiles if each.weight != 1}
            self._weights = profiles, found
        return self._weights[1]

    def stop(self) -> None:
        """Claim no more, and end `main` once nothing runs; ``job_completion_wait`` bounds that."""
        drain = self._job_completion_wait
        for visit in self._visits:
            visit.claims.stop()
        # Cancelled first; what goes on all the same is settled over its head a moment later.
        self.loop.call_later(drain, self._give_back, context=self._own)
        self.loop.call_later(drain + _CLOSING, self._wait_no_longer, context=self._own)

    def _give_back(self, *, in_doubt: bool = False) -> None:
        for visit in self._visits:
            visit.claims.give_back(in_doubt=in_doubt)

    def _wait_no_longer(self) -> None:
        for visit in self._visits:
            visit.claims.wait_no_longer()
            if len(self._visits) > 1:
                visit.claims.ended.set()  # or a Redis that is away takes the others' time to leave

    def break_off(self, error: BaseException, work: Work | None) -> None:
        """Charge the event whose task ended the loop, and give the others back; in any state.

        Where nothing is known of who it was, one of those that run may have been it.
        """
        # The loop has ended by then, and runs again after this.
        self.loop.call_soon(self._break_off, error, work, context=self._own)

    def _break_off(self, error: BaseException, work: Work | None) -> None:
        if work is not None and work.attempt is not None:
            said = f"{text_of(error)}, raised by a task that the handler had started"
            work.attempt.give_up(Later(said, failed=True))
        self.stop()
        self._give_back(in_doubt=work is None)

    async def close(self) -> None:
        """End what still runs and close as arq does; each part in its time, whatever Redis does."""
        self._give_back()
        await asyncio.gather(*map(self._left, self._visits))
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await self._stack.aclose()
        await asyncio.gather(*(_in_time(visit.closed()) for visit in self._visits))

    async def _left(self, visit: Visit) -> None:
        """Take leave of a partition; while the Redis of one is away, others are left."""
        await _in_time(visit.settled())
        await _in_time(visit.forgotten(self._name))

    def held(self) -> list[str]:
        """The jobs that it holds; may be asked in any thread."""
        return [claim.job for visit in self._visits for claim in visit.claims.held()]

    def missing(self) -> list[str]:
        """What has to go on in it and doesn't; may be asked in any thread."""
        missing = self._supervisor.missing()
        return missing if self._watchdog is None else missing + self._watchdog.missing()

    def unheard(self, seconds: float) -> list[int]:
        """The partitions whose Redis hasn't heard of it for so long; may be asked in any thread."""
        since = monotonic() - seconds
        return [
            visit.partition.number
            for visit, leases in zip(self._visits, self._leases, strict=True)
            if leases.renewed_at is None or leases.renewed_at < since
        ]

    def misplaced(self) -> list[Problem]:
        """The primaries that aren't those of their places; may be asked in any thread."""
        return [] if self._watchdog is None else self._watchdog.misplaced()

    # The watchdog

    async def _start_watchdog(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._watchdog is not None:
            return  # `main` was begun anew
        watchdog = self._watchdog = self._new_watchdog(loop)
        self._pulse.start(self._on_tick)
        self._stack.callback(self._pulse.stop)
        aside = self._aside
        if aside is None:
            aside = await self._stack.enter_async_context(Aside())
        await self._stack.enter_async_context(aside.within(watchdog.watching()))

    def _new_watchdog(self, loop: asyncio.AbstractEventLoop) -> Watchdog:
        return Watchdog(
            watched=[
                Watched(
                    number=None if len(self._visits) == 1 else visit.partition.number,
                    leases=leases,
                    claims=visit.claims,
                    pipeline=visit.context.pipeline,
                    announced=partial(self._from_aside, visit.note_heard),
                    log=visit.context.log,
                )
                for visit, leases in zip(self._visits, self._leases, strict=True)
            ],
            pulse=self._pulse,
            loop=loop,
            thread=threading.get_ident(),
            open_partitions=self._open_partitions,
            leave=self._leave,
            log=self._log,
        )

    def _on_tick(self, still: float) -> None:
        attempts = self.context.pipeline.attempts
        if still > _NOTICED and self._watchdog is not None:
            attempts.excuse(still, but=self._watchdog.take_blamed())
        attempts.sweep()
        if self._tick is not None:
            self._tick()

    def _from_aside(self, call: Callable[..., object], *arguments: object) -> None:
        """Have the worker's loop call something; another thread asks for it."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self.loop.call_soon_threadsafe(partial(call, *arguments), context=self._own)


async def _in_time(part: Awaitable[None]) -> None:
    """As far as it gets."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSING):
            await part
