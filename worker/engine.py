"""arq's worker with a claim and a finish of its own: batched, leased, fair."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import arq
from arq.constants import result_key_prefix
from arq.utils import timestamp_ms
from redis.asyncio import Redis

from shared import job as jobs
from shared import keys
from shared.connection import REDIS_ERRORS
from shared.errors import TransitionError, Unavailable
from worker.ending import end
from worker.leases import Leases, Profiles
from worker.outage import Outage
from worker.stock import CLAIM, OURS, Context
from worker.transitions import Claim, Claimed, Settlement

_LONGEST_SLEEP: Final = 1.0
"""Seconds that an idle worker sleeps at the most before it looks by itself."""

_MOST_CLAIMED: Final = 256
_BEAT: Final = 0.5
"""Seconds between arq's own beats: health record and cron."""


class Worker(arq.Worker):
    """An ``arq.Worker`` that claims, keeps and settles jobs by this project's scripts.

    Functions, ctx, start-up and shutdown hooks, cron, signals and burst are arq's. Jobs of other
    functions than ``handle_event`` are run by arq's own ``run_job``.

    Args:
        context: what ``handle_event`` needs; it is in arq's ``ctx``, too.
        redis: for the scripts and for sleeping.
        name: of this worker, unique among those alive.
        description: what it says of itself in ``status``, JSON.
        profiles: caps and weights of the organizations as the endpoints file has them now.
        options: those of ``arq.Worker``.
    """

    def __init__(
        self,
        context: Context,
        redis: Redis,
        *,
        name: str,
        description: bytes,
        profiles: Callable[[], Profiles],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._redis = redis
        self._name = name
        self._context = context
        self._log = context.log
        self._transitions = context.transitions
        self._slot_freed = asyncio.Event()
        self._foreign: dict[str, Claim] = {}
        self._leases = Leases(
            context.transitions,
            worker=name,
            description=description,
            slots=self.max_jobs,
            lease=context.lease,
            profiles=profiles,
            log=context.log,
            lost=self._cancel,
        )

    async def main(self) -> None:
        """Start as arq does, then claim until told to stop."""
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        beats = [
            asyncio.create_task(self._leases.beat_forever(), name="leases"),
            asyncio.create_task(self._beat_forever(), name="arq-beat"),
        ]
        try:
            await self._claim_forever()
        finally:
            await end(beats)

    async def close(self) -> None:
        """End what still runs, which gives it back, and close as arq does, whatever Redis does."""
        for task in self.tasks.values():
            if not task.cancelling():  # a second time would cut the giving back short
                task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        await self._context.pipeline.ledger.drain()
        with contextlib.suppress(*REDIS_ERRORS):
            await self._transitions.leave(self._name)
            await self.pool.delete(self.health_check_key)
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        with contextlib.suppress(*REDIS_ERRORS):
            await self.pool.aclose(close_connection_pool=True)

    # Claiming

    async def _claim_forever(self) -> None:
        outage = Outage(self._log, "claim")
        await self._leases.announced.wait()  # without its slots, the caps would be wrong
        while self.allow_pick_jobs:
            if self._free() <= 0:
                await self._until_a_slot_is_free()
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
        await self._until_idle()  # after a signal, arq cancels what takes longer than it may

    def _free(self) -> int:
        return self.max_jobs - len(self.tasks)

    async def _until_a_slot_is_free(self) -> None:
        self._slot_freed.clear()
        await self._slot_freed.wait()

    async def _until_idle(self) -> None:
        while self.tasks:
            await asyncio.wait(self.tasks.values())

    async def _claim(self) -> Claimed:
        """Claim a batch; one that is on its way when the worker is stopped is given back."""
        claim = asyncio.create_task(
            self._transitions.claim(
                self._name,
                most=min(self._free(), _MOST_CLAIMED),
                lease=self._context.lease,
                holding=len(self.tasks),
            )
        )
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            with contextlib.suppress(*REDIS_ERRORS):
                given_back = [Settlement(each, "release") for each, _ in (await claim).jobs]
                if given_back:
                    await self._transitions.settle(given_back)
            raise

    async def _rest(self, claimed: Claimed) -> None:
        """Wait as long as there is a reason to: a suspect, or nothing to do."""
        if claimed.quiet:
            await self._until_idle()
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
        for claim, payload in claimed.jobs:
            self._leases.take(claim)
            task = self.loop.create_task(self._run(claim, payload))
            self.tasks[claim.token] = task
            task.add_done_callback(partial(self._ended, claim))

    def _ended(self, claim: Claim, _: "asyncio.Task[None]") -> None:
        del self.tasks[claim.token]
        self._leases.drop(claim)
        self._slot_freed.set()

    @property
    def _has_hooks(self) -> bool:
        return bool(self.on_job_start or self.on_job_end or self.after_job_end)

    def _cancel(self, claim: Claim) -> None:
        """Somebody else has the job: what this worker would still do with it is in vain."""
        if task := self.tasks.get(claim.token):
            task.cancel()

    async def _run(self, claim: Claim, payload: bytes) -> None:
        """Run one claimed job to its end; whatever goes wrong, its lease brings it back."""
        delivery = None if self._has_hooks else jobs.read(payload)
        try:
            if delivery is not None:  # what ``handle_event`` would come to, without the detour
                await self._context.pipeline.run(claim, delivery)
            else:
                await self._call(claim, jobs.deserialize(payload))
        except (Unavailable, TransitionError, *REDIS_ERRORS) as exc:
            self._log.warning("event_left_to_its_lease", job=claim.job, error=str(exc))
            self.jobs_failed += 1
        except Exception:  # noqa: BLE001  a worker outlives whatever one event does
            self._log.exception("event_left_to_its_lease", job=claim.job)
            self.jobs_failed += 1
        else:
            self.jobs_complete += 1

    async def _call(self, claim: Claim, record: dict[str, Any]) -> None:
        name = record["f"]
        if name not in self.functions:
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
        outage = Outage(self._log, "beat")
        while True:
            try:
                await self.heart_beat()
            except REDIS_ERRORS as exc:
                await outage.pause(exc)
            else:
                outage.over()
                await asyncio.sleep(_BEAT)
