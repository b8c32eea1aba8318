"""Facts about who is set against whom."""

import pytest

from tests.bench.drain import Runs, _figures
from tests.bench.draining import Drained


def rounds(*rates: float) -> list[Drained]:
    return [Drained(rate, 0.0, 0.0, rate) for rate in rates]


def test_each_is_set_against_the_other_at_its_best_concurrency() -> None:
    runs: Runs = {
        ("ours", 1): rounds(10.0, 10.0),
        ("ours, 500 slots", 1): rounds(30.0, 12.0),
        ("ours, 1,000 slots", 1): rounds(11.0, 11.0),
        ("BullMQ 6.7 (Node)", 1): rounds(8.0, 8.0),
        ("BullMQ, 1,000 at once", 1): rounds(15.0, 10.0),
    }
    figure = _figures(runs)["over BullMQ"]
    assert figure.low == pytest.approx(1.2)
    assert figure.high == pytest.approx(2.0)


def test_what_was_not_run_is_no_figure() -> None:
    assert "over BullMQ" not in _figures({("ours", 1): rounds(10.0)})
