"""Facts about deliveries: their record, and the delay between two attempts."""

from hypothesis import given
from hypothesis import strategies as st

from deploy.sellfern.delivery import Attempt, Deliveries, Delivery, Kind, retry_delay
from deploy.sellfern.event import Event

NOW = 1_769_860_800.0
EVENT = Event("evt_1", "order.updated", NOW, "org_a", {"order_id": "1"})


def delivery(number: int, kind: Kind = "event", endpoint: str = "e1") -> Delivery:
    return Delivery(f"dlv_{number}", endpoint, EVENT, EVENT.encode(), kind, NOW + number)


def test_the_latest_that_have_ended_are_kept_and_all_that_are_pending() -> None:
    deliveries = Deliveries(kept=2)
    for number in range(6):
        deliveries.begin(delivery(number))
    for each in deliveries.pending[:4]:
        deliveries.end(each, "delivered")
    assert [each.id for each in deliveries] == ["dlv_5", "dlv_4", "dlv_3", "dlv_2"]
    assert [each.id for each in deliveries.pending] == ["dlv_4", "dlv_5"]
    assert deliveries.counts == {"event_delivered": 4}


def test_an_endpoints_deliveries_are_its_own_and_no_forgeries() -> None:
    deliveries = Deliveries(kept=10)
    for each in (
        delivery(1),
        delivery(2, "forged"),
        delivery(3, "test"),
        delivery(4, endpoint="e2"),
    ):
        deliveries.begin(each)
    assert [each.id for each in deliveries.to("e1")] == ["dlv_3", "dlv_1"]


def test_a_delivery_is_shown_before_its_first_attempt() -> None:
    shown = delivery(0).shown()
    assert (shown["status"], shown["attempts"]) == ("pending", 0)
    assert {shown[name] for name in ("response_status", "error", "last_attempt_at")} == {None}


def test_a_delivery_is_shown_with_its_last_attempt() -> None:
    each = delivery(0)
    each.attempts += [Attempt(NOW + 1, 0.5, None, "no answer"), Attempt(NOW + 2, 0.25, 202)]
    each.next_attempt_at = NOW + 3
    assert each.shown() == {
        "id": "dlv_0",
        "webhook_id": "e1",
        "event_id": "evt_1",
        "event": "order.updated",
        "status": "pending",
        "attempts": 2,
        "response_status": 202,
        "error": None,
        "duration_ms": 250,
        "created_at": "2026-01-31T12:00:00.000Z",
        "last_attempt_at": "2026-01-31T12:00:02.000Z",
        "next_attempt_at": "2026-01-31T12:00:03.000Z",
        "delivered_at": None,
    }
    deliveries = Deliveries(kept=1)
    deliveries.begin(each)
    deliveries.end(each, "delivered")
    assert each.shown()["delivered_at"] == "2026-01-31T12:00:02.000Z"
    assert each.shown()["next_attempt_at"] is None
    assert each.ended.is_set()


shares = st.floats(0, 1, exclude_max=True)


def test_the_delay_doubles_with_each_attempt_up_to_its_cap() -> None:
    delays = [retry_delay(n, 0.999999, base=1.0, cap=10.0) for n in range(1, 7)]
    assert [round(delay) for delay in delays] == [1, 2, 4, 8, 10, 10]


@given(st.integers(1, 10**9), shares, st.floats(0.001, 100), st.floats(0.001, 1000))
def test_the_delay_is_from_half_of_its_bound_to_all_of_it(
    attempt: int, random: float, base: float, cap: float
) -> None:
    bound = min(cap, base * 2.0 ** min(attempt - 1, 60))
    assert bound / 2 <= retry_delay(attempt, random, base=base, cap=cap) <= bound
