"""Claims jobs of a partition for a worker's free slots, and keeps account of what it holds."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final, Self, TypeAlias

import arq

from shared.observe import metrics
from shared.program import garbage
from shared.queue import job as jobs
from shared.queue.partition import Partition
from shared.queue.rules import SUSPECT_FROM
from shared.redis.connection import REDIS_ERRORS
from shared.redis.wire import Wire
from worker.engine import burst
from worker.engine.arq_functions import Call, Context
from worker.engine.asked import AskedClaims
from worker.engine.process import Exit, Leave
from worker.outcomes import Released
from worker.pipeline.attempts import Slots
from worker.pipeline.batcher import Outage
from worker.pipeline.driver import AWAY
from worker.pipeline.pulse import Pulse
from worker.pipeline.transitions import (
    LANES,
    MOST_BYTES,
    Claim,
    Claimed,
    Settled,
    claimed_at_once,
)
from worker.pipeline.work import Work

_LONGEST_SLEEP: Final = 1.0
"""Seconds that an idle worker sleeps at the most before it looks by itself."""

_FIRST: Final = 5.0
"""Seconds that a worker is quiet for a suspect, at first: most handlers have ended by then."""

_MARGIN: Final = 1.0
"""Seconds that the end of a handler takes beyond its time, until its slot is free."""

Ended: TypeAlias = Callable[[object], None]
"""Told what a job came to: its end in Redis, or why there is none."""


class Claims:
    """What one worker holds of a partition, and the loop that claims more.

    Args:
        worker: arq's; what it is told, and what it counts, is there.
        context: what jobs are handled with.
        partition: for sleeping.
        name: of the worker.
        pulse: of its loop.
        leave: ends the process for a reason.
        call: runs a job by arq's functions: one that is no delivery, or every one where arq's hooks
            are to see it.
        is_burst: whether to end once nothing can be handled now.
        duty: the worker's part in finding out which job ends workers; without it, its own.
        changed: set whenever there may be a slot, or something to read; the same.

    Attributes:
        partition: which.
        running: what it holds, by token.
        slots: those of its handlers.
        asked: the claims that are on their way, or whose answers got lost.
        announced: set once Redis has heard of the worker.
        ended: set once it claims no more, and holds nothing.
    """

    def __init__(
        self,
        worker: arq.Worker,
        context: Context,
        partition: Partition,
        *,
        name: str,
        pulse: Pulse,
        leave: Leave,
        call: Callable[[Claim, bytes, Ended, Slots], Call],
        is_burst: bool = False,
        duty: "Duty | None" = None,
        changed: asyncio.Event | None = None,
    ) -> None:
        self._arq = worker
        self._pipeline = context.pipeline
        self._transitions = context.transitions
        self._lease = context.lease
        self._log = context.log
        self.partition = partition
        # Of its own: it is blocked for most of the time.
        self._asleep = Wire(partition.redis)
        self._name = name
        self._most = worker.max_jobs
        self._at_once = claimed_at_once(worker.max_jobs)
        self._changed = changed or asyncio.Event()
        self.slots = Slots(self._changed)
        self._pulse = pulse
        self._leave = leave
        self._call = call
        self._is_burst = is_burst
        self._has_hooks = bool(worker.on_job_start or worker.on_job_end or worker.after_job_end)
        policy = context.pipeline.policy
        self._suspect_from = min(SUSPECT_FROM, policy.max_claims)
        self._duty = duty or Duty.of(
            lease=context.lease, longest_handler=policy.handler_timeout + policy.stuck_after
        )
        self._garbage = garbage.Watch()
        self._renewed: dict[str, Claim] = {}
        self.running: dict[str, Work | Call] = {}
        self.asked = AskedClaims(name, context.transitions, context.lease, self._changed)
        self._asks_for_rest: Claimed | None = None
        self._is_more_in_line = False
        self.announced = asyncio.Event()
        self.ended = asyncio.Event()

    def held(self) -> list[Claim]:
        """What is to be renewed; may be asked in any thread, since Python copies in one step."""
        return list(self._renewed.values())

    def works(self) -> list[Work]:
        """The events that it holds; may be asked in any thread."""
        return [each for each in list(self.running.values()) if isinstance(each, Work)]

    # Claiming

    async def claim_forever(self) -> None:
        """Claim whenever there is a free slot, until told to stop; then wait for what runs."""
        outage = Outage(self._log, "claim", self._pulse)
        await self.announced.wait()  # without its slots, the caps would be wrong
        try:
            while self._arq.allow_pick_jobs:
                # Before it takes more, which it would only give back.
                if self._is_mostly_stuck():
                    self.note_stuck()
                    self._leave(Exit.STUCK, at_once=False)
                    break
                try:
                    if await self._go_on(outage):
                        break
                except REDIS_ERRORS as exc:
                    self._is_more_in_line = False
                    self._heard(None)
                    # Once for all that were on their way together.
                    if not self.asked.on_their_way:
                        await outage.pause(exc)
        finally:
            await self.asked.give_back()
        await self.until_idle()  # bounded by `stop`, which gives back what takes longer
        self.ended.set()

    async def _go_on(self, outage: Outage) -> bool:
        """Send a claim, or take what one has brought, or wait for either; whether it is the end."""
        if self.asked.answered:
            claimed, was_idle = self.asked.read()
            if outage.is_on:
                outage.over()
            self._heard(claimed)
            self._start_all(claimed)
            return await self._is_over(claimed, was_idle=was_idle)
        if not self._may_ask():
            await self._until_it_may_ask()
        elif self.asked.lost:
            # Before the next one: Redis believes that their jobs have begun. Then look again, since
            # meanwhile the last of what it holds may have ended.
            await self.asked.disown_lost()
        else:
            self._ask()
        return False

    def _may_ask(self) -> bool:
        """Whether a claim may be sent: beside others only a full one, for what is in line still.

        While the worker holds nothing, it may be given a suspect, which is to have no neighbours:
        so nothing is sent beside the claim that says so.
        """
        if not self.asked.on_their_way:
            return self.free() > 0
        is_wanted = self._is_more_in_line and self._asks_for_rest is None and bool(self.running)
        has_lane = len(self.asked.on_their_way) < LANES
        return is_wanted and has_lane and self.free() >= self._at_once

    async def _is_over(self, claimed: Claimed, *, was_idle: bool) -> bool:
        """See what an answer says of the next claim; whether there is to be none."""
        if self._arq.burst and await self._is_drained():
            return True
        # Else the end of one may bring others in line.
        if self._is_burst and was_idle and burst.finds_nothing(claimed):
            return True
        self._is_more_in_line = claimed.more and bool(claimed.jobs)
        if claimed.quiet or claimed.suspects:
            self._asks_for_rest = claimed
        if not self.asked.on_their_way:
            rest, self._asks_for_rest = self._asks_for_rest or claimed, None
            await self._rest(rest)
        return False

    def stuck(self) -> int:
        """How many handlers go on though their events are settled."""
        return len(self._pipeline.attempts.stuck)

    def note_stuck(self) -> None:
        """Say that this is why the worker ends."""
        self._log.error("worker_stuck", stuck=self.stuck(), slots=self._most)

    def _is_mostly_stuck(self) -> bool:
        """Half of the slots' handlers go on for ever: their memory and time are nobody's any more.

        A stuck handler's slot is free again, since its event is settled; so the worker would go on
        until it is full of them.
        """
        return self.stuck() * 2 >= self._most

    def free(self) -> int:
        """How many jobs it may take.

        A job whose handler has ended needs no slot while Redis commits it. There is an end to how
        many of those a worker holds, all the same. What is on its way here has its slots already.
        """
        free = min(self._most - self.slots.busy, 2 * self._most - len(self.running))
        return free - self.asked.reserved

    async def _until_it_may_ask(self) -> None:
        """Wait for a slot, or for an answer, or longer: whoever calls looks again."""
        await self._until_something_ends()

    async def _until_something_ends(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def until_idle(self) -> None:
        """Wait until it holds nothing."""
        while self.running:
            await self._until_something_ends()

    def _ask(self) -> None:
        if not self.asked.on_their_way:
            self._asks_for_rest = None  # of one whose companions got lost
        most = min(self.free(), self._at_once)
        call = partial(
            self._transitions.claim,
            self._name,
            most=most,
            lease=self._lease,
            holding=self._holding(),
            most_bytes=self._most_bytes(),
            slots=self._most,
            suspect_from=self._suspect_from,
            waits_for_none=self._duty.waits_for_none,
            no_more_alone=self._no_more_alone(),
            tainted=self.stuck() > 0,
        )
        self.asked.send(call, most=most, was_idle=not self.running)

    def _most_bytes(self) -> int:
        """Bytes of payload that a claim may bring."""
        return MOST_BYTES

    def _holding(self) -> int:
        """How many jobs the worker holds; with none, a suspect may come."""
        return len(self.running)

    def _no_more_alone(self) -> Claim | None:
        """The suspect beside which others are claimed now."""
        return self._duty.alone(self.running)

    def _heard(self, claimed: Claimed | None) -> None:
        """An answer has come, or there is none."""

    async def _rest(self, claimed: Claimed) -> None:
        """Wait as long as there is a reason to: a suspect, or nothing to do."""
        due = claimed.next_due
        seconds = _LONGEST_SLEEP if due is None else min(_LONGEST_SLEEP, due)
        if claimed.quiet or claimed.suspects:
            await self._be_quiet(claimed)
        elif self._is_burst and not claimed.more and self.running:
            # Not by a wake token: it is to end as soon as the last of its events does.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._until_something_ends()
        elif not claimed.more:
            await self._sleep(seconds)

    async def _be_quiet(self, claimed: Claimed) -> None:
        """Take nothing for as long as an answer asks for."""
        await self._duty.wait(claimed, self.until_idle)

    async def _sleep(self, seconds: float) -> None:
        """Sleep for so long, or until somebody leaves a wake token."""
        if seconds > 0:  # 0 is for ever to Redis
            (woken,) = await self._asleep.execute_commands(
                ("BLPOP", self.partition.names.wake, max(0.001, seconds))
            )
            if isinstance(woken, Exception):
                raise woken

    async def _is_drained(self) -> bool:
        await self.until_idle()
        names = self.partition.names
        return not await self.partition.redis.exists(names.queue, names.accepted)

    # Running

    def _start_all(self, claimed: Claimed) -> None:
        # All at once, since a job may end before the next one begins.
        self.slots.busy += len(claimed.jobs)
        for claim, payload in claimed.jobs:
            self._renewed[claim.job] = claim
            ended = partial(self._ended, claim)
            delivery = None if self._has_hooks else jobs.read(payload)
            # What ``handle_event`` would come to, without the detour; or nothing for it to read.
            if delivery is not None or not payload:
                work = Work(claim, delivery, ended, has_payload=bool(payload), slots=self.slots)
                # By token, not by job: a job may be claimed anew while its lost claim still ends.
                self.running[claim.token] = work
                self._pipeline.start(work)
            else:
                self.running[claim.token] = self._call(claim, payload, ended, self.slots)

    def _ended(self, claim: Claim, result: object) -> None:
        """A job is no more this worker's; what Redis didn't settle, its lease brings back."""
        running = self.running.pop(claim.token)
        self._renew_no_more(claim)
        self._changed.set()
        if result is Settled.LOST and isinstance(running, Work) and running.is_lost:
            self._note_lost(claim)
        if isinstance(result, BaseException):
            self._note_left(claim, result)
        else:
            self._arq.jobs_complete += 1
        self._garbage.look()  # what its handler has left, perhaps

    def _note_left(self, claim: Claim, error: BaseException) -> None:
        self._arq.jobs_failed += 1
        if isinstance(error, AWAY):
            self._log.warning("event_left_to_its_lease", job=claim.job, error=str(error))
        elif isinstance(error, Exception):  # a worker outlives whatever one event does
            self._log.error("event_left_to_its_lease", job=claim.job, exc_info=error)

    def lose(self, claim: Claim) -> None:
        """Somebody else has the job, or nobody: what this worker would still do is in vain."""
        if self._renewed.get(claim.job) is not claim:
            return  # it has been settled since the renewal was sent
        running = self.running.get(claim.token)
        if isinstance(running, Work) and (running.settling is not None or running.is_marking):
            running.is_lost = True
            # Before its handler, there is nothing else to be had of it.
            running.is_cancelled = running.is_cancelled or running.is_marking
            return  # most likely that is on its way back as settled; if not, it says so
        self._note_lost(claim)
        self._renew_no_more(claim)
        if running is not None:
            running.cancel()

    def _renew_no_more(self, claim: Claim) -> None:
        # The job may be held anew by then, under another token.
        if self._renewed.get(claim.job) is claim:
            del self._renewed[claim.job]

    def _note_lost(self, claim: Claim) -> None:
        metrics.LEASES_LOST.inc()
        self._log.warning("lease_lost", job=claim.job)

    # Giving back

    def claim_no_more(self) -> None:
        """Begin no other claim; any thread may say so."""
        self._arq.allow_pick_jobs = False

    def stop(self) -> None:
        """Claim no more, and give back what hasn't begun since it waits for memory."""
        self.claim_no_more()
        self._changed.set()
        self.announced.set()  # who has never been heard of has nothing to wait for
        # Other workers may have the memory at once that these wait for, or would.
        self._pipeline.memory.is_closed = True
        for work in self.works():
            if work.share is not None and work.share.waits:
                work.cancel()

    def give_back(self, *, in_doubt: bool = False) -> None:
        """End what runs, which gives it back.

        Args:
            in_doubt: whether one of these may be what ends the process.
        """
        for running in list(self.running.values()):
            running.cancel(in_doubt=in_doubt)

    def wait_no_longer(self) -> None:
        """Release what goes on though it was cancelled: a deploy is no reason for a suspect."""
        for work in self.works():
            if work.attempt is not None:
                work.attempt.give_up(Released(in_doubt=work.in_doubt))


@dataclass(slots=True)
class Duty:
    """A worker's part in finding out which job it is that ends workers.

    A suspect is to run with no other job beside it. So a worker that one waits for takes nothing
    until it holds nothing, and one that has been given suspects takes nothing until these have
    ended. Both last for a while only, or a single handler that doesn't end would stop the worker
    for everybody. Each time that a while was too short the next one, of whichever worker, is twice
    as long: Redis counts them. The longest one is longer than a handler may run unless others
    keep it from its time, so it is hardly ever too short: what ends workers is found in the end.

    Attributes:
        first: seconds of the first while.
        longest: seconds of the longest one.
        clock: seconds, from anywhere.
    """

    first: float
    longest: float
    clock: Callable[[], float] = monotonic
    _busy_until: float = 0.0
    _alone: Claim | None = None

    @classmethod
    def of(cls, *, lease: float, longest_handler: float) -> Self:
        """The one of a worker; seconds.

        Args:
            lease: of its claims.
            longest_handler: after which a handler has ended, or counts as stuck.
        """
        longest = longest_handler + _MARGIN
        return cls(first=min(lease / 3, _FIRST, longest), longest=longest)

    @property
    def waits_for_none(self) -> bool:
        """Whether it has just given up to wait, and works for everybody for as long as it did."""
        return self.clock() < self._busy_until

    def alone(self, held: Collection[str]) -> Claim | None:
        """The suspect that it was given alone, while it is among the claims (by token) it holds."""
        if self._alone is not None and self._alone.token not in held:
            self._alone = None
        return self._alone

    async def wait(self, claimed: Claimed, idle: Callable[[], Awaitable[None]]) -> bool:
        """Take nothing until the worker is idle, or the while is over; whether it is idle.

        Args:
            claimed: asks for it, since a suspect waits or since suspects were given.
            idle: ends once the worker holds nothing.
        """
        if claimed.suspects and len(claimed.jobs) == 1:
            ((self._alone, _),) = claimed.jobs
        seconds = self.bound(claimed.patience)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await idle()
                return True
        if claimed.quiet:
            self._busy_until = self.clock() + seconds
        return False

    def bound(self, patience: int) -> float:
        """Seconds of the while, after so many that were too short."""
        return min(self.first * 2.0 ** min(patience, 64), self.longest)
