"""The handlers of the scale demo: they take a while, and count what they have done."""

import asyncio
from typing import Any, Final
from zlib import crc32

from worker import Event, Handlers, Organization

USUAL_SECONDS: Final = 0.1
SLOW_SECONDS: Final = 2.0
"""Longer than a worker that leaves waits in this demo, which then gives the event back."""

_ONE_IN: Final = 20

handlers = Handlers()


@handlers.on("order.*")
async def order_event(event: Event[Any], organization: Organization) -> None:
    """Stand for a call to somebody's service, then count the event."""
    await asyncio.sleep(seconds(event.id))
    await organization.state.increment(f"applied/{event.id}")


def seconds(event_id: str) -> float:
    """How long an event takes: one in twenty is slow, the same one at each attempt."""
    return USUAL_SECONDS if crc32(event_id.encode()) % _ONE_IN else SLOW_SECONDS
