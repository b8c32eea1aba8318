"""A thread with an event loop of its own, for what goes on while the worker's stands still."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, TypeVar

from shared.redis.connection import end

Result = TypeVar("Result")


class Aside:
    """The thread, as long as the block runs.

    It is plain asyncio's loop: what runs here is little, and has to work where the other doesn't.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon: what hangs in it must not keep the process beyond its deadline.
        self._thread = threading.Thread(target=self._run, name="aside", daemon=True)

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.run(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()  # it has only to turn once more
        self._loop.close()

    async def run(self, call: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine there; its result."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self._loop))

    @contextlib.asynccontextmanager
    async def within(self, manager: AbstractAsyncContextManager[Result]) -> AsyncIterator[Result]:
        """Enter a context there, and leave it there."""
        stack = contextlib.AsyncExitStack()
        entered = await self.run(stack.enter_async_context(manager))
        try:
            yield entered
        finally:
            await self.run(stack.aclose())

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _end_tasks(self) -> None:
        await end([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])
