"""Whether the worker's loop goes round."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import Final

_A_WHILE: Final = 10.0
"""Seconds after a stand-still in which time-outs may still come of it."""


_A_HALF: Final = 30.0
"""Seconds in which the worst stand-still is looked for, and after which for another one."""


class Pulse:
    """A tick of the worker's loop that another thread looks at.

    Args:
        limit: seconds without a tick from which on the loop stands still.
        context: in which it ticks: no event's.
    """

    def __init__(self, limit: float, context: Context) -> None:
        self.limit = limit
        self._context = context
        self._seen = self._forgiven = monotonic()
        self.before = self._seen
        """When it ticked before the last tick; by the monotonic clock, as all here."""
        # Long ago, though the clock may have begun at 0.
        self._stood_still_until = -_A_WHILE
        self._timer: asyncio.TimerHandle | None = None
        self._then: Callable[[float], None] = _nothing
        self._worst: tuple[float, float, float] = (0.0, 0.0, self._seen)

    def start(self, then: Callable[[float], None]) -> None:
        """Tick from now on, in the running loop.

        Args:
            then: called with each tick: for how many seconds the loop has stood still before it.
        """
        self._then = then
        self._seen = monotonic()
        self._tick()

    def stop(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def last(self) -> float:
        """When it ticked last."""
        return self._seen

    def still(self) -> float:
        """Seconds since the last tick, beyond those that lie between two."""
        return self._since(max(self._seen, self._forgiven))

    def forgive(self) -> None:
        """Take the whole process for suspended until now: nobody is judged for that."""
        self._forgiven = monotonic()

    def delay(self) -> float:
        """Seconds for which it has stood still at the worst, in the last minute or half of it."""
        before, worst, _ = self._worst
        return max(before, worst, self.still())

    @property
    def was_still(self) -> bool:
        """Whether the loop stands still, or did a moment ago: a time-out is no news of others."""
        return self.still() > self.limit or monotonic() - self._stood_still_until < _A_WHILE

    def _tick(self) -> None:
        # The tick is due before all time-outs that came due with it, so it is the first to know.
        still = self._since(self._seen)
        if still > self.limit:
            self._stood_still_until = monotonic()
        self.before, self._seen = self._seen, monotonic()
        before, worst, since = self._worst
        is_old = self._seen - since > _A_HALF
        # In one step: another thread reads it.
        self._worst = (worst, still, self._seen) if is_old else (before, max(worst, still), since)
        loop = asyncio.get_running_loop()
        # Four in the time of one stand-still: to be a little late is none.
        self._timer = loop.call_later(self.limit / 4, self._tick, context=self._context)
        self._then(still)

    def _since(self, tick: float) -> float:
        return max(0.0, monotonic() - tick - self.limit / 4)


def _nothing(_: float) -> None:
    """Before it is started."""
