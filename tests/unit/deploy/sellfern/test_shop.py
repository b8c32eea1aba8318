"""Facts about what happens in a shop."""

from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sellfern.event import Event
from deploy.sellfern.shop import MOST_OPEN, Shop
from deploy.sellfern.vendor import EVENTS
from shared.sellfern import envelope

NOW = 1_769_860_800.0
STATUSES = ["pending", "paid", "processing", "shipped", "completed"]


def happenings(number: int, *, seed: int = 1, wanted: tuple[str, ...] = EVENTS) -> list[Event]:
    """So many events of one shop, a second apart."""
    shop = Shop("org_a", seed)
    return [shop.next_event(NOW + second, wanted) for second in range(number)]


def by_order(events: list[Event]) -> dict[str, list[Event]]:
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        found[event.data["order_id"]].append(event)
    return found


def test_the_same_seed_gives_the_same_events_and_another_gives_others() -> None:
    assert happenings(200) == happenings(200)
    assert not {each.id for each in happenings(50)} & {each.id for each in happenings(50, seed=2)}


def test_two_organizations_share_no_id_under_one_seed() -> None:
    first, second = (Shop(name, 1).event("order.created", NOW) for name in ("org_a", "org_b"))
    assert first.id != second.id
    assert first.data["order_id"] != second.data["order_id"]


def test_every_type_of_event_happens_and_ids_are_never_used_again() -> None:
    events = happenings(1000)
    assert {each.type for each in events} == set(EVENTS)
    assert len({each.id for each in events}) == 1000


@given(st.integers(0, 1000))
def test_an_order_lives_in_order(seed: int) -> None:
    for events in by_order(happenings(150, seed=seed)).values():
        types = [each.type for each in events]
        assert types[0] == "order.created"
        assert types.count("order.created") == 1
        life = Counter(types)
        assert life["order.fulfillment.delivered"] <= life["order.fulfillment.shipped"] <= 1
        assert life["ticket.updated"] <= life["ticket.created"] <= 1
        changes = [each.data for each in events if each.type == "order.status_changed"]
        passed = [each["previous_status"] for each in changes]
        assert passed == STATUSES[: len(passed)]
        assert [each["status"] for each in changes] == STATUSES[1 : len(passed) + 1]
        assert [each.created_at for each in events] == sorted(each.created_at for each in events)


def first(events: list[Event], event_type: str) -> dict[str, Any]:
    return dict(next(each.data for each in events if each.type == event_type))


def test_what_belongs_to_an_order_says_so() -> None:
    whole = [
        events
        for events in by_order(happenings(3000)).values()
        if {each.type for each in events} == set(EVENTS)
    ]
    assert whole
    for events in whole:
        created = first(events, "order.created")
        shipped = first(events, "order.fulfillment.shipped")
        delivered = first(events, "order.fulfillment.delivered")
        expense = first(events, "expense.created")
        asked, answered = first(events, "ticket.created"), first(events, "ticket.updated")
        assert delivered == {**shipped, "status": "delivered"}
        assert expense["fulfillment_id"] == shipped["fulfillment_id"]
        assert answered == {**asked, "status": "resolved", "messages": 2}
        assert asked["customer_id"] == created["customer_id"]
        assert {each["sku"] for each in shipped["items"]} == {
            each["sku"] for each in created["items"]
        }


def test_the_total_is_the_sum_of_the_items() -> None:
    for event in happenings(200, wanted=("order.updated", "order.status_changed")):
        cents = sum(each["quantity"] * each["unit_price"]["cents"] for each in event.data["items"])
        assert event.data["total"] == {"cents": cents, "currency": "EUR"}


def test_an_event_that_was_sent_stays_as_it_was() -> None:
    shop = Shop("org_a", 1)
    created = shop.event("order.created", NOW)
    before = created.encode()
    for _ in range(100):
        shop.next_event(NOW, EVENTS)
        shop.event("order.updated", NOW)
    assert created.encode() == before


def test_only_what_is_wanted_is_told() -> None:
    assert {each.type for each in happenings(50, wanted=("ticket.updated",))} == {"ticket.updated"}
    # Nothing makes this one happen by itself.
    assert happenings(1, wanted=("order.archived",))[0].type == "order.archived"


@pytest.mark.parametrize("event_type", EVENTS)
def test_each_event_can_be_had_at_once_and_again(event_type: str) -> None:
    shop = Shop("org_a", 1)
    events = [shop.event(event_type, NOW) for _ in range(2 * MOST_OPEN)]
    assert len({each.id for each in events}) == len(events)
    assert all(each.data["order_id"].startswith("ord_") for each in events)


def test_an_update_that_is_asked_for_is_of_an_order_that_is_known() -> None:
    shop = Shop("org_a", 1)
    order = shop.event("order.created", NOW).data
    updates = [shop.event("order.updated", NOW).data for _ in range(5)]
    assert {each["order_id"] for each in updates} == {order["order_id"]}
    assert {each["status"] for each in updates} == {"pending"}


def test_an_event_that_is_asked_for_happens_to_an_order_that_awaits_it() -> None:
    shop = Shop("org_a", 1)
    life = ("order.created", "order.updated", "order.status_changed", "order.status_changed")
    rest = ("expense.created", "order.fulfillment.shipped", "order.status_changed")
    orders = {shop.event(each, NOW).data["order_id"] for each in (*life, *rest)}
    assert len(orders) == 1


def test_the_data_is_taken_as_given() -> None:
    assert Shop("org_a", 1).event("order.updated", NOW, {"order_id": "1"}).data == {"order_id": "1"}


@pytest.mark.parametrize("event_type", EVENTS)
def test_a_body_is_the_envelope(event_type: str) -> None:
    event = Shop("org_a", 1).event(event_type, NOW + 0.1239)
    decoded = envelope.decode(event.encode())
    assert (decoded.id, decoded.type) == (event.id, event_type)
    assert decoded.organization_id == "org_a"
    assert b'"created_at":"2026-01-31T12:00:00.123Z"' in event.encode()
