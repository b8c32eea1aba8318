"""The event as a handler sees it."""

from datetime import datetime
from typing import Generic, TypeVar

import msgspec

Data = TypeVar("Data")


class Event(msgspec.Struct, Generic[Data], frozen=True):
    """One event of one organization, verified and judged.

    Attributes:
        id: Sellfern's id of the event (``evt_…``); redeliveries bear the same.
        type: such as ``order.updated``.
        created_at: when it happened, by Sellfern's clock; aware.
        organization_id: the organization that the endpoint's secret proves.
        data: decoded to the type that the handler's annotation names.
        raw: the signed bytes.
        attempt: from 1.
        received_at: when the ingress took it, aware.
    """

    id: str
    type: str
    created_at: datetime
    organization_id: str
    data: Data
    raw: bytes
    attempt: int
    received_at: datetime

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt and redelivery: for calls to other services.

        What a handler does outside this Redis may happen more than once; a service that takes
        an idempotency key can tell.
        """
        return f"{self.organization_id}:{self.id}"
