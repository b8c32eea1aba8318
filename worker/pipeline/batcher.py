"""Asks Redis in batches what concurrent events want of it, and again while it is away."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue.group_commit import GroupCommit, Tell
from shared.redis.connection import REDIS_ERRORS, translate
from worker.pipeline.attempts import Task
from worker.pipeline.pulse import Pulse
from worker.pipeline.transitions import (
    LANES,
    Marked,
    MarkRequest,
    Settled,
    Settlement,
    Transitions,
    pack,
    settled_at_once,
)

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher:
    """One round trip for all who wait: marks, settlements and reads of state.

    In no order: an organization whose events go one after the other has one on its way, and turns
    are decided by what is accepted, not by who asks first.

    Every call may be sent again when its reply was lost: a token makes the second one harmless.

    Args:
        transitions: the scripts.
        patience: seconds to go on trying while Redis is away. Beyond a lease there is no use:
            somebody else has the jobs by then.
        log: told when Redis goes away, and when it is back.
        pulse: of the worker's loop, which may be what kept a reply from being read.
        slots: of the worker: the more, the more go in a call.
    """

    def __init__(
        self,
        transitions: Transitions,
        *,
        patience: float,
        log: FilteringBoundLogger,
        pulse: Pulse | None = None,
        slots: int = 1,
    ) -> None:
        self._names = transitions.names
        self._pulse = pulse
        self._patience = patience
        self._log = log
        self._marks: GroupCommit[MarkRequest, Marked] = GroupCommit(
            self._persistently("mark", transitions.mark),
            most_items=settled_at_once(slots),
            lanes=LANES,
            task=Task,
        )
        self._settlements: GroupCommit[Settlement, Settled] = GroupCommit(
            self._persistently("settle", transitions.settle),
            most_items=settled_at_once(slots),
            lanes=LANES,
            task=Task,
        )
        self._reads: GroupCommit[str, bytes | None] = GroupCommit(
            self._persistently("read", transitions.read), task=Task
        )

    def post_mark(self, request: MarkRequest, tell: Tell[Marked]) -> None:
        """Set, or find, the mark of the event id, for somebody who is told it.

        He is told an error where there is none: `Unavailable` where Redis stayed away, so that the
        lease will bring the job back; `Refused` where something else stands under one of our names.
        """
        self._marks.post(request, tell, _flow(request), len(request.event_id))

    def settle(self, settlement: Settlement) -> "asyncio.Future[Settled]":
        """Say what is to become of a job; raises what ``post_mark`` tells."""
        settlement.packed = settlement.packed or pack(settlement.details)
        return self._settlements.submit(settlement, _flow(settlement), len(settlement.packed))

    def post_settlement(self, settlement: Settlement, tell: Tell[Settled]) -> None:
        """The same, for somebody who is told what became of it, or the error."""
        self._settlements.post(settlement, tell, _flow(settlement), len(settlement.packed))

    async def read_state(self, organization: str, key: str) -> bytes | None:
        """A raw value of an organization's state; raises as ``settle`` does."""
        name = self._names.state(organization, key)
        return await self._reads.submit(name, organization, len(name))

    async def drain(self) -> None:
        """Wait for what is on its way."""
        for commits in (self._marks, self._settlements, self._reads):
            await commits.drain()

    def _persistently(
        self, doing: str, send: Callable[[list[Item]], Awaitable[Sequence[Answer]]]
    ) -> Callable[[list[Item]], Awaitable[Sequence[Answer]]]:
        """The same call, tried again while Redis is away."""
        outage = Outage(self._log, doing, self._pulse)
        size = metrics.WORKER_BATCH.labels(doing)

        async def sent(items: list[Item]) -> Sequence[Answer]:
            deadline = asyncio.get_running_loop().time() + self._patience
            while True:
                try:
                    answers = await send(items)
                except REDIS_ERRORS as exc:
                    # Where our own loop stood still, the time is no measure: Redis has answered,
                    # and the call is sent again, which its tokens make harmless.
                    is_late = asyncio.get_running_loop().time() > deadline
                    if is_late and not outage.is_our_own(exc):
                        raise translate(exc) from exc
                    await outage.pause(exc)
                else:
                    if outage.is_on:
                        outage.over()
                    size.observe(len(items))
                    return answers

        return sent


def _flow(item: MarkRequest | Settlement) -> str:
    """A job's name begins with its organization, near enough for taking turns."""
    return item.claim.job.partition(":")[0]


class Outage:
    """The state of Redis as one loop of the worker sees it.

    Args:
        log: where it is said.
        doing: what the loop can't do meanwhile.
        pulse: of the loop itself, which may be what kept a reply from being read.

    Attributes:
        is_on: whether the last call failed.
    """

    def __init__(self, log: FilteringBoundLogger, doing: str, pulse: Pulse | None = None) -> None:
        self._log = log
        self._doing = doing
        self._pulse = pulse
        self._pause = 0.0
        self.is_on = False

    def is_our_own(self, exc: BaseException) -> bool:
        """Whether a call failed since the loop stood still: Redis has answered, nobody read it."""
        was_still = self._pulse is not None and self._pulse.was_still
        return was_still and translate(exc).code == "redis_timeout"

    async def pause(self, exc: BaseException) -> None:
        """Take note of a failed call, and wait a while that grows with each."""
        # Nothing to tell, and nobody to wait for.
        if self.is_our_own(exc):
            return
        code = translate(exc).code
        metrics.REDIS_ERRORS.labels("worker", code).inc()
        if not self.is_on:
            self._log.warning("redis_lost", doing=self._doing, code=code)
        self.is_on = True
        self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, self._pause * 2))
        await asyncio.sleep(self._pause)

    def over(self) -> None:
        """Take note of a call that worked; there is nothing to note while it isn't `is_on`."""
        if self.is_on:
            self._log.info("redis_back", doing=self._doing)
            self.is_on = False
            self._pause = 0.0
