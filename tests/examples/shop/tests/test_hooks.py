"""Facts about what the shop does with its events."""

from datetime import UTC, datetime, timedelta

import pytest

from shop.erp import Erp
from shop.hooks import Order, handlers
from worker import Event, Secret
from worker.testing import (
    Dead,
    Duplicate,
    Handled,
    Ignored,
    Rejected,
    Retried,
    Sandbox,
    deliver,
)

NEW = {"order_id": 7, "status": "new", "items": [{"sku": "SKU-1", "quantity": 2}]}
SETTINGS = {"erp_token": Secret("a token of the ERP")}
AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def erp() -> Erp:
    """An ERP that has the time; no lifespan connects to another."""
    return Erp(refusals=0)


async def test_a_new_order_is_booked_and_counted(erp: Erp) -> None:
    result = await deliver(
        handlers, "order.created", NEW, settings=SETTINGS, state={"created": 4}, resources=erp
    )
    assert result.outcome == Handled()
    assert result.state == {"created": 5, "bookings/7": "booking-1"}
    assert [(line["event"], line["order"]) for line in result.log] == [("order_booked", "7")]


async def test_a_busy_erp_is_asked_again_and_books_once(erp: Erp) -> None:
    erp.refusals = 1
    sandbox = Sandbox(handlers, settings=SETTINGS, resources=erp)
    for outcome in (Retried(after=0.05, why="the ERP is busy"), Handled(), Duplicate()):
        result = await sandbox.deliver("order.created", NEW, event_id="evt_1")
        assert result.outcome == outcome
    assert list(erp.booked) == ["org_123:evt_1"]


async def test_what_the_erp_does_not_know_is_rejected(erp: Erp) -> None:
    odd = {**NEW, "items": [{"sku": "odd", "quantity": 1}]}
    result = await deliver(handlers, "order.created", odd, settings=SETTINGS, resources=erp)
    assert result.outcome == Rejected("the ERP knows no odd")
    assert result.state == {}


async def test_a_token_that_is_none_shows_as_what_it_raises(erp: Erp) -> None:
    empty = {"erp_token": Secret("")}
    result = await deliver(handlers, "order.created", NEW, settings=empty, resources=erp)
    with pytest.raises(PermissionError, match="asks for a token"):
        result.raise_for_failure()


async def test_the_latest_status_wins_in_whatever_order_they_come() -> None:
    sandbox = Sandbox(handlers)
    paid, older = {"order_id": 7, "status": "paid"}, {"order_id": 7, "status": "open"}
    await sandbox.deliver("order.updated", paid, created_at=AT)
    await sandbox.deliver("order.updated", older, created_at=AT - timedelta(hours=1))
    assert sandbox.state() == {"orders/7": {"status": "paid", "by": "order.updated"}}


async def test_an_order_without_an_id_is_malformed() -> None:
    result = await deliver(handlers, "order.updated", {"status": "paid"})
    assert result.outcome == Dead("malformed")


async def test_tickets_are_nobodys_business() -> None:
    result = await deliver(handlers, "ticket.opened", {}, available=["ticket.opened"])
    assert result.outcome == Ignored()


def test_an_event_for_a_call_of_ones_own() -> None:
    event = Event.example("order.created", Order(order_id="7"), organization="org_9", attempt=2)
    assert (event.data.order_id, event.idempotency_key) == ("7", "org_9:evt_1")
