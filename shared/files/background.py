"""Work beside the event loop that holds nobody up, neither a request nor the program's end."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Thread
from time import perf_counter, sleep
from typing import Final, TypeVar, cast

_Result = TypeVar("_Result")


async def in_daemon_thread(function: Callable[[], _Result]) -> _Result:
    """Run a function in a thread of its own and give what it gives.

    Unlike ``asyncio.to_thread``'s, the thread holds up neither the end of the loop nor that of the
    process: the function may hang for ever.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(result: _Result | None, error: BaseException | None) -> None:
        if future.done():  # nobody waits any more
            return
        if error is None:
            future.set_result(cast("_Result", result))
        else:
            future.set_exception(error)

    def run() -> None:
        result = error = None
        try:
            result = function()
        except BaseException as exc:  # noqa: BLE001  # it is raised where it is awaited
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, error)

    Thread(target=run, name=getattr(function, "__name__", None), daemon=True).start()
    return await future


WORK: Final = 0.0005
"""Seconds of work at a time. Another thread of this process waits as long for its turn: Python lets
one run at a time, and by itself changes only every 5 ms."""

REST: Final = 0.0007
"""Seconds of rest after it."""


@dataclass(slots=True)
class Pace:
    """Work in a thread beside the event loop.

    Attributes:
        rest: seconds after each slice; 0 where nobody waits.
    """

    rest: float = REST
    _since: float = field(default_factory=perf_counter)

    def breathe(self) -> None:
        """Rest if the slice is over; call it between any two small steps."""
        if perf_counter() - self._since >= WORK:
            if self.rest:
                sleep(self.rest)
            self._since = perf_counter()
