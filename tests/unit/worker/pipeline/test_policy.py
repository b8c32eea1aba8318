"""Facts about the delay between attempts."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.pipeline.policy import Backoff


@pytest.mark.parametrize(
    ("attempt", "bound"),
    [(1, 1), (2, 2), (3, 4), (4, 8), (11, 1024), (12, 2048), (13, 3600), (5000, 3600)],
)
def test_the_bound_doubles_up_to_the_cap(attempt: int, bound: float) -> None:
    assert Backoff(base=1, cap=3600).bound(attempt) == bound


@given(attempt=st.integers(1, 10_000), drawn=st.floats(0, 1))
def test_the_delay_is_the_drawn_share_of_the_bound(attempt: int, drawn: float) -> None:
    backoff = Backoff(base=0.5, cap=60)
    delay = backoff.delay(attempt, lambda: drawn)
    assert delay == drawn * backoff.bound(attempt)
    assert 0 <= delay <= 60


def test_full_jitter_reaches_from_nothing_to_the_bound() -> None:
    source = random.Random(1)
    delays = [Backoff(base=1, cap=3600).delay(5, source.random) for _ in range(1000)]
    assert min(delays) < 0.1
    assert max(delays) > 15.9


def test_the_horizon_is_the_sum_of_the_longest_delays_between_the_attempts() -> None:
    assert Backoff(base=1, cap=4).horizon(5) == 1 + 2 + 4 + 4
    assert Backoff(base=1, cap=4).horizon(1) == 0
