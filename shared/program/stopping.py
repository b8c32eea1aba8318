"""What a signal to stop does to a program: before it serves, and while it does."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from threading import current_thread, main_thread
from types import FrameType
from typing import Final, NoReturn

_BY_SIGNAL: Final = 128
"""What shells add to a signal's number for the exit code."""


class Stopped(SystemExit):
    """A signal has ended the process, which nobody is to take for an error of what ran."""


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process on SIGTERM while the block runs, until somebody else takes the signal.

    That is what the system does by itself, but not for the first process of a container.
    """
    if current_thread() is not main_thread():  # signals are not its business
        yield
        return

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise Stopped(_BY_SIGNAL + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, before)


_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextlib.asynccontextmanager
async def stop_signal() -> AsyncIterator[asyncio.Event]:
    """Give an event that the first SIGTERM or SIGINT sets; a second one ends the process."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def first() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, first)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
