"""Facts about what is made of measured numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.figures import Figure, percentile, short, spread, summary


def test_a_figure_is_the_median_with_the_lowest_and_the_highest_round() -> None:
    assert Figure.of([3.0, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0)


def test_a_ratio_is_taken_round_by_round() -> None:
    # The second round was slow for both, which says nothing about either.
    assert Figure.ratio([10.0, 2.0, 10.0], [5.0, 1.0, 2.0]) == Figure(2.0, 2.0, 5.0)


def test_a_ratio_of_different_numbers_of_rounds_is_none() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Figure.ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(
    share: float, value: float
) -> None:
    assert percentile(list(range(100, 0, -1)), share) == value


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_at_least_the_share_of_all_is_within_a_percentile(
    values: list[float], share: float
) -> None:
    bound = percentile(values, share)
    assert bound in values
    assert sum(value <= bound for value in values) >= share * len(values)


def test_of_many_times_a_few_percentiles_are_kept() -> None:
    times = [number / 1000 for number in range(1, 101)]
    assert summary(times) == {"p50": 0.05, "p90": 0.09, "p99": 0.099, "most": 0.1}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.012345, "0.0123"),
        (1.2345, "1.23"),
        (9.999, "10.0"),
        (99.99, "100"),
        (123.4, "123"),
        (12345.6, "12,300"),
        (-4.567, "-4.57"),
    ],
)
def test_a_number_is_shown_with_three_digits(value: float, text: str) -> None:
    assert short(value) == text


def test_the_spread_is_left_out_where_there_is_none() -> None:
    assert spread(Figure(1234.0, 1200.0, 1300.0)) == "1,230 (1,200 to 1,300)"
    assert spread(Figure(7.0, 7.0, 7.0)) == "7.00"
