"""A handler whose first events stay, as where a system that it calls is slow to answer."""

import asyncio
from functools import cache
from typing import Any

from worker import Event, Handlers, Organization

handlers = Handlers()

SECONDS = 3


@cache
def _answer_comes() -> asyncio.Task[None]:
    """In so many seconds from the first event on."""
    return asyncio.create_task(asyncio.sleep(SECONDS))


@handlers.on("*")
async def hold(event: Event[Any], organization: Organization) -> None:
    """Keep what it was given until there is an answer."""
    await asyncio.shield(_answer_comes())
