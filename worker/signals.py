"""The signals that tell a worker to stop, whatever a handler does to them."""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Tells of each such signal, and how many there have been.

    Not by the loop's own means: these need a descriptor that a handler may take away, and a loop
    that goes round. Python calls a plain function between any two steps of the main thread, so a
    signal is heard even where a handler blocks the loop with Python code.

    Args:
        tell: told of a signal, in the main thread, in the middle of whatever that does.
    """

    def __init__(self, tell: Callable[[signal.Signals, int], None]) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._times = 0
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Be told from now on; to be called again and again, since a handler may change that."""
        for number in STOPPING:
            there = signal.getsignal(number)
            if there != self._heard:
                self._before.setdefault(number, there)
                self._loop.remove_signal_handler(number)  # which would be called beside this one
                signal.signal(number, self._heard)

    def stop(self) -> None:
        """Be told no more."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def _heard(self, number: int, _: FrameType | None) -> None:
        self._times += 1
        self._tell(signal.Signals(number), self._times)
