"""Gathers what concurrent handlers ask of Redis into batches."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue import keys
from shared.queue.group_commit import GroupCommit, Tell
from shared.redis.connection import REDIS_ERRORS, translate
from worker.pipeline.outage import Outage
from worker.pipeline.pulse import Pulse
from worker.pipeline.transitions import LANES, Marked, MarkRequest, Settled, Settlement, Transitions

Item = TypeVar("Item")
Answer = TypeVar("Answer")


_BATCH: Final = 40
"""Items in a call: fewer than a worker has slots, so that it handles what the last call brought
while Redis works on the next one. With everything in one call, each waits for the other."""


class Ledger:
    """One round trip for all who wait: marks, settlements and reads of state.

    Every call may be sent again when its reply was lost: a token makes the second one harmless.

    Args:
        transitions: the scripts.
        patience: seconds to go on trying while Redis is away. Beyond a lease there is no use:
            somebody else has the jobs by then.
        log: told when Redis goes away, and when it is back.
        pulse: of the worker's loop, which may be what kept a reply from being read.
    """

    def __init__(
        self,
        transitions: Transitions,
        *,
        patience: float,
        log: FilteringBoundLogger,
        pulse: Pulse | None = None,
    ) -> None:
        self._pulse = pulse
        self._patience = patience
        self._log = log
        self._marks: GroupCommit[MarkRequest, Marked] = GroupCommit(
            self._persistently("mark", transitions.mark),
            most_items=_BATCH,
            lanes=LANES,
        )
        self._settlements: GroupCommit[Settlement, Settled] = GroupCommit(
            self._persistently("settle", transitions.settle),
            most_items=_BATCH,
            lanes=LANES,
        )
        self._reads: GroupCommit[str, bytes | None] = GroupCommit(
            self._persistently("read", transitions.read)
        )

    def mark(self, request: MarkRequest) -> "asyncio.Future[Marked]":
        """Set, or find, the mark of the event id.

        Raises:
            Unavailable: Redis stayed away; the lease will bring the job back.
            Refused: something else stands under one of our names.
        """
        return self._marks.submit(request, _flow(request), len(request.event_id))

    def post_mark(self, request: MarkRequest, tell: Tell[Marked]) -> None:
        """The same, for somebody who is told the mark, or what ``mark`` would raise."""
        self._marks.post(request, tell, _flow(request), len(request.event_id))

    def settle(self, settlement: Settlement) -> "asyncio.Future[Settled]":
        """Say what is to become of a job; raises as ``mark`` does."""
        return self._settlements.submit(settlement, _flow(settlement), len(settlement.packed))

    def post_settlement(self, settlement: Settlement, tell: Tell[Settled]) -> None:
        """The same, for somebody who is told what became of it, or what ``mark`` would raise."""
        self._settlements.post(settlement, tell, _flow(settlement), len(settlement.packed))

    async def read_state(self, organization: str, key: str) -> bytes | None:
        """A raw value of an organization's state; raises as ``mark`` does."""
        name = keys.state(organization, key)
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
                    is_late = asyncio.get_running_loop().time() > deadline
                    if is_late and not outage.is_our_own(exc):
                        raise translate(exc) from exc
                    await outage.pause(exc)
                else:
                    outage.over()
                    size.observe(len(items))
                    return answers

        return sent


def _flow(item: MarkRequest | Settlement) -> str:
    """A job's name begins with its organization, near enough for taking turns."""
    return item.claim.job.partition(":")[0]
