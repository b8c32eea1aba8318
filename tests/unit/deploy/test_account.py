"""Facts about the account of the demo: it balances only when every event ended as it must."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from deploy.local.account import Account, DeadLetter, Evidence, Name, account
from deploy.local.demo_handlers import FAILURES
from deploy.local.display import account_table, partitions, projection, verdict
from deploy.local.plan import ACCEPTED, DEAD, KNOWN, REFUSED, Delivery, Event, Kind, Plan
from deploy.local.traffic import plan
from shared.queue.partition import home
from tests.unit.deploy.screen import shown


@cache
def script() -> Plan:
    return plan(300, seed=3, now=datetime(2026, 3, 1, tzinfo=UTC))


def name(event: Event) -> Name:
    return event.organization, event.name


def named(kind: Kind) -> Event:
    return next(event for event in script().events if event.kind is kind)


def answer(delivery: Delivery) -> str:
    """Same bytes are known; other bytes are a new job, whatever becomes of it."""
    if delivery.event.kind in REFUSED:
        return REFUSED[delivery.event.kind]
    return KNOWN if delivery.is_again and not delivery.has_other_bytes else ACCEPTED


def order(organization: str, order_id: str) -> dict[str, Any]:
    must = script().orders[organization, order_id]
    times = {event.id: event for event in script().events if event.is_applied}
    return {
        "status": must.status,
        "timeline": [
            {
                "event_id": event_id,
                "at": times[event_id].at.isoformat(),
                "type": times[event_id].type,
                "status": times[event_id].status,
            }
            for event_id in must.timeline
        ],
    }


def ideal() -> Evidence:
    """What is known in the end when everything went as it must."""
    answers = {delivery.number: answer(delivery) for delivery in script().deliveries}
    applied = [event for event in script().events if event.is_applied]
    dead = [event for event in script().events if event.kind in DEAD]
    seen = Counter(answers.values())
    return Evidence(
        answers=answers,
        unanswered=0,
        ingress=dict(seen),
        counters={
            "accepted": seen[ACCEPTED],
            "known": seen[KNOWN],
            "handled": len(applied),
            "duplicate": seen[ACCEPTED] - len(applied) - len(dead),
            "retried": script().kinds[Kind.FLAKY] * FAILURES,
            "dead": len(dead),
        },
        waiting=0,
        dead=[DeadLetter(name(event), DEAD[event.kind]) for event in dead],
        applied={name(event): 1 for event in applied},
        attempts={name(e): FAILURES + 1 for e in applied if e.kind is Kind.FLAKY},
        orders={each: order(*each) for each in script().orders},
    )


def without(mapping: Any, key: Any) -> dict[Any, Any]:
    return {each: value for each, value in mapping.items() if each != key}


def counted(evidence: Evidence, **more: int) -> dict[str, int]:
    counters = Counter(evidence.counters)
    counters.update(more)
    return dict(counters)


def drawn_up(**changes: Any) -> Account:
    return account(script(), replace(ideal(), **changes))


def complaint(drawn: Account, start: str) -> str:
    (found,) = (each for each in drawn.complaints if each.startswith(start))
    assert not drawn.balances
    return found


def test_it_balances_when_everything_went_as_it_must() -> None:
    drawn = drawn_up()
    assert not drawn.complaints
    assert drawn.balances
    total = sum(drawn.got(each) for each in ("refused", "handled", "duplicates", "dead"))
    assert total == drawn.got("sent") == len(script().deliveries)


def test_it_balances_wherever_duplicates_were_noticed() -> None:
    """At the ingress, by a worker, or of a dead event: held, or revived and dead again."""
    before = ideal()
    here = dict.fromkeys(before.answers, ACCEPTED) | {
        number: code for number, code in before.answers.items() if code not in {ACCEPTED, KNOWN}
    }
    known = before.counters["known"]
    moved = counted(before, accepted=known, known=-known, duplicate=known - 3, dead=2, held=1)
    seen = dict(Counter(here.values()))
    assert drawn_up(answers=here, ingress=seen, counters=moved).balances


def test_a_missing_event_is_told_by_its_id() -> None:
    event = named(Kind.GOOD)
    drawn = drawn_up(
        applied=without(ideal().applied, name(event)), counters=counted(ideal(), handled=-1)
    )
    assert event.id in complaint(drawn, "accepted, but never applied")
    assert complaint(drawn, "Redis took")


def test_an_event_applied_twice_is_told_by_its_id_though_every_sum_is_right() -> None:
    event = named(Kind.FLAKY)
    drawn = drawn_up(applied={**ideal().applied, name(event): 2})
    assert all(row.balances for row in drawn.rows)
    assert complaint(drawn, "applied 2 times") == (
        f"applied 2 times: {event.id} of {event.organization}"
    )


@pytest.mark.parametrize("kind", [Kind.FORGED, Kind.IMPOSTOR, Kind.REJECTED])
def test_an_event_that_must_change_nothing_and_did_is_told(kind: Kind) -> None:
    event = named(kind)
    drawn = drawn_up(applied={**ideal().applied, name(event): 1})
    assert event.id in complaint(drawn, "applied, though it must not be")


def test_a_refusal_of_a_good_delivery_is_told() -> None:
    first = script().deliveries[0]
    drawn = drawn_up(answers={**ideal().answers, first.number: "signature_invalid"})
    told = complaint(drawn, "answered signature_invalid instead of accepted")
    assert first.event.id in told


def test_a_delivery_without_an_answer_is_told() -> None:
    first = script().deliveries[0]
    drawn = drawn_up(answers=without(ideal().answers, first.number))
    assert first.event.id in complaint(drawn, "answered no answer instead of accepted")


def test_a_forged_delivery_that_was_accepted_is_told() -> None:
    forged = next(each for each in script().deliveries if each.event.kind is Kind.FORGED)
    drawn = drawn_up(answers={**ideal().answers, forged.number: ACCEPTED})
    assert forged.event.id in complaint(drawn, "answered accepted instead of signature_invalid")


def test_a_dead_letter_that_is_missing_is_told() -> None:
    event = named(Kind.STALE)
    left = [letter for letter in ideal().dead if letter.name != name(event)]
    drawn = drawn_up(dead=left)
    assert event.id in complaint(drawn, "no dead letter, expected stale")


def test_a_dead_letter_of_another_reason_is_told() -> None:
    event = named(Kind.REJECTED)
    others = [letter for letter in ideal().dead if letter.name != name(event)]
    drawn = drawn_up(dead=[*others, DeadLetter(name(event), "exhausted")])
    assert event.id in complaint(drawn, "exhausted dead letter, expected rejected")


def test_a_good_event_among_the_dead_letters_is_told() -> None:
    event = named(Kind.GOOD)
    drawn = drawn_up(dead=[*ideal().dead, DeadLetter(name(event), "crashed")])
    assert event.id in complaint(drawn, "crashed dead letter, expected handled")


def test_two_dead_letters_of_one_event_are_told() -> None:
    event = named(Kind.RUBBISH)
    drawn = drawn_up(dead=[*ideal().dead, DeadLetter(name(event), "malformed")])
    assert event.job in complaint(drawn, "malformed and malformed dead letter")


def test_a_retry_too_few_and_one_too_many_are_told() -> None:
    flaky, good = named(Kind.FLAKY), named(Kind.GOOD)
    attempts = {**ideal().attempts, name(flaky): 2, name(good): 2}
    drawn = drawn_up(attempts=attempts)
    assert flaky.id in complaint(drawn, "handled by another than attempt 3")
    assert good.id in complaint(drawn, "needed more than one attempt")
    assert not drawn_up(counters=counted(ideal(), retried=1)).balances


@pytest.mark.parametrize("change", ["status", "timeline", "gone", "surplus"])
def test_an_order_that_is_not_what_its_events_make_is_told(change: str) -> None:
    organization, order_id = script().most_shuffled
    orders: dict[Name, Any] = dict(ideal().orders)
    value = orders.pop((organization, order_id))
    match change:
        case "status":
            orders[organization, order_id] = {**value, "status": "teleported"}
        case "timeline":
            orders[organization, order_id] = {**value, "timeline": value["timeline"][::-1]}
        case "surplus":
            orders[organization, order_id] = value
            order_id = "ord_x"
            orders[organization, order_id] = value
        case _:
            pass
    drawn = drawn_up(orders=orders)
    assert f"{order_id} of {organization}" in complaint(drawn, "orders whose projection")


def test_sources_that_disagree_are_told() -> None:
    before = ideal()
    more = counted(before, accepted=1, duplicate=1)
    assert "but Redis counted" in complaint(drawn_up(counters=more), "the sender saw")
    metrics = {**before.ingress, "signature_missing": 0}
    assert "but the ingress counted 0" in complaint(drawn_up(ingress=metrics), "the sender saw")


def test_a_request_that_had_to_be_sent_again_may_be_stored_twice_and_no_more() -> None:
    before = ideal()
    once = counted(before, known=1)
    assert drawn_up(counters=once, unanswered=1).balances
    assert not drawn_up(counters=once, unanswered=0).balances
    assert not drawn_up(counters=counted(before, known=2), unanswered=1).balances


def test_an_event_that_still_waits_keeps_it_from_balancing() -> None:
    drawn = drawn_up(waiting=1, counters=counted(ideal(), handled=-1))
    assert not drawn.balances
    assert not any(each.startswith("Redis took") for each in drawn.complaints)


def test_many_ids_are_cut_to_the_first_ten() -> None:
    told = complaint(drawn_up(applied={}), "accepted, but never applied")
    assert told.count("evt_") == 10
    assert told.endswith(f" and {len(ideal().applied) - 10} more")


def test_the_tables_fit_a_terminal_of_80_columns() -> None:
    drawn = drawn_up()
    evidence = ideal()
    text = shown(account_table(drawn), *projection(script(), evidence), *verdict(drawn), width=80)
    assert "…" not in text
    assert "balances to the last event" in text
    assert len([line for line in text.splitlines() if "organization_mismatch" in line]) == 1
    assert all(len(line) <= 80 for line in text.splitlines())


def test_partitions_are_told_with_who_lives_there_and_each_has_its_own_letters() -> None:
    dead = Counter(home(event.organization, 4) for event in script().events if event.kind in DEAD)
    evidence = replace(ideal(), partitions=[dead[number] for number in range(4)])
    assert account(script(), evidence).balances
    first, *_ = shown(*partitions(script(), evidence), width=80).splitlines()[3:]
    handled = sum(organization == "org_amber" for organization, _ in evidence.applied)
    assert first.split() == ["0", "org_amber", str(handled), str(dead[0])]
    assert not list(partitions(script(), ideal()))
    moved = [dead[2], dead[1], dead[0], dead[3]]
    found = complaint(drawn_up(partitions=moved), "partition 0: ")
    assert found == f"partition 0: 0 dead letters, expected {dead[0]}"


def test_a_verdict_of_an_unbalanced_account_names_the_events() -> None:
    event = named(Kind.GOOD)
    drawn = drawn_up(applied=without(ideal().applied, name(event)))
    text = shown(account_table(drawn), *verdict(drawn), width=200)
    assert "doesn't balance" in text
    assert event.id in text


def test_a_code_from_outside_is_shown_as_text() -> None:
    first = script().deliveries[0]
    drawn = drawn_up(answers={**ideal().answers, first.number: "\x1b[2J[bold]"})
    text = shown(account_table(drawn), *verdict(drawn), width=200)
    assert "\x1b" not in text
    assert text.count("[bold]") == 3  # a row, the answer, and what the ingress counted
