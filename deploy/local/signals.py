"""Turns the signals that end a program into an interrupt, so that every ``with`` block is left."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

_SHELLS_BASE: Final = 128
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Ending:
    """Which signal it was; before there was one, SIGINT."""

    number: int = signal.SIGINT
    is_over: bool = False

    @property
    def exit_code(self) -> int:
        """The one that a shell gives a program that the signal ended."""
        return _SHELLS_BASE + self.number

    def ignore_more(self) -> None:
        """Let the program come to its end: everything is stopped, and it is nearly there."""
        self.is_over = True
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def ended_by_signals() -> Iterator[Ending]:
    """While the block runs, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt.

    All come as SIGINT, which `run_until_interrupted` waits for. It counts also where a shell has
    told its background job to ignore it.
    """
    ending = Ending()

    def interrupt(number: int, _frame: object) -> None:
        ending.number = number
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield ending
    finally:
        for number, handler in before.items():
            if not ending.is_over:
                signal.signal(number, handler)


def run_until_interrupted(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine as ``asyncio.run`` does; each interrupt cancels it.

    The answer of asyncio itself to a second interrupt is an exception wherever the loop is just
    then, and that can leave a task group waiting for ever.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """

    async def watched() -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task  # noqa: S101  # a coroutine that runs is a task's
        loop.add_signal_handler(signal.SIGINT, task.cancel)
        try:
            return await main
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
