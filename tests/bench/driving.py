"""A partition without programs: events go in and through it in batches of a size that is known."""

from itertools import count, islice
from typing import Final

from shared.queue import told
from shared.queue.partition import Partition, home
from shared.queue.writer import Queue
from shared.redis.durability import Durability, Mode
from tests.bench import events
from tests.bench.environments import CannotRunError
from worker.operate.belongings import chunks
from worker.pipeline.transitions import (
    RETENTION,
    Claim,
    MarkRequest,
    Settled,
    Settlement,
    Transitions,
    claimed_at_once,
    settled_at_once,
)

SLOTS: Final = 100
"""Of a worker with its default settings."""

FULL: Final = claimed_at_once(SLOTS)
"""Events that such a worker claims at once, at the most."""

FULL_ACCEPTED: Final = 256
"""Deliveries that an ingress accepts at once, at the most."""

_ORGANIZATIONS: Final = 10
_WORKER: Final = "by-hand"
_LEASE: Final = 600.0
_ID_CHARACTERS: Final = 30
"""Of an event's id, as many as Sellfern's have."""

_DONE: Final = (round(RETENTION * 1000), (), (), True)
"""What is said of an event that a handler has handled which touched no state."""

_TOLD: Final = told.handled("do_nothing", told.code_of(_WORKER), 1, 0)


class Driver:
    """Accepts events and handles them, in one partition.

    Args:
        partition: which one.
        partitions: how many there are.
    """

    def __init__(self, partition: Partition, partitions: int) -> None:
        self._queue = Queue(partition, Durability(Mode.MEMORY))
        self._transitions = Transitions(partition)
        names = (f"org_{each:016x}" for each in count(1))
        living = (name for name in names if home(name, partitions) == partition.number)
        self._organizations = tuple(islice(living, _ORGANIZATIONS))

    async def accept(self, number: int, kind: str, most: int = FULL_ACCEPTED) -> None:
        """Enqueue so many new events.

        Args:
            number: of events.
            kind: tells them from those of an earlier call.
            most: events in a batch.
        """
        for batch in chunks(events.deliveries(number, self._organizations, kind), most):
            await self._queue.enqueue(batch)

    async def handle(self, number: int, most: int = FULL) -> None:
        """Claim, mark and settle so many events that wait, as one worker does.

        Args:
            number: of events.
            most: events in a claim; marks and settlements are as many fewer as a worker's.

        Raises:
            CannotRunError: there are fewer.
        """
        call, at_once = self._transitions, min(most, settled_at_once(SLOTS))
        await call.renew(_WORKER, [], description=b"{}", slots=SLOTS, lease=_LEASE)
        left = number
        while left:
            claimed = await call.claim(_WORKER, most=most, lease=_LEASE, holding=0, slots=SLOTS)
            for some in chunks([claim for claim, _ in claimed.jobs], at_once):
                await self._finish(some)
            if not claimed.jobs:
                raise CannotRunError(f"{left} of {number} events are not there")
            left -= len(claimed.jobs)

    async def _finish(self, claims: list[Claim]) -> None:
        asked = [MarkRequest(each, each.job[-_ID_CHARACTERS:]) for each in claims]
        await self._transitions.mark(asked)
        done = [Settlement(each, "done", _DONE, told=_TOLD) for each in claims]
        ends = await self._transitions.settle(done)
        if set(ends) != {Settled.DONE}:
            raise CannotRunError(f"expected that all are done, got {set(ends)}")
