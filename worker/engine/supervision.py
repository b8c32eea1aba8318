"""Keeps the worker's own loops going, whatever ends one."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final

from shared.observe.structlog_alone import FilteringBoundLogger
from shared.redis.connection import end

_PAUSE: Final = 0.2
"""Seconds until a loop that has failed begins anew: one that fails at once would fill the log."""


class Supervisor:
    """Runs loops that are to go on until they are told to stop.

    A loop that ends is begun anew by a callback, not by a task that waits for it: a task could be
    ended like the loop itself.

    Args:
        log: told of each end that nobody asked for.
        context: in which the loops run: no event's.
    """

    def __init__(self, log: FilteringBoundLogger, context: Context) -> None:
        self._log = log
        self._context = context
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_over = False

    def keep(self, name: str, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a loop from now on."""
        # One that failed just before the end is still due to begin anew.
        if self._is_over:
            return
        task = asyncio.get_running_loop().create_task(loop(), name=name, context=self._context)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._ended(name, loop, done), context=self._context)

    def missing(self) -> list[str]:
        """The loops that have failed and not begun anew yet."""
        return [name for name, task in self._tasks.items() if task.done()]

    async def stop(self) -> None:
        """End them all."""
        self._is_over = True
        await end(list(self._tasks.values()))

    def _ended(
        self, name: str, loop: Callable[[], Coroutine[Any, Any, None]], task: "asyncio.Task[None]"
    ) -> None:
        if self._is_over:
            return
        error = None if task.cancelled() else task.exception()
        self._log.error(
            "loop_failed", loop=name, **({"exc_info": error} if error else {"error": "cancelled"})
        )
        asyncio.get_running_loop().call_later(_PAUSE, self.keep, name, loop, context=self._context)
