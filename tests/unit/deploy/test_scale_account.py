"""Facts about the account of the scale demo: whatever doesn't agree is told."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from deploy.local.scale_account import Evidence, Name, complaints

A, B, C = (("org_a", f"evt_{letter}") for letter in "abc")
GOOD = Evidence(
    sent=3,
    accepted=frozenset({A, B, C}),
    applied={A: 1, B: 1, C: 1},
    counters={"handled": 3, "released": 1},
    waiting=0,
)


def test_each_accepted_event_handled_once_is_no_complaint() -> None:
    assert list(complaints(GOOD)) == []


@pytest.mark.parametrize(
    ("evidence", "complaint"),
    [
        (replace(GOOD, sent=4), "1 of 4 weren't accepted"),
        (replace(GOOD, counters={"handled": 2}), "accepted 3, but handled 2"),
        (replace(GOOD, counters={}), "accepted 3, but handled 0"),
        (replace(GOOD, waiting=1), "1 wait still"),
        (replace(GOOD, applied={A: 1, B: 1}), "accepted, but never applied: evt_c of org_a"),
        (
            replace(GOOD, applied={**GOOD.applied, ("org_b", "evt_a"): 1}),
            "applied, but never accepted: evt_a of org_b",
        ),
        (replace(GOOD, applied={A: 1, B: 2, C: 1}), "1 applied 2 times"),
    ],
)
def test_what_does_not_agree_is_told(evidence: Evidence, complaint: str) -> None:
    assert list(complaints(evidence)) == [complaint]


def test_of_many_lost_events_a_few_are_named() -> None:
    many: Mapping[Name, int] = {("org_a", f"evt_{n}"): 1 for n in range(1000)}
    evidence = Evidence(1000, frozenset(many), {}, {"handled": 1000}, 0)
    (told,) = complaints(evidence)
    assert told.endswith("evt_101 of org_a and 995 more")
