"""arq's worker with a claim and a finish of its own: batched, leased, fair."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, cast

import arq
from arq.constants import result_key_prefix
from arq.utils import timestamp_ms
from redis.asyncio import Redis

from shared.observe import metrics
from shared.program import garbage
from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.job import bears_digest
from shared.redis.connection import REDIS_ERRORS
from worker.engine.aside import Aside
from worker.engine.duty import Duty
from worker.engine.exits import Exit, Leave
from worker.engine.leases import Leases, Profiles
from worker.engine.parting import Parting
from worker.engine.stock import CLAIM, OURS, Context
from worker.engine.supervision import Supervisor
from worker.engine.unread import Unread
from worker.engine.watchdog import Watchdog
from worker.outcomes import Later, Released, text_of
from worker.pipeline.driver import AWAY
from worker.pipeline.origins import make_task, own_context
from worker.pipeline.outage import Outage
from worker.pipeline.pulse import Pulse
from worker.pipeline.transitions import (
    SUSPECT_FROM,
    Claim,
    Claimed,
    Settled,
    Settlement,
    Transitions,
)
from worker.pipeline.work import Work

_LONGEST_SLEEP: Final = 1.0
"""Seconds that an idle worker sleeps at the most before it looks by itself."""

_MOST_CLAIMED: Final = 48
"""Jobs of one claim: more, and the scripts of others wait too long for Redis; fewer, and claims,
which come one after the other, don't keep the slots filled."""

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
        redis: for the scripts and for sleeping.
        open_redis: opens connections for another event loop: the watchdog's.
        name: of this worker, unique among those alive.
        description: what it says of itself in ``status``, JSON.
        profiles: caps and weights of the organizations as the endpoints file has them now.
        pulse: tells whether this worker's loop goes round.
        aside: the thread of the watchdog; without it the worker has one of its own.
        leave: ends the process for a reason, at once or once it has drained.
        tick: called a few times a second, in this worker's loop.
        options: those of ``arq.Worker``.
    """

    def __init__(
        self,
        context: Context,
        redis: Redis,
        *,
        open_redis: Callable[[], AbstractAsyncContextManager[Redis]],
        name: str,
        description: bytes,
        profiles: Callable[[], Profiles],
        pulse: Pulse,
        aside: Aside | None = None,
        leave: Leave,
        tick: Callable[[], None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._redis = redis
        self._open_redis = open_redis
        self._name = name
        self._context = context
        self._log = context.log
        self._transitions = context.transitions
        self._running: dict[str, Work | _Call] = {}
        self.tasks = cast(
            "dict[str, asyncio.Task[Any]]", self._running
        )  # what arq counts, and ends
        self._busy = 0
        self._changed = asyncio.Event()
        self._foreign: dict[str, Claim] = {}
        self._aside = aside
        self._pulse = pulse
        self._leave = leave
        self._tick = tick
        self._own = own_context()
        self._supervisor = Supervisor(context.log, self._own)
        self._stack = contextlib.AsyncExitStack()
        self._watchdog: Watchdog | None = None
        self._announced = asyncio.Event()
        self._claimed_all = asyncio.Event()
        policy = context.pipeline.policy
        self._suspect_from = min(SUSPECT_FROM, policy.max_claims)
        self._duty = Duty.of(
            lease=context.lease, longest_handler=policy.handler_timeout + policy.stuck_after
        )
        self._unread = Unread(context.transitions, context.lease)
        self._garbage = garbage.Watch()
        self._leases = Leases(
            worker=name,
            description=description,
            slots=self.max_jobs,
            lease=context.lease,
            profiles=profiles,
            log=context.log,
            lost=partial(self._from_aside, self._lose),
            stuck=self._stuck,
        )

    async def main(self) -> None:
        """Start as arq does, then claim until told to stop."""
        loop = asyncio.get_running_loop()
        if loop.get_task_factory() is None:
            loop.set_task_factory(make_task)
        self.loop = loop
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        await self._start_watchdog(loop)
        self._supervisor.keep("beat", self._beat_forever)
        self._supervisor.keep("claim", self._claim_forever)
        try:
            await self._claimed_all.wait()
        finally:
            await self._supervisor.stop()

    def stop(self) -> None:
        """Claim no more, and end `main` once nothing runs; ``job_completion_wait`` bounds that."""
        self.allow_pick_jobs = False
        self._changed.set()
        self._announced.set()  # who has never been heard of has nothing to wait for
        self._give_back_waiting()
        drain = self._job_completion_wait
        self.loop.call_later(drain, self.give_back, context=self._own)
        self.loop.call_later(drain + _CLOSING, self._wait_no_longer, context=self._own)

    def _give_back_waiting(self) -> None:
        """Other workers may have the memory at once that these wait for, or would."""
        self._context.pipeline.memory.is_closed = True
        for running in list(self._running.values()):
            if isinstance(running, Work) and running.share is not None and running.share.waits:
                running.cancel()

    def _wait_no_longer(self) -> None:
        """Release what goes on though it was cancelled: a deploy is no reason for a suspect."""
        for running in list(self._running.values()):
            if isinstance(running, Work) and running.attempt is not None:
                running.attempt.give_up(Released(in_doubt=running.in_doubt))

    def give_back(self, *, in_doubt: bool = False) -> None:
        """End what runs, which gives it back.

        Args:
            in_doubt: whether one of these may be what ends the process.
        """
        for running in list(self._running.values()):
            running.cancel(in_doubt=in_doubt)

    def break_off(self, error: BaseException, work: Work | None) -> None:
        """Charge the event whose task ended the loop, and give the others back; in any state.

        Where nothing is known of who it was, one of those that run may have been it.
        """
        self.loop.call_soon(self._break_off, error, work, context=self._own)

    def _break_off(self, error: BaseException, work: Work | None) -> None:
        if work is not None and work.attempt is not None:
            said = f"{text_of(error)}, raised by a task that the handler had started"
            work.attempt.give_up(Later(said, failed=True))
        self.stop()
        self.give_back(in_doubt=work is None)

    async def close(self) -> None:
        """End what still runs and close as arq does; each part in its time, whatever Redis does."""
        self.give_back()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING):
                await self._until_idle()
                await self._context.pipeline.ledger.drain()
        with contextlib.suppress(*REDIS_ERRORS):
            async with asyncio.timeout(_CLOSING):
                await self._unread.disown()
                await self._transitions.leave(self._name)
                await self.pool.delete(self.health_check_key)
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await self._stack.aclose()
        with contextlib.suppress(*REDIS_ERRORS):
            async with asyncio.timeout(_CLOSING):
                await self.pool.aclose(close_connection_pool=True)

    def held(self) -> list[str]:
        """The jobs that it holds; may be asked in any thread."""
        return [claim.job for claim in self._leases.held()]

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
            pulse=self._pulse,
            loop=loop,
            thread=threading.get_ident(),
            limit=self._context.pipeline.policy.handler_timeout,
            is_stuck=self._context.pipeline.attempts.is_stuck,
            open_redis=self._open_redis,
            leave=self._leave_blocked,
            log=self._log,
            announced=partial(self._from_aside, self._announced.set),
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

    async def _leave_blocked(
        self, transitions: Transitions, work: Work | None, seconds: float, code: Exit
    ) -> None:
        """Settle for the loop what it holds, and end the process; called in the watchdog's loop."""
        self.allow_pick_jobs = False  # should the loop wake up meanwhile
        if code is Exit.STUCK:
            self._note_stuck()
        works = [each for each in list(self._running.values()) if isinstance(each, Work)]
        try:
            async with asyncio.timeout(_CLOSING):
                if (base := self._unread.base) is not None:
                    await transitions.disown(base, lease=self._context.lease)
                await Parting(self._context.pipeline, transitions).settle(works, work, seconds)
                await transitions.leave(self._name)
        except Exception as exc:  # noqa: BLE001  the process has to end, whatever this does
            self._log.warning("left_to_lease", jobs=len(works), error=str(exc))
        finally:
            self._leave(code, at_once=True)  # the loop will not do it

    def _lose(self, claim: Claim) -> None:
        """Somebody else has the job, or nobody: what this worker would still do is in vain."""
        if not self._leases.holds(claim):
            return  # it has been settled since the renewal was sent
        running = self._running.get(claim.token)
        if isinstance(running, Work) and running.settling is not None:
            running.is_lost = True
            return  # most likely that is on its way back as settled; if not, it says so
        self._note_lost(claim)
        self._leases.drop(claim)
        if running is not None:
            running.cancel()

    def _note_lost(self, claim: Claim) -> None:
        metrics.LEASES_LOST.inc()
        self._log.warning("lease_lost", job=claim.job)

    # Claiming

    async def _claim_forever(self) -> None:
        outage = Outage(self._log, "claim", self._pulse)
        await self._announced.wait()  # without its slots, the caps would be wrong
        while self.allow_pick_jobs:
            if self._is_mostly_stuck():
                self._note_stuck()
                self._leave(Exit.STUCK, at_once=False)
                break
            if self._free() <= 0:
                await self._until_something_ends()
                continue
            try:
                claimed = await self._claim()
                outage.over()
                self._start_all(claimed)
                if self.burst and await self._is_drained():
                    break
                await self._rest(claimed)
            except REDIS_ERRORS as exc:
                await outage.pause(exc)
        await self._until_idle()  # bounded by `stop`, which gives back what takes longer
        self._claimed_all.set()

    def _stuck(self) -> int:
        return len(self._context.pipeline.attempts.stuck)

    def _note_stuck(self) -> None:
        self._log.error("worker_stuck", stuck=self._stuck(), slots=self.max_jobs)

    def _is_mostly_stuck(self) -> bool:
        """Half of the slots' handlers go on for ever: their memory and time are nobody's any more.

        A stuck handler's slot is free again, since its event is settled; so the worker would go on
        until it is full of them.
        """
        return self._stuck() * 2 >= self.max_jobs

    def _free(self) -> int:
        """How many jobs it may take.

        A job whose handler has ended needs no slot while Redis commits it. There is an end to how
        many of those a worker holds, all the same.
        """
        return min(self.max_jobs - self._busy, 2 * self.max_jobs - len(self._running))

    async def _until_something_ends(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _until_idle(self) -> None:
        while self._running:
            await self._until_something_ends()

    async def _claim(self) -> Claimed:
        """Claim a batch; one that is on its way when the worker is stopped is given back."""
        claim = asyncio.create_task(self._claim_once())
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            with contextlib.suppress(*REDIS_ERRORS):
                given_back = [Settlement(each, "release") for each, _ in (await claim).jobs]
                if given_back:
                    await self._transitions.settle(given_back)
            raise

    async def _claim_once(self) -> Claimed:
        base = await self._unread.begin()
        claimed = await self._transitions.claim(
            self._name,
            most=min(self._free(), _MOST_CLAIMED),
            lease=self._context.lease,
            holding=len(self._running),
            slots=self.max_jobs,
            suspect_from=self._suspect_from,
            waits_for_none=self._duty.waits_for_none,
            no_more_alone=self._duty.alone(self._running),
            tainted=self._stuck() > 0,
            base=base,
        )
        self._unread.read()
        return claimed

    async def _rest(self, claimed: Claimed) -> None:
        """Wait as long as there is a reason to: a suspect, or nothing to do."""
        if claimed.quiet or claimed.suspects:
            await self._duty.wait(claimed, self._until_idle)
        elif not claimed.more:
            await self._sleep(claimed.next_due)

    async def _sleep(self, next_due: float | None) -> None:
        """Sleep until somebody leaves a wake token, or a deferred job is due."""
        seconds = _LONGEST_SLEEP if next_due is None else min(_LONGEST_SLEEP, next_due)
        if seconds > 0:
            await self._redis.execute_command("BLPOP", keys.WAKE, max(0.001, seconds))

    async def _is_drained(self) -> bool:
        await self._until_idle()
        return not await self.pool.exists(keys.QUEUE, keys.ACCEPTED)

    # Running

    def _start_all(self, claimed: Claimed) -> None:
        self._garbage.look()  # what handlers before have left
        for claim, payload in claimed.jobs:
            self._leases.take(claim)
            self._busy += 1
            ended = partial(self._ended, claim)
            delivery = None if self._has_hooks else jobs.read(payload)
            # What ``handle_event`` would come to, without the detour; or nothing for it to read.
            if delivery is not None or not payload:
                free = self._free_slot
                work = Work(claim, delivery, ended, has_payload=bool(payload), free_slot=free)
                self._running[claim.token] = work
                self._context.pipeline.start(work)
            else:
                call = self._call(claim, jobs.deserialize(payload))
                self._running[claim.token] = _Call(call, ended, free_slot=self._free_slot)

    def _ended(self, claim: Claim, result: object) -> None:
        """A job is no more this worker's; what Redis didn't settle, its lease brings back."""
        running = self._running.pop(claim.token)
        running.leave_slot()
        self._leases.drop(claim)
        self._changed.set()
        if result is Settled.LOST and isinstance(running, Work) and running.is_lost:
            self._note_lost(claim)
        if not isinstance(result, BaseException):
            self.jobs_complete += 1
            return
        self.jobs_failed += 1
        if isinstance(result, AWAY):
            self._log.warning("event_left_to_its_lease", job=claim.job, error=str(result))
        elif isinstance(result, Exception):  # a worker outlives whatever one event does
            self._log.error("event_left_to_its_lease", job=claim.job, exc_info=result)

    def _free_slot(self) -> None:
        self._busy -= 1
        self._changed.set()

    @property
    def _has_hooks(self) -> bool:
        return bool(self.on_job_start or self.on_job_end or self.after_job_end)

    async def _call(self, claim: Claim, record: dict[str, Any]) -> None:
        name = record["f"]
        if not self._may_call(claim.job, record):
            name, record = jobs.UNDECODABLE, {**record, "a": (), "k": {}}
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

    # arq's own way, for functions that are not ours

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
        if finish and result_data:
            expire = None if keep_result_forever else round((result_timeout_s or 0) * 1000)
            await self.pool.set(result_key_prefix + job_id, result_data, px=expire)
        if finish:
            settlement = Settlement(claim, "remove")
        elif incr_score:  # run_job was told score 0, so this is the time at which it is due
            settlement = Settlement(claim, "retry", (max(0, incr_score - timestamp_ms()),))
        else:
            settlement = Settlement(claim, "release")
        await self._context.pipeline.ledger.settle(settlement)

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


class _Call:
    """A job that runs by arq's functions, in a task; cancelled as `Work` is, at most once."""

    def __init__(
        self,
        call: Coroutine[Any, Any, None],
        ended: Callable[[object], None],
        *,
        free_slot: Callable[[], None],
    ) -> None:
        self._task = asyncio.get_running_loop().create_task(call)
        self._task.add_done_callback(self._tell)
        self._ended = ended
        self.leave_slot = free_slot

    def cancel(self, *, in_doubt: bool = False) -> None:
        del in_doubt  # of arq's jobs nobody keeps such an account
        if not self._task.cancelling():  # a second time would cut the giving back short
            self._task.cancel()

    def done(self) -> bool:
        return self._task.done()

    def _tell(self, task: "asyncio.Task[None]") -> None:
        self._ended(asyncio.CancelledError() if task.cancelled() else task.exception())
