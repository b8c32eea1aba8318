"""What a handler is given: the event, and the organization as all that it may touch."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec

from shared.observe.structlog_alone import FilteringBoundLogger
from worker.state import State

Data = TypeVar("Data")
Example = TypeVar("Example")


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
        """The same for every attempt and redelivery, whichever handler runs: for calls elsewhere.

        ``organization:event``. A ``#`` and a name behind it are reserved: for several handlers of
        one event, each of which has to have a key of its own.

        What a handler does outside this Redis may happen more than once; a service that takes
        an idempotency key can tell.
        """
        return f"{self.organization_id}:{self.id}"

    # With a type variable of its own, or type checkers would ask for the class's.
    @staticmethod
    def example(
        event_type: str,
        data: Example,
        *,
        organization: str = "org_123",
        event_id: str = "evt_1",
        created_at: datetime | None = None,
        received_at: datetime | None = None,
        attempt: int = 1,
        superseded: tuple[str, ...] = (),
    ) -> "Event[Example]":
        """An event for a test that calls a handler itself; nothing is judged, nor decoded.

        Args:
            event_type: such as ``order.updated``.
            data: as the handler gets it.
            organization: whose it is.
            event_id: Sellfern's id of it.
            created_at: when it happened, aware; now, or when it was received.
            received_at: when the ingress took it, aware; when it was created.
            attempt: from 1.
            superseded: ids of the older events that it stands for.
        """
        created = created_at or received_at or datetime.now(UTC)
        return Event(
            id=event_id,
            type=event_type,
            created_at=created,
            organization_id=organization,
            data=data,
            raw=body_of(event_id, event_type, created, organization, data),
            attempt=attempt,
            received_at=received_at or created,
            superseded=superseded,
        )


def body_of(
    event_id: str, event_type: str, created_at: datetime, organization: str, data: object
) -> bytes:
    """An event's body as Sellfern would send it.

    Raises:
        TypeError: the data is nothing that JSON can say.
    """
    envelope = {
        "id": event_id,
        "type": event_type,
        "created_at": created_at,
        "organization_id": organization,
        "data": data,
    }
    return msgspec.json.encode(envelope, enc_hook=_plain)


def _plain(value: Any) -> object:
    """What an object is in JSON that has a word for it, as one of pydantic's has."""
    if not hasattr(value, "model_dump"):
        raise TypeError(f"data: expected what JSON can say, got {type(value).__name__}")
    return value.model_dump(mode="json", by_alias=True)


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
