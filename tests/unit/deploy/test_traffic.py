"""Facts about what the demo sends."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from multidict import CIMultiDict

from deploy.local.demo_handlers import FLAKY_PREFIX
from deploy.local.plan import DEAD, REFUSED, Delivery, Kind, Plan
from deploy.local.traffic import FEWEST_EVENTS, REDELIVERED, SHARES, plan
from shared.errors import EnvelopeError, SignatureError
from shared.queue.job import job_id
from shared.sellfern import envelope, signature
from shared.sellfern.scheme import SELLFERN

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SEEDS = range(5)


def made(events: int = 2000, seed: int = 7) -> Plan:
    return plan(events, seed=seed, now=NOW)


def refusal(script: Plan, delivery: Delivery) -> str | None:
    """The code that the real verifier gives a delivery, with its endpoint's secret."""
    (secret,) = (o.secret for o in script.organizations if o.endpoint == delivery.endpoint)
    headers = CIMultiDict(delivery.headers)
    try:
        signature.verify(SELLFERN, delivery.body, headers, [secret.encode()], 0.0)
    except SignatureError as exc:
        return exc.code
    return None


def test_the_same_seed_makes_the_same_plan_and_another_seed_another() -> None:
    assert made().deliveries == made().deliveries
    assert made().deliveries != made(seed=8).deliveries


@pytest.mark.parametrize("events", [FEWEST_EVENTS, 100, 2000])
def test_the_shares_are_as_stated(events: int) -> None:
    script = made(events)
    assert len(script.events) == events
    assert sum(each.is_again for each in script.deliveries) == round(events * REDELIVERED)
    for kind, share in SHARES.items():
        assert script.kinds[kind] == max(1, round(events * share)), kind


def test_fewer_events_than_kinds_need_are_refused() -> None:
    with pytest.raises(ValueError, match=f"expected {FEWEST_EVENTS} events or more"):
        made(FEWEST_EVENTS - 1)


def test_three_organizations_have_secrets_of_their_own() -> None:
    script = made()
    assert len({each.secret for each in script.organizations}) == 3
    senders = Counter(event.organization for event in script.events)
    assert senders.keys() == {each.id for each in script.organizations}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_verifier_refuses_exactly_what_the_plan_says(seed: int) -> None:
    script = made(500, seed)
    for delivery in script.deliveries:
        assert refusal(script, delivery) == REFUSED.get(delivery.event.kind), delivery


@pytest.mark.parametrize("seed", SEEDS)
def test_a_body_says_what_the_plan_says(seed: int) -> None:
    for delivery in made(500, seed).deliveries:
        event = delivery.event
        if event.kind is Kind.RUBBISH:
            with pytest.raises(EnvelopeError):
                envelope.decode(delivery.body)
            continue
        read = envelope.decode(delivery.body)
        assert (read.id, read.type, read.created_at) == (event.id, event.type, event.at)
        claims_another = read.organization_id != event.organization
        assert claims_another == (event.kind is Kind.IMPOSTOR)


def test_redeliveries_have_the_same_bytes_or_other_bytes_of_the_same_event() -> None:
    bodies: dict[tuple[str, str], list[Delivery]] = defaultdict(list)
    for delivery in made().deliveries:
        bodies[delivery.event.organization, delivery.event.name].append(delivery)
    again = [pair for pair in bodies.values() if len(pair) > 1]
    same = [a.body == b.body for a, b in again]
    assert len(again) == round(2000 * REDELIVERED)
    assert 100 < sum(same) < 300
    for first, second in again:
        assert not first.is_again
        assert second.is_again
        assert second.has_other_bytes == (first.body != second.body)
        if first.event.id:
            assert msgspec.json.decode(first.body) == msgspec.json.decode(second.body)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_two_events_of_an_organization_have_the_same_name_or_bytes(seed: int) -> None:
    script = made(seed=seed)
    names = [(event.organization, event.name) for event in script.events]
    assert len(set(names)) == len(names)
    assert len({event.job for event in script.events}) == len(script.events)


def test_an_impostor_bears_the_id_of_a_genuine_event_of_its_victim() -> None:
    script = made()
    genuine = {event.id: event for event in script.events if event.is_applied}
    for event in script.events:
        if event.kind is Kind.IMPOSTOR:
            assert genuine[event.id].organization != event.organization


def test_an_event_without_an_id_is_known_by_its_job() -> None:
    script = made()
    rubbish = [each for each in script.deliveries if each.event.kind is Kind.RUBBISH]
    assert rubbish
    for delivery in rubbish:
        assert delivery.event.name == job_id(delivery.event.organization, delivery.body)


@pytest.mark.parametrize("seed", SEEDS)
def test_some_events_of_an_order_are_sent_out_of_order(seed: int) -> None:
    assert made(seed=seed).out_of_order > 50


def test_what_must_be_known_of_an_order_is_its_good_events_in_the_order_of_their_times() -> None:
    script = made()
    by_id = {e.id: e for e in script.events if e.is_applied}
    assert sum(len(order.timeline) for order in script.orders.values()) == len(by_id)
    for (organization, order_id), order in script.orders.items():
        events = [by_id[event_id] for event_id in order.timeline]
        assert events == sorted(events, key=lambda event: (event.at, event.id))
        assert {event.organization for event in events} == {organization}
        assert {event.kind is Kind.FLAKY for event in events} == {order_id.startswith(FLAKY_PREFIX)}
        assert order.status in {event.status for event in events}


def test_old_events_are_older_and_early_ones_younger_than_the_worker_allows() -> None:
    for event in made().events:
        age = NOW - event.at
        match event.kind:
            case Kind.STALE:
                assert age > timedelta(days=6)
            case Kind.EARLY:
                assert age < -timedelta(minutes=5)
            case _:
                assert timedelta() <= age <= timedelta(hours=2)


def test_each_kind_has_one_end() -> None:
    assert not REFUSED.keys() & DEAD.keys()
    assert REFUSED.keys() | DEAD.keys() | {Kind.GOOD, Kind.FLAKY} == set(Kind)
    assert SHARES.keys() | {Kind.GOOD} == set(Kind)
