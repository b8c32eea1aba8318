"""arq's worker in one partition, around a claim and a finish of our own."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import arq
from arq.constants import result_key_prefix
from arq.utils import timestamp_ms

from shared.queue import job as jobs
from shared.queue.job import bears_digest
from shared.queue.partition import Partition
from shared.redis.connection import REDIS_ERRORS
from worker.engine.arq_functions import CLAIM, OURS, Call, Context
from worker.engine.claims import Claims, Ended
from worker.engine.process import Leave
from worker.engine.together import SharedClaims, Together
from worker.pipeline.attempts import Slots
from worker.pipeline.batcher import Outage
from worker.pipeline.pulse import Pulse
from worker.pipeline.transitions import Claim, Settlement

_BEAT: Final = 0.5
"""Seconds between arq's own beats: health record and cron."""


@dataclass(frozen=True, slots=True)
class Visited:
    """A partition, and what a worker needs for its jobs.

    Attributes:
        context: what `handle_event` needs there.
        partition: which.
        options: those of ``arq.Worker`` there.
    """

    context: Context
    partition: Partition
    options: Mapping[str, Any]


class Visit(arq.Worker):
    """An ``arq.Worker`` that claims, keeps and settles jobs of one partition by our scripts.

    Functions, ctx, cron and health record are arq's. Jobs of other functions than ``handle_event``
    are run by arq's own ``run_job``.

    Args:
        visited: the partition.
        together: what it shares with the worker's other visits, if there are any.
        name: of the worker.
        pulse: tells whether the worker's loop goes round.
        leave: ends the process for a reason.
        is_burst: whether to end once nothing can be handled now.

    Attributes:
        context: of the partition.
        claims: what the worker holds of it.
        heard: set once Redis has heard of the worker there.
    """

    def __init__(
        self,
        visited: Visited,
        together: Together | None,
        *,
        name: str,
        pulse: Pulse,
        leave: Leave,
        is_burst: bool,
    ) -> None:
        super().__init__(**visited.options)
        self.context = visited.context
        self.partition = visited.partition
        self._pulse = pulse
        self.heard = asyncio.Event()
        self._foreign: dict[str, Claim] = {}
        claiming: dict[str, Any] = {
            "name": name,
            "pulse": pulse,
            "leave": leave,
            "call": self._call,
            "is_burst": is_burst,
        }
        place = (self, visited.context, visited.partition)
        self.claims: Claims
        if together is None:
            self.claims = Claims(*place, **claiming)
        else:
            self.claims = SharedClaims(*place, together=together, **claiming)
        # What arq counts in its health record.
        self.tasks = cast("dict[str, asyncio.Task[Any]]", self.claims.running)

    def note_heard(self) -> None:
        """A sign of life has reached Redis: it knows the worker's slots, and the place is right."""
        self.heard.set()
        self.claims.announced.set()

    async def settled(self) -> None:
        """Wait until nothing of it runs, or is on its way to Redis."""
        await self.claims.until_idle()
        await self.context.batcher.drain()

    async def forgotten(self, worker: str) -> None:
        """Have Redis forget the worker, and what nobody will read."""
        with contextlib.suppress(*REDIS_ERRORS):
            await self.claims.asked.disown()
            await self.context.transitions.leave(worker)
            await self.pool.delete(self.health_check_key)

    async def closed(self) -> None:
        """Close arq's own connections."""
        with contextlib.suppress(*REDIS_ERRORS):
            await self.pool.aclose(close_connection_pool=True)

    async def beat_forever(self) -> None:
        """arq's health record and cron, once it is known that this is the right Redis for them."""
        await self.heard.wait()
        outage = Outage(self.context.log, "beat", self._pulse)
        while True:
            try:
                await self.heart_beat()
            except REDIS_ERRORS as exc:
                await outage.pause(exc)
            else:
                outage.over()
                await asyncio.sleep(_BEAT)

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
        await self.context.batcher.settle(settlement)

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
