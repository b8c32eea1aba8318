"""One event as Sellfern makes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from deploy.sellfern.clock import timestamp


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
