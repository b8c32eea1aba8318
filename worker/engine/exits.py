"""With which code, and by when, a worker's process ends."""

import enum
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

_FLUSH_SECONDS: Final = 1.0


class Exit(enum.IntEnum):
    """Why the process ended, for whoever restarts it."""

    DRAINED = 0
    AT_ONCE = 1
    """A second signal."""
    BLOCKED = 70
    """A handler kept the loop from doing anything for longer than HANDLER_TIMEOUT."""
    STUCK = 71
    """Half of the slots' handlers went on though they were cancelled, or one did that blocks."""
    BROKEN = 72
    """A task or a callback that a handler left ended the loop, as ``sys.exit`` does."""
    LEFT = 75
    """The time for draining was over, and something was left to its lease."""


class Leave(Protocol):
    """Ends the process for a reason: at once in any thread, else in the worker's own."""

    def __call__(self, code: Exit, *, at_once: bool) -> None:
        """End it, at once or once it has drained."""
        ...


class Deadline:
    """Ends the process at a time, come what may.

    A thread waits for it, since a loop that stands still, a handler's thread that never ends or a
    collector of spans that doesn't answer must not put it off.

    Args:
        last_words: called at the end, with what is left; its log line is the process's last.
        flush: writes what was logged, within so many seconds.
    """

    def __init__(self, last_words: Callable[[], Exit], flush: Callable[[float], object]) -> None:
        self._last_words = last_words
        self._flush = flush
        self._at: float | None = None
        self._changed = threading.Condition()

    def set(self, seconds: float) -> None:
        """End the process in so many seconds; a later call brings it forward, never back."""
        at = monotonic() + seconds
        with self._changed:
            if self._at is None:
                threading.Thread(target=self._wait, name="deadline", daemon=True).start()
            self._at = at if self._at is None else min(self._at, at)
            self._changed.notify()

    def _wait(self) -> None:
        with self._changed:
            while self._at is not None and (left := self._at - monotonic()) > 0:
                self._changed.wait(left)
        code = Exit.LEFT
        try:
            code = self._last_words()
            self._flush(_FLUSH_SECONDS)
        finally:
            os._exit(code)
