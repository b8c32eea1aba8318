"""Claims on their way to Redis: the slots that they reserve, and those whose answer got lost."""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from time import monotonic
from typing import Any

from shared.queue import told
from shared.redis.connection import REDIS_ERRORS
from worker.pipeline.attempts import Task
from worker.pipeline.transitions import FRESH_BYTES, Claimed, Settlement, Transitions


@dataclass(slots=True, eq=False)
class _Asked:
    """One claim that has been sent.

    Attributes:
        base: of its jobs' tokens.
        most: jobs that it may bring: as many slots are reserved.
        was_idle: whether the worker held nothing when it was sent.
        sent_at: when it was sent, by the monotonic clock.
        is_late: whether others may have its slots.
        timer: says so in time.
    """

    base: str
    most: int
    was_idle: bool
    sent_at: float
    is_late: bool = False
    timer: asyncio.TimerHandle | None = None


class AskedClaims:
    """The claims that are on their way.

    A claim's answer has to be read whatever becomes of who waits for it, since Redis has given the
    jobs away: each has a task of its own. One that nobody can read any more has to be disowned, or
    its jobs would be suspects: Redis believes that the worker has begun them.

    Args:
        worker: whose they are, by its name.
        transitions: disowns them.
        lease: of the claims, in seconds.
        changed: set whenever an answer has come.

    Attributes:
        on_their_way: what nobody has read yet, by the task that does.
        answered: those of them that can be read.
        lost: bases of those that are to be disowned before another is sent.
        reserved: slots of those that are on their way, and not late.
        late: seconds, and times the shortest claims of late, after which others may have the slots
            of one, if ever.
    """

    def __init__(
        self, worker: str, transitions: Transitions, lease: float, changed: asyncio.Event
    ) -> None:
        self._sign = told.sign_of(worker)
        self.reserved = 0
        self.late: tuple[float, int] | None = None
        self._round_trip = 0.0
        self._late = 0
        self._transitions = transitions
        self._lease = lease
        self._changed = changed
        self._bases: dict[str, None] = {}
        self.lost: list[str] = []
        self.on_their_way: dict[asyncio.Task[Claimed], _Asked] = {}
        self.answered: deque[asyncio.Task[Claimed]] = deque()

    def unread(self) -> list[str]:
        """Bases of those that nobody has read, or can read any more; any thread may ask."""
        return list(self._bases)  # Python copies in one step

    @property
    def is_late(self) -> bool:
        """Whether any of them is: Redis may stand still."""
        return self._late > 0

    def send(
        self, call: Callable[..., Coroutine[Any, Any, Claimed]], *, most: int, was_idle: bool
    ) -> None:
        """Send one.

        Args:
            call: sends it, under the ``base`` that it is given.
            most: jobs that it may bring.
            was_idle: whether the worker holds nothing.
        """
        asked = _Asked(self._sign + secrets.token_hex(FRESH_BYTES), most, was_idle, monotonic())
        self._bases[asked.base] = None
        self.reserved += most
        # Not by the factory: it would have to find out what is known here.
        task: Task[Claimed] = Task(call(base=asked.base), loop=asyncio.get_running_loop())
        self.on_their_way[task] = asked
        task.add_done_callback(self._note)
        if self.late is not None:
            least, times = self.late
            seconds = max(least, times * self._round_trip)
            loop = asyncio.get_running_loop()
            asked.timer = loop.call_later(seconds, self._give_up_slots, asked)

    def _give_up_slots(self, asked: _Asked) -> None:
        asked.is_late = True
        self._late += 1
        self.reserved -= asked.most
        self._changed.set()

    def _note(self, task: "asyncio.Task[Claimed]") -> None:
        self.answered.append(task)
        self._changed.set()

    def read(self) -> tuple[Claimed, bool]:
        """The answer that came first, and whether the worker held nothing when it was asked for.

        Raises: what redis-py raises; then that claim is to be disowned.
        """
        task = self.answered.popleft()
        asked = self.on_their_way.pop(task)
        if asked.timer is not None:
            asked.timer.cancel()
        if asked.is_late:
            self._late -= 1
        else:
            self.reserved -= asked.most
        try:
            claimed = task.result()
        except BaseException:
            self.lost.append(asked.base)
            raise
        self._bases.pop(asked.base)
        # It grows again where Redis has moved, or slows down.
        took = monotonic() - asked.sent_at
        self._round_trip = min(took, 1.5 * self._round_trip or took)
        return claimed, asked.was_idle

    async def give_back(self) -> None:
        """Wait for all of them, and give back the jobs that they bring: nobody will begin them."""
        given_back: list[Settlement] = []
        while self.on_their_way:
            await self._until_answered()
            # What somebody has cancelled, or got lost, is disowned.
            with contextlib.suppress(asyncio.CancelledError, *REDIS_ERRORS):
                claimed, _ = self.read()
                given_back += [Settlement(claim, "release") for claim, _ in claimed.jobs]
        if given_back:
            with contextlib.suppress(*REDIS_ERRORS):
                await self._transitions.settle(given_back)

    async def _until_answered(self) -> None:
        while len(self.answered) < len(self.on_their_way):
            await asyncio.wait(self.on_their_way)

    async def disown_lost(self) -> None:
        """Tell Redis that nobody can read the answers that got lost.

        Raises: what redis-py raises; then it is still to be told.
        """
        while self.lost:
            await self._transitions.disown(self.lost[0], lease=self._lease)
            self._bases.pop(self.lost.pop(0))

    async def disown(self, transitions: Transitions | None = None) -> None:
        """Tell Redis that nobody will read any of these; for a worker that ends, in any thread.

        Args:
            transitions: of another thread's event loop.

        Raises: what redis-py raises.
        """
        for base in self.unread():
            await (transitions or self._transitions).disown(base, lease=self._lease)
