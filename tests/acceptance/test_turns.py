"""Turns with real workers: how often handlers run, and in which order events are committed."""

import pytest

from tests.bench.turns import Load, in_chaos, inversions, run

pytestmark = pytest.mark.usefixtures("forked")


def test_events_that_read_and_write_one_value_run_twice_at_the_most() -> None:
    ran = run(Load("unkeyed", 150, 1, 0.02, 3))
    assert (ran.unfinished, ran.dead) == (0, 0)
    assert ran.state == {"total": 150}
    assert ran.mean <= 2.3
    assert max(ran.runs.values()) <= 4


def test_conflicts_spend_no_attempts() -> None:
    ran = run(Load("unkeyed", 60, 1, 0.05, 3, {"BACKOFF_BASE": "100ms", "MAX_ATTEMPTS": "2"}))
    assert (ran.unfinished, ran.dead) == (0, 0)
    assert ran.state == {"total": 60}


def test_with_a_key_each_runs_once() -> None:
    ran = run(Load("keyed", 150, 1, 0.02, 3))
    assert ran.state == {"total": 150}
    assert ran.mean <= 1.05


@pytest.mark.parametrize(("handlers", "most"), [("latest", 80), ("gathered", 20)])
def test_of_many_updates_the_newest_runs(handlers: str, most: int) -> None:
    ran = run(Load(handlers, 1000, 10, 0.2, 3))
    assert ran.state == {f"ord_{number}": 990 + number for number in range(10)}
    assert sum(ran.runs.values()) <= most
    assert sum(ran.runs.values()) + ran.counters["superseded"] >= 1000


def test_whoever_is_killed_and_whatever_fails_the_order_of_a_key_is_kept() -> None:
    ran = in_chaos(2000)
    assert (ran.unfinished, ran.dead) == (0, 0)
    assert sum(map(len, ran.state.values())) == 2000
    may_be_late = sum(ran.counters.get(name, 0) for name in ("overtaken", "undecided"))
    assert inversions(ran) <= may_be_late


def test_a_rate_holds_over_all_workers() -> None:
    starts = run(Load("free", 150, 150, 0.005, 4, rate="50/s")).starts
    # By the handlers' own clocks: one that is slow to begin makes those after it look early.
    slow, credit = 0.3, 6
    for number, start in enumerate(starts):
        assert start - starts[0] >= (number - credit) / 50 - slow
