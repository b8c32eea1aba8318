"""The signals that tell a worker to stop, whatever a handler does to them."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from shared.observe.structlog_alone import FilteringBoundLogger

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Tells of each such signal, and how many there have been.

    Not by the loop's own means: these need a descriptor that a handler may take away, and a loop
    that goes round. Python calls a plain function between any two steps of the main thread, so a
    signal is heard even where a handler blocks the loop with Python code. Where it computes in C,
    only another thread can hear of it, by the socket to which Python writes each signal at once.

    Args:
        tell: told of a signal, in the main thread, in the middle of whatever that does.
        overhear: told that there is one, in another thread; earlier or later than `tell`.
        log: told where a handler had taken a signal.
    """

    def __init__(
        self,
        tell: Callable[[signal.Signals, int], None],
        overhear: Callable[[], None],
        log: FilteringBoundLogger,
    ) -> None:
        self._log = log
        self._tell = tell
        self._overhear = overhear
        self._loop = asyncio.get_running_loop()
        self._times = 0
        self._before: dict[signal.Signals, Any] = {}
        self._ear, self._bell = socket.socketpair()
        self._bell.setblocking(False)  # noqa: FBT003  # the standard library's own
        threading.Thread(target=self._hear, name="signals", daemon=True).start()

    def listen(self) -> None:
        """Be told from now on; to be called again and again, since a handler may change that."""
        for number in STOPPING:
            there = signal.getsignal(number)
            if there != self._heard:
                if number in self._before:  # a moment ago it was ours
                    self._log.warning("signal_taken_back", signal=number.name)
                self._before.setdefault(number, there)
                self._loop.remove_signal_handler(number)  # which would be called beside this one
                signal.signal(number, self._heard)
        signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)

    def stop(self) -> None:
        """Be told no more."""
        for number, before in self._before.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(-1)
        self._bell.close()

    def _heard(self, number: int, _: FrameType | None) -> None:
        self._times += 1
        self._tell(signal.Signals(number), self._times)

    # In a thread

    def _hear(self) -> None:
        with self._ear, contextlib.suppress(OSError):  # a handler may close what isn't its own
            while numbers := self._ear.recv(64):
                if any(number in STOPPING for number in numbers):
                    self._overhear()
                with contextlib.suppress(RuntimeError):  # the loop has been closed
                    # It waits for its own socket, without looking whether Python has heard.
                    self._loop.call_soon_threadsafe(_nothing)


def _nothing() -> None:
    """Have the loop turn."""
