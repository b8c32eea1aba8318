"""How long a handler may take."""

import asyncio
from typing import Self, cast


class TimeLimits:
    """Limits of one length, with one timer for all that run.

    What starts first is over first. So only the oldest needs the loop's timer: most blocks
    end before it is looked at, and cost no timer of their own.

    Args:
        seconds: that a block may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: dict[TimeLimit, float] = {}  # in the order of their ends
        self._is_set = False

    def start(self, limit: "TimeLimit") -> None:
        """Count the limit's time from now on."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._running[limit] = now + self.seconds
        if not self._is_set:
            self._is_set = True
            loop.call_at(now + self.seconds, self._look)

    def stop(self, limit: "TimeLimit") -> None:
        """The limit's block has ended."""
        self._running.pop(limit, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._running:
            limit, end = next(iter(self._running.items()))
            if end > now:
                loop.call_at(end, self._look)
                return
            del self._running[limit]
            limit.expire()
        self._is_set = False


class TimeLimit:
    """Cancels what runs in its block once its time is over.

    What ``asyncio.timeout`` does, at a tenth of its cost, which counts where a handler does
    little. The difference: it turns no ``CancelledError`` into a ``TimeoutError``; `is_over` says
    whose the cancellation was.

    Args:
        limits: those of the same length.
    """

    __slots__ = ("_limits", "_task", "is_over")

    def __init__(self, limits: TimeLimits) -> None:
        self._limits = limits
        self.is_over = False

    def __enter__(self) -> Self:
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._limits.start(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._limits.stop(self)
        if self.is_over:
            self._task.uncancel()

    @property
    def is_cancelled_from_outside(self) -> bool:
        """Whether somebody else has cancelled the task; to be asked after the block."""
        return self._task.cancelling() > 0

    def expire(self) -> None:
        """The time is over."""
        self.is_over = True
        self._task.cancel()
