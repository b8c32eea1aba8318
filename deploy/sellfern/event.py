"""An event as Sellfern makes it, at a time as Sellfern writes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

Clock = Callable[[], float]
"""Gives seconds since the epoch, as ``time.time`` does."""


def timestamp(seconds: float) -> str:
    """Write a time as Sellfern does: RFC 3339, UTC, to the millisecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Event:
    """An event.

    Attributes:
        id: ``evt_…``; redeliveries bear the same.
        type: such as ``order.updated``.
        created_at: seconds since the epoch.
        organization: whose it is.
        data: what it is about.
    """

    id: str
    type: str
    created_at: float
    organization: str
    data: Mapping[str, Any]

    def encode(self) -> bytes:
        """The body of its deliveries: Sellfern's envelope."""
        return msgspec.json.encode(
            {
                "id": self.id,
                "type": self.type,
                "created_at": timestamp(self.created_at),
                "organization_id": self.organization,
                "data": self.data,
            }
        )

    def forged(self) -> "Event":
        """One that looks like it and never happened; a handler can tell it by its id."""
        return replace(self, id=f"evt_forged_{self.id.removeprefix('evt_')}")
