"""What SIGTERM does while a program isn't serving yet."""

import contextlib
import signal
from collections.abc import Iterator
from threading import current_thread, main_thread
from types import FrameType
from typing import Final, NoReturn

_BY_SIGNAL: Final = 128
"""What shells add to a signal's number for the exit code."""


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process on SIGTERM while the block runs.

    That is what the system does by itself, but not for the first process of a container.
    """
    if current_thread() is not main_thread():  # signals are not its business
        yield
        return

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(_BY_SIGNAL + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
