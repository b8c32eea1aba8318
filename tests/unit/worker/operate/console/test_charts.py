"""Facts about the console's charts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.display import duration
from worker.operate.console.charts import nice_top, overview_charts
from worker.operate.console.wording import short
from worker.operate.history import History
from worker.operate.overview import Overview
from worker.operate.workers import WorkerOverview


def overview(at: float, **changes: Any) -> Overview:
    depths = {"waiting": 0, "ready": 0, "running": 0, "deferred": 0, "parked": 0, "dead": 0}
    return Overview(
        at=at,
        oldest_seconds=None,
        counters={"accepted": round(at) * 10},
        dead_by_reason={},
        organizations=[],
        **{"workers": [], **depths, **changes},
    )


@given(st.floats(0, 1e12))
def test_a_scale_has_room_for_the_greatest_value_and_little_more(greatest: float) -> None:
    top = nice_top(greatest)
    assert top >= greatest
    assert top <= max(1.0, greatest * 2.6)


def test_before_anything_is_known_charts_are_empty() -> None:
    for chart in overview_charts(History(), 300):
        assert chart.hints == []
        assert all(series.paths == [] for series in chart.series)


def test_charts_show_the_rate_and_where_events_are() -> None:
    history = History()
    for second in range(0, 300, 2):
        history.add(overview(1000 + second, ready=40, parked=60))
    rates, latencies, depths = overview_charts(history, 300)
    assert rates.series[0].now == "10"
    assert len(rates.series[0].paths) == 1
    assert latencies.series[0].paths == []
    assert depths.top == "100"
    assert depths.middle == "50"
    assert [series.now for series in depths.series] == ["0", "40", "60", "0", "0"]
    assert "parked 60" in depths.summary
    assert len(depths.hints) == 75
    assert "ready 40, parked 60" in depths.hints[3].text


@pytest.mark.parametrize("seconds", [300, 3600])
def test_a_legend_says_what_is_said_elsewhere_of_now(seconds: float) -> None:
    """A column of an hour's chart is of most of a minute."""
    history = History()
    for second in range(0, 3600, 2):
        slow = {"60": 1} if second < 3575 else {"60": 1, "0.05": 10}
        worker = WorkerOverview("w", started=1000, latency=slow)
        history.add(overview(1000 + second, ready=second, workers=[worker]))
    rates, latencies, depths = overview_charts(history, seconds)
    assert rates.series[0].now == short(history.rate("accepted") or 0)
    assert latencies.series[1].now == duration(history.quantile(0.99) or 0)
    assert depths.series[1].now == short(3598)


def test_a_gap_is_no_line() -> None:
    history = History()
    for second in (*range(0, 60, 2), *range(200, 300, 2)):
        history.add(overview(1000 + second, ready=1))
    _, _, depths = overview_charts(history, 300)
    assert [len(series.paths) for series in depths.series] == [2, 2, 2, 2, 2]


@pytest.mark.parametrize("seconds", [300, 3600])
def test_an_hour_of_looks_is_drawn_quickly_enough_to_be_refreshed(seconds: float) -> None:
    history = History()
    for second in range(0, 3600, 2):
        history.add(overview(1000 + second, ready=second))
    assert len(overview_charts(history, seconds)) == 3
