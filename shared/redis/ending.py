"""Ends tasks that talk to Redis."""

import asyncio
from collections.abc import Collection
from typing import Any, Final

_ONCE_MORE: Final = 0.1


async def end(tasks: Collection["asyncio.Future[Any]"]) -> None:
    """Cancel tasks until they have ended.

    redis-py sends every command by ``asyncio.wait_for``, which in Python 3.11 loses a cancellation
    that comes when the sending is just done; a loop would then go on for ever.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_ONCE_MORE)
    await asyncio.gather(*tasks, return_exceptions=True)
