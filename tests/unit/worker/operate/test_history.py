"""Facts about what is kept of the system's last hour."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.operate.history import (
    KEPT_SECONDS,
    History,
    columns,
    latency_quantile,
    mean_depth,
    mean_rate,
    quantile,
)
from worker.operate.overview import Overview
from worker.operate.workers import WorkerOverview

BEGAN = {"w1": 10.0, "w2": 115.0}


def overview(
    at: float, *, handled: int = 0, ready: int = 0, latency: dict[str, dict[str, int]] | None = None
) -> Overview:
    workers = [
        WorkerOverview(name, "h", 1, "1", 10, 0, 0, BEGAN[name], counts, 10)
        for name, counts in (latency or {}).items()
    ]
    return Overview(at, ready, ready, 0, 0, 0, 0, None, {"handled": handled}, {}, [], workers)


def test_a_rate_is_what_was_counted_between_two_looks() -> None:
    history = History()
    history.add(overview(100, handled=1000))
    assert history.rate("handled") is None
    history.add(overview(102, handled=1010))
    assert history.rate("handled") == 5
    assert history.rate("accepted") == 0


def test_a_counter_that_was_reset_gives_no_negative_rate() -> None:
    history = History()
    history.add(overview(100, handled=1000))
    history.add(overview(102, handled=0))
    assert history.rate("handled") == 0


def test_a_look_that_comes_late_is_left_out() -> None:
    history = History()
    history.add(overview(100))
    history.add(overview(100, ready=7))
    assert len(history.samples) == 1
    assert history.latest is not None
    assert history.latest.ready == 0


def test_a_clock_that_was_set_back_hides_nothing_of_what_is_new() -> None:
    history = History()
    for at, handled in ((1000, 0), (1002, 20), (1500, 40), (1001, 50), (1003, 60)):
        history.add(overview(at, handled=handled, ready=handled))
    assert history.latest is not None
    assert history.latest.ready == 60
    assert [each.at for each in history.samples] == [1000, 1001, 1003]
    assert history.rate("handled", 2) == 5


def test_nothing_older_than_an_hour_is_kept() -> None:
    history = History()
    for minute in range(200):
        history.add(overview(1000 + minute * 60))
    assert len(history.samples) == KEPT_SECONDS / 60 + 1


def test_latency_is_what_workers_have_handled_since_the_console_knows_them() -> None:
    history = History()
    history.add(overview(100, latency={"w1": {"0.1": 50, "1.0": 50}}))
    assert history.quantile(0.5) is None
    history.add(overview(110, latency={"w1": {"0.1": 60, "1.0": 50}}))
    assert history.quantile(0.5) == pytest.approx(0.05)
    history.add(overview(120, latency={"w1": {"0.1": 60, "1.0": 50}, "w2": {"1.0": 30}}))
    assert history.quantile(0.99) == pytest.approx(0.987, abs=0.01)


def test_a_worker_that_comes_back_tells_no_old_news() -> None:
    history = History()
    slow = {"w1": {"0.1": 50, "3600.0": 50}}
    history.add(overview(100, latency=slow))
    for at in range(102, 400, 2):
        history.add(overview(at))
    history.add(overview(400, latency={"w1": {"0.1": 60, "3600.0": 50}}))
    assert history.quantile(0.99) == pytest.approx(0.099)
    late = History()
    for at in (100, 102):
        late.add(overview(at))
    late.add(overview(104, latency=slow))
    assert late.quantile(0.99) is None
    late.add(overview(106, latency={"w1": {"0.1": 60, "3600.0": 50}}))
    assert late.quantile(0.99) == pytest.approx(0.099)


def test_a_worker_that_is_gone_for_long_is_forgotten() -> None:
    history = History()
    for at in (100, 102, 102 + KEPT_SECONDS):
        history.add(overview(at, latency={"w1": {"0.1": 1}} if at < 103 else None))
    assert history._told.keys() == {"w1"}
    history.add(overview(104 + KEPT_SECONDS))
    assert history._told == {}


def test_a_worker_that_is_gone_takes_nothing_back() -> None:
    history = History()
    history.add(overview(100, latency={"w1": {"0.1": 50}}))
    history.add(overview(102))
    assert history.samples[-1].latency == {}


@pytest.mark.parametrize(
    ("counts", "q", "value"),
    [
        ({}, 0.5, None),
        ({1.0: 0}, 0.5, None),
        ({1.0: 10}, 0.5, 0.5),
        ({1.0: 1, 2.0: 1}, 1.0, 2.0),
        ({1.0: 0, 2.0: 4}, 0.5, 1.5),
        ({1.0: 1, float("inf"): 9}, 0.99, 1.0),
    ],
)
def test_a_quantile_lies_within_the_bounds_of_what_was_counted(
    counts: dict[float, int], q: float, value: float | None
) -> None:
    assert quantile(counts, q) == value


@given(st.dictionaries(st.floats(0.001, 1000), st.integers(0, 100)))
def test_a_greater_share_is_never_quicker(counts: dict[float, int]) -> None:
    values = [quantile(counts, share / 10) for share in range(1, 11)]
    known = [value for value in values if value is not None]
    assert known == sorted(known)


def test_columns_show_each_look_once_and_gaps_as_gaps() -> None:
    history = History()
    for at, ready in ((100, 1), (101, 3), (110, 8)):
        history.add(overview(at, ready=ready, handled=at))
    samples = list(history.samples)
    shown = columns(samples, 5, 11, mean_depth("ready"))
    assert shown == [2, None, None, None, 8]
    assert columns(samples, 5, 11, mean_rate("handled")) == [1, None, None, None, 1]


def test_a_percentile_looks_back_past_its_column() -> None:
    history = History()
    history.add(overview(100, latency={"w1": {"1.0": 0}}))
    history.add(overview(102, latency={"w1": {"1.0": 10}}))
    for at in range(104, 160, 2):
        history.add(overview(at, latency={"w1": {"1.0": 10}}))
    shown = columns(list(history.samples), 6, 60, latency_quantile(0.5), looks_back=True)
    assert shown == [0.5, 0.5, 0.5, None, None, None]


def test_rates_are_of_each_partition_since_it_was_seen_last() -> None:
    history = History()

    def look(at: float, **handled: int) -> None:
        parts = {
            int(name.removeprefix("of_")): overview(at, handled=number)
            for name, number in handled.items()
        }
        history.add(overview(at, handled=sum(handled.values())), parts)

    look(100, of_0=1000, of_1=5000)
    look(102, of_0=1010, of_1=5020)
    assert history.rate("handled", 1) == 15
    look(104, of_0=1020)  # the other one is away, which is no standstill of this one
    assert history.rate("handled", 1) == 5
    look(112, of_0=1060, of_1=5120)  # and its return is no leap
    assert history.rate("handled", 1) == 5 + 10
