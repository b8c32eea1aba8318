"""A thread that nobody waits for."""

import asyncio
import contextlib
from collections.abc import Callable
from threading import Thread
from typing import TypeVar, cast

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
