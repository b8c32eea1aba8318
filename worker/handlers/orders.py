"""Keeps what is known of each order: its status, its last change, its timeline.

Deliveries come in any order and may overlap. The timeline is kept sorted by the time at which
things happened, and a status replaces only an older one, so the result is the same whatever order
the events came in.
"""

from datetime import timedelta
from typing import Any, Final

import msgspec

from shared.sellfern.identifier import Id
from worker.events import Event, Organization
from worker.registry import Handlers

KEPT: Final = timedelta(days=90)
"""How long an order is kept after its last event; it bounds the projection."""

LONGEST_TIMELINE: Final = 50
_NEVER: Final = ["", ""]


class OrderChange(msgspec.Struct):
    """The data of an order event, as far as the projection reads it."""

    order_id: Id
    status: str | None = None


async def order_changed(event: Event[OrderChange], organization: Organization) -> None:
    """Put the change into the order's timeline, and its status where it is the latest."""
    key = f"orders/{event.data.order_id}"
    before: dict[str, Any] = await organization.state.get(key, {})
    await organization.state.put(key, changed(before, event), expire=KEPT)


def changed(before: dict[str, Any], event: Event[OrderChange]) -> dict[str, Any]:
    """The order after a change, wherever in the timeline the change belongs."""
    at = event.created_at.isoformat(timespec="milliseconds")
    status = event.data.status
    entry = {"at": at, "event_id": event.id, "type": event.type, "status": status}
    timeline = sorted([*before.get("timeline", ()), entry], key=_place)
    after = {
        "status": before.get("status"),
        "status_since": before.get("status_since", _NEVER),
        "last_change": timeline[-1]["at"],
        "timeline": timeline[-LONGEST_TIMELINE:],
    }
    if status is not None and [at, event.id] > after["status_since"]:
        after |= {"status": status, "status_since": [at, event.id]}
    return after


def _place(entry: dict[str, Any]) -> tuple[str, str]:
    return (entry["at"], entry["event_id"])


def register(handlers: Handlers) -> None:
    """Register the projection for every order event."""
    handlers.on("order.*")(order_changed)
