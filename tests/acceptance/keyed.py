"""Handlers of one order after the other, which need nothing but the worker: for tests of turns."""

import asyncio
from typing import Any

from worker import Event, Handlers, Organization

handlers = Handlers()


@handlers.on("*", key="order_id")
async def ordered(event: Event[Any], organization: Organization) -> None:
    """Take a moment."""
    await asyncio.sleep(0.005)
