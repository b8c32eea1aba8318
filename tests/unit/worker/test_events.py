"""Facts about events that a test makes."""

from datetime import UTC, datetime
from typing import assert_type

import msgspec
import pydantic
import pytest

from shared.sellfern import envelope
from worker import Event


class Order(msgspec.Struct):
    order_id: str


def test_an_example_has_all_that_an_event_has() -> None:
    event = Event.example("order.updated", Order("7"))
    assert_type(event, Event[Order])
    assert event.data == Order("7")
    assert event.received_at == event.created_at
    assert event.created_at.utcoffset() is not None
    assert (event.id, event.organization_id, event.attempt) == ("evt_1", "org_123", 1)
    assert (event.superseded, event.idempotency_key) == ((), "org_123:evt_1")


def test_an_example_says_what_it_is_asked_to() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    event = Event.example(
        "order.created",
        {"order_id": 7},
        organization="org_9",
        event_id="evt_9",
        received_at=at,
        attempt=3,
        superseded=("evt_8",),
    )
    assert (event.type, event.attempt, event.superseded) == ("order.created", 3, ("evt_8",))
    assert (event.created_at, event.received_at) == (at, at)


def test_its_raw_bytes_are_an_envelope() -> None:
    event = Event.example("order.updated", Order("7"))
    read = envelope.decode(event.raw)
    assert (read.id, read.type, read.created_at) == (event.id, event.type, event.created_at)
    assert (read.organization_id, bytes(read.data)) == ("org_123", b'{"order_id":"7"}')


def test_an_object_of_pydantics_is_what_it_dumps() -> None:
    class Model(pydantic.BaseModel):
        at: datetime

    event = Event.example("order.updated", {"inner": Model(at=datetime(2026, 1, 2, tzinfo=UTC))})
    assert bytes(envelope.decode(event.raw).data) == b'{"inner":{"at":"2026-01-02T00:00:00Z"}}'


def test_data_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError, match="data: expected what JSON can say, got complex"):
        Event.example("order.updated", {"n": 1j})


def test_an_object_of_pydantics_goes_by_the_names_that_sellfern_would_send() -> None:
    class Model(pydantic.BaseModel):
        order_id: str = pydantic.Field(alias="orderId")

    event = Event.example("order.updated", Model(orderId="1"))
    assert msgspec.json.decode(event.raw)["data"] == {"orderId": "1"}
