"""arq's worker around a claim and a finish of our own: its life, and its way with other jobs."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, cast

import arq
from arq.constants import result_key_prefix
from arq.utils import timestamp_ms

from shared.queue import job as jobs
from shared.queue.job import bears_digest
from shared.queue.partition import Partition
from shared.redis.connection import REDIS_ERRORS
from worker.engine.arq_functions import CLAIM, OURS, Call, Context
from worker.engine.aside import Aside
from worker.engine.claims import Claims, Ended
from worker.engine.leases import Leases, Profiles
from worker.engine.process import Leave
from worker.engine.supervision import Supervisor
from worker.engine.watchdog import Watchdog
from worker.outcomes import Later, text_of
from worker.pipeline.attempts import make_task, own_context
from worker.pipeline.batcher import Outage
from worker.pipeline.driver import Slots
from worker.pipeline.pulse import Pulse
from worker.pipeline.transitions import Claim, Settlement
from worker.pipeline.work import Work

_BEAT: Final = 0.5
"""Seconds between arq's own beats: health record and cron."""

_NOTICED: Final = 0.1
"""Seconds of a stand-still from which on handlers get them back."""

_CLOSING: Final = 2.0
"""Seconds that each part of closing may take; Redis may have gone meanwhile."""


class Worker(arq.Worker):
    """An ``arq.Worker`` that claims, keeps and settles jobs by this project's scripts.

    Functions, ctx, start-up and shutdown hooks, cron and burst are arq's. Jobs of other functions
    than ``handle_event`` are run by arq's own ``run_job``.

    Args:
        context: what ``handle_event`` needs; it is in arq's ``ctx``, too.
        partition: for sleeping.
        open_partition: opens connections for another event loop: the watchdog's.
        name: of this worker, unique among those alive.
        description: what it says of itself in ``status``, JSON.
        profiles: caps and weights of the organizations as the endpoints file has them now.
        pulse: tells whether this worker's loop goes round.
        aside: the thread of the watchdog; without it the worker has one of its own.
        leave: ends the process for a reason, at once or once it has drained.
        tick: called a few times a second, in this worker's loop.
        is_burst: whether to end once nothing can be handled now; arq's own `burst` waits for what
            is deferred as well.
        options: those of ``arq.Worker``.
    """

    def __init__(
        self,
        context: Context,
        partition: Partition,
        *,
        open_partition: Callable[[], AbstractAsyncContextManager[Partition]],
        name: str,
        description: bytes,
        profiles: Callable[[], Profiles],
        pulse: Pulse,
        aside: Aside | None = None,
        leave: Leave,
        tick: Callable[[], None] | None = None,
        is_burst: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._open_partition = open_partition
        self._context = context
        self._log = context.log
        self._transitions = context.transitions
        self._foreign: dict[str, Claim] = {}
        self._aside = aside
        self._pulse = pulse
        self._leave = leave
        self._tick = tick
        self._own = own_context()
        self._supervisor = Supervisor(context.log, self._own)
        self._stack = contextlib.AsyncExitStack()
        self._watchdog: Watchdog | None = None
        self._claims = Claims(
            self,
            context,
            partition,
            name=name,
            pulse=pulse,
            leave=leave,
            call=self._call,
            is_burst=is_burst,
        )
        # What arq counts in its health record.
        self.tasks = cast("dict[str, asyncio.Task[Any]]", self._claims.running)
        self._leases = Leases(
            worker=name,
            description=description,
            slots=self.max_jobs,
            lease=context.lease,
            held=self._claims.held,
            stuck=self._claims.stuck,
            lost=partial(self._from_aside, self._claims.lose),
            profiles=profiles,
            log=context.log,
        )

    async def main(self) -> None:
        """Start as arq does, then claim until told to stop."""
        loop = asyncio.get_running_loop()
        # The program has set it; who runs this worker in a loop of his own has not.
        if loop.get_task_factory() is None:
            loop.set_task_factory(make_task)
        self.loop = loop
        # As arq's own `main` does, for its functions and cron.
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        await self._start_watchdog(loop)
        self._supervisor.keep("beat", self._beat_forever)
        self._supervisor.keep("claim", self._claims.claim_forever)
        try:
            await self._claims.ended.wait()
        finally:
            await self._supervisor.stop()

    def stop(self) -> None:
        """Claim no more, and end `main` once nothing runs; ``job_completion_wait`` bounds that."""
        claims, drain = self._claims, self._job_completion_wait
        claims.stop()
        # Cancelled first; what goes on all the same is settled over its head a moment later.
        self.loop.call_later(drain, claims.give_back, context=self._own)
        self.loop.call_later(drain + _CLOSING, claims.wait_no_longer, context=self._own)

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
        self._claims.give_back(in_doubt=work is None)

    async def close(self) -> None:
        """End what still runs and close as arq does; each part in its time, whatever Redis does."""
        self._claims.give_back()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING):
                await self._claims.until_idle()
                await self._context.batcher.drain()
        with contextlib.suppress(*REDIS_ERRORS):
            async with asyncio.timeout(_CLOSING):
                await self._claims.asked.disown()
                await self._transitions.leave(self._leases.worker)
                await self.pool.delete(self.health_check_key)
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await self._stack.aclose()
        with contextlib.suppress(*REDIS_ERRORS):
            async with asyncio.timeout(_CLOSING):
                await self.pool.aclose(close_connection_pool=True)

    def held(self) -> list[str]:
        """The jobs that it holds; may be asked in any thread."""
        return [claim.job for claim in self._claims.held()]

    def missing(self) -> list[str]:
        """What has to go on in it and doesn't; may be asked in any thread."""
        missing = self._supervisor.missing()
        return missing if self._watchdog is None else missing + self._watchdog.missing()

    def last_renewed(self) -> float | None:
        """When Redis last heard of it, by the monotonic clock; ``None``: never."""
        return self._leases.renewed_at

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
            leases=self._leases,
            claims=self._claims,
            pipeline=self._context.pipeline,
            pulse=self._pulse,
            loop=loop,
            thread=threading.get_ident(),
            open_partition=self._open_partition,
            leave=self._leave,
            log=self._log,
            announced=partial(self._from_aside, self._claims.announced.set),
        )

    def _on_tick(self, still: float) -> None:
        attempts = self._context.pipeline.attempts
        if still > _NOTICED and self._watchdog is not None:
            attempts.excuse(still, but=self._watchdog.take_blamed())
        attempts.sweep()
        if self._tick is not None:
            self._tick()

    def _from_aside(self, call: Callable[..., object], *arguments: object) -> None:
        """Have the worker's loop call something; another thread asks for it."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self.loop.call_soon_threadsafe(partial(call, *arguments), context=self._own)

    # arq's own way, for functions that are not ours

    def _call(self, claim: Claim, payload: bytes, ended: Ended, slots: Slots) -> Call:
        return Call(self._run(claim, jobs.deserialize(payload)), ended, slots)

    async def _run(self, claim: Claim, record: dict[str, Any]) -> None:
        name = record["f"]
        if not self._may_call(claim.job, record):
            name, record = jobs.UNDECODABLE, {**record, "a": (), "k": {}}
        # arq's own end of a job comes back to `finish_job`, which needs the claim.
        if name not in OURS:
            self._foreign[claim.job] = claim
            await self.run_job(claim.job, 0)
            return
        ctx = {**self.ctx, "job_id": claim.job, "job_try": claim.attempts + 1, CLAIM: claim}
        if self.on_job_start:
            await self.on_job_start(ctx)
        await self.functions[name].coroutine(ctx, *record["a"], **record["k"])
        if self.on_job_end:
            await self.on_job_end(ctx)
        if self.after_job_end:
            await self.after_job_end(ctx)

    def _may_call(self, job: str, record: dict[str, Any]) -> bool:
        """Whether the record is a call that may be run under this job's id.

        Under an id of ours an ingress puts nothing but deliveries, so whatever else stands there
        must not end without a word. No function of ours takes arguments by name.
        """
        name = record["f"]
        if name == jobs.FUNCTION:
            return not record["k"]
        return name in self.functions and name not in OURS and not bears_digest(job)

    async def finish_job(  # noqa: PLR0917  # arq's own signature
        self,
        job_id: str,
        finish: bool,  # noqa: FBT001
        result_data: bytes | None,
        result_timeout_s: float | None,
        keep_result_forever: bool,  # noqa: FBT001
        incr_score: int | None,
        keep_in_progress: float | None,  # noqa: ARG002
    ) -> None:
        """Do what arq does at the end of a job, by a transition that its claim fences."""
        claim = self._foreign.pop(job_id)
        # Before the job goes: who waits for its result takes a job that is gone without one for
        # lost.
        if finish and result_data:
            expire = None if keep_result_forever else round((result_timeout_s or 0) * 1000)
            await self.pool.set(result_key_prefix + job_id, result_data, px=expire)
        if finish:
            settlement = Settlement(claim, "remove")
        elif incr_score:  # run_job was told score 0, so this is the time at which it is due
            settlement = Settlement(claim, "retry", (max(0, incr_score - timestamp_ms()),))
        else:
            settlement = Settlement(claim, "release")
        await self._context.batcher.settle(settlement)

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """Do what arq does with a job that can't be run."""
        await self.finish_job(
            job_id,
            finish=True,
            result_data=result_data if self.keep_result_forever or self.keep_result_s else None,
            result_timeout_s=self.keep_result_s,
            keep_result_forever=self.keep_result_forever,
            incr_score=None,
            keep_in_progress=None,
        )

    async def _beat_forever(self) -> None:
        """arq's health record and cron."""
        outage = Outage(self._log, "beat", self._pulse)
        while True:
            try:
                await self.heart_beat()
            except REDIS_ERRORS as exc:
                await outage.pause(exc)
            else:
                outage.over()
                await asyncio.sleep(_BEAT)
