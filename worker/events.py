"""What a handler is given: the event, and the organization as all that it may touch."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Generic, TypeVar

import msgspec

from shared.observe.structlog_alone import FilteringBoundLogger
from worker.state import State

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
        superseded: ids of the older events that this one stands for, where a handler asks for the
            latest of a key only; the last hundred.
    """

    id: str
    type: str
    created_at: datetime
    organization_id: str
    data: Data
    raw: bytes
    attempt: int
    received_at: datetime
    superseded: tuple[str, ...] = ()

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt and redelivery: for calls to other services.

        What a handler does outside this Redis may happen more than once; a service that takes
        an idempotency key can tell.
        """
        return f"{self.organization_id}:{self.id}"


class Organization(msgspec.Struct, frozen=True):
    """One organization, for the time of one attempt.

    Attributes:
        id: the organization that the endpoint's secret proves (``org_…``).
        state: its values in Redis; no key of another organization can be named.
        settings: the ``[endpoint.settings]`` table of the endpoints file.
        logger: makes ``log``.
    """

    id: str
    state: State
    logger: Callable[[], FilteringBoundLogger]
    settings: Mapping[str, object] = msgspec.field(default_factory=dict)

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger bound to the organization and the event; most handlers need none."""
        return self.logger()
