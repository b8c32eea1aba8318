"""Facts about the rule that says how many workers there should be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.autoscaling import (
    Autoscaler,
    Behaviour,
    Policy,
    Reading,
    Rule,
    read_rule,
)
from deploy.local.scale_demo import SCALED_OBJECT, local_rule

IDLE = Reading(due=0, seconds=0)


def scaled_object() -> dict[str, Any]:
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(Path(SCALED_OBJECT).read_text()))
    (found,) = (each for each in objects if each["kind"] == "ScaledObject")
    return found


RULE = read_rule(scaled_object())


def test_the_rule_is_the_scaled_object_s() -> None:
    assert (
        Rule(
            fewest=2,
            most=20,
            depth=1000,
            oldest=30,
            up=Behaviour(0, (Policy("Percent", 100, 15), Policy("Pods", 4, 15))),
            down=Behaviour(120, (Policy("Percent", 50, 60),)),
        )
        == RULE
    )


def test_another_trigger_or_policy_than_is_followed_here_is_refused() -> None:
    other = scaled_object()
    other["spec"]["triggers"][0]["metadata"]["query"] = "max(something_else)"
    with pytest.raises(ValueError, match="expected the triggers"):
        read_rule(other)
    other = scaled_object()
    del other["spec"]["triggers"][1]["metadata"]["ignoreNullValues"]  # KEDA takes it for 0 then
    with pytest.raises(ValueError, match="expected the triggers"):
        read_rule(other)
    other = scaled_object()
    behavior = other["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    behavior["scaleUp"]["policies"][0]["type"] = "Nodes"
    with pytest.raises(ValueError, match="expected a policy"):
        read_rule(other)


@pytest.mark.parametrize(
    ("due", "seconds", "current", "wanted"),
    [
        (0, 0, 4, 0),
        (1, 1, 4, 1),
        (4_000, 1, 4, 4),
        (4_399, 1, 4, 4),  # within Kubernetes' tolerance of a tenth
        (4_401, 1, 4, 5),
        (9_001, 1, 4, 10),
        (1, 30, 4, 4),
        (1, 60, 4, 8),
        (1, 31.5, 4, 4),
        (9_001, 60, 4, 10),  # the larger wish counts
        (None, None, 4, 4),  # nothing can be read: as it is
        (9_001, None, 4, 10),  # a partition can't be read: more, where the others need it
        (0, None, 4, 4),  # but not fewer
    ],
)
def test_a_reading_asks_for_workers_by_depth_and_by_age(
    due: float | None, seconds: float | None, current: int, wanted: int
) -> None:
    assert RULE.wanted(Reading(due, seconds), current) == wanted


def test_it_adds_four_or_as_many_again_within_fifteen_seconds_up_to_the_most() -> None:
    scaler, flood = Autoscaler(RULE), Reading(100_000, 1)
    assert scaler.decide(flood, 2, now=0) == 6
    assert scaler.decide(flood, 6, now=5) == 6
    assert scaler.decide(flood, 6, now=15) == 12
    assert scaler.decide(flood, 12, now=29) == 12
    assert scaler.decide(flood, 12, now=30) == 20
    assert scaler.decide(flood, 20, now=45) == 20


def test_it_halves_within_a_minute_and_only_after_two_minutes_without_a_wish_for_more() -> None:
    scaler = Autoscaler(RULE)
    assert scaler.decide(Reading(16_000, 1), 16, now=0) == 16
    assert scaler.decide(IDLE, 16, now=60) == 16
    assert scaler.decide(IDLE, 16, now=119) == 16
    assert scaler.decide(IDLE, 16, now=120) == 8
    assert scaler.decide(IDLE, 8, now=179) == 8
    assert scaler.decide(IDLE, 8, now=180) == 4
    assert scaler.decide(IDLE, 4, now=240) == 2
    assert scaler.decide(IDLE, 2, now=300) == 2


def test_a_wish_for_less_is_followed_down_to_the_largest_of_the_window() -> None:
    scaler = Autoscaler(RULE)
    scaler.decide(Reading(16_000, 1), 16, now=0)
    scaler.decide(Reading(12_000, 1), 16, now=50)
    assert scaler.decide(IDLE, 16, now=130) == 12


@given(
    readings=st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 10**6), st.floats(0, 100))),
    begun=st.integers(2, 20),
)
def test_whatever_is_read_there_are_never_fewer_or_more_than_allowed(
    readings: list[tuple[int, float, float]], begun: int
) -> None:
    scaler, current, now = Autoscaler(RULE), begun, 0.0
    for queued, oldest, passed in readings:
        now += passed
        after = scaler.decide(Reading(queued, oldest), current, now)
        assert RULE.fewest <= after <= RULE.most
        if queued >= RULE.most * RULE.depth:
            assert after >= current  # it never takes workers away from a flood
        current = after


@given(factor=st.floats(1, 100), now=st.floats(0, 1000))
def test_a_faster_clock_makes_the_same_decisions(factor: float, now: float) -> None:
    usual, faster = Autoscaler(RULE), Autoscaler(RULE.faster(factor))
    for queued, oldest, at in ((16_000, 1, now), (0, 0, now + 50), (0, 0, now + 130)):
        assert usual.decide(Reading(queued, oldest), 16, at) == faster.decide(
            Reading(queued, oldest / factor), 16, at / factor
        )


def test_the_local_rule_is_the_same_for_smaller_workers_and_a_faster_clock() -> None:
    local = local_rule(8.0, 12)
    assert (local.fewest, local.most) == (2, 12)
    assert local.depth == 40  # ten for each slot, as there
    assert local.oldest == 3.75
    assert local.down == Behaviour(15, (Policy("Percent", 50, 7.5),))
    assert replace(local, most=20) == RULE.faster(8).for_workers(0.04)
