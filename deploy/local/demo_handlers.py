"""The handlers of the demos, as a module of one's own would have them."""

import asyncio
from typing import Any, Final
from zlib import crc32

from worker import Event, Handlers, Organization, Reject
from worker.handlers.orders import OrderChange, order_changed

# Fewer than a worker's attempts: such an event is late, not dead.
FAILURES: Final = 2
"""How often the handler fails on an event of a flaky order before it works."""

FLAKY_PREFIX: Final = "ord_flaky_"
STATUSES: Final = ("pending", "paid", "processing", "shipped", "completed")
"""What the handler takes for the status of an order; it rejects any other."""

USUAL_SECONDS: Final = 0.1
SLOW_SECONDS: Final = 2.0
"""Longer than a worker that leaves waits in the scale demo, which then gives the event back."""

_ONE_IN: Final = 20

handlers = Handlers()
"""The demo's: they keep the project's projection of orders, and fail where the plan has it so."""

slow_handlers = Handlers()
"""The scale demo's: they take a while, so that one worker isn't enough."""


@handlers.on("order.*")
async def order_event(event: Event[OrderChange], organization: Organization) -> None:
    """Apply the event to its order, and count it."""
    check_status(event.data.status)
    if event.data.order_id.startswith(FLAKY_PREFIX):
        call_flaky_service(event)
    await order_changed(event, organization)
    await organization.state.increment(f"applied/{event.id}")
    # The usual event costs one key of the state; the account takes a missing one for the first
    # attempt.
    if event.attempt > 1:
        await organization.state.put(f"attempts/{event.id}", event.attempt)


def check_status(status: str | None) -> None:
    """No further attempt could help an event whose status is none."""
    if status is not None and status not in STATUSES:
        raise Reject(f"expected one of {', '.join(STATUSES)}, got {status!r:.40}")


def call_flaky_service(event: Event[OrderChange]) -> None:
    """Stand for a call to somebody's service that fails for a while."""
    if event.attempt <= FAILURES:
        raise ConnectionError("the warehouse doesn't answer")


@slow_handlers.on("order.*")
async def slow_order_event(event: Event[Any], organization: Organization) -> None:
    """Stand for a call to somebody's service, then count the event."""
    await asyncio.sleep(seconds(event.id))
    await organization.state.increment(f"applied/{event.id}")


def seconds(event_id: str) -> float:
    """How long an event takes: one in twenty is slow, the same one at each attempt."""
    # By the id, so that an event that was given back takes as long elsewhere.
    return USUAL_SECONDS if crc32(event_id.encode()) % _ONE_IN else SLOW_SECONDS
