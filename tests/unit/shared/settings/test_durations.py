"""Durations as an operator writes them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.settings.durations import EXPECTED, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("30", 30.0),
        ("0.25", 0.25),
        ("00", 0.0),
        ("0s", 0.0),
        ("1ms", 0.001),
        ("200ms", 0.2),
        ("30s", 30.0),
        ("1.5s", 1.5),
        ("0.000001s", 0.000001),
        ("5m", 300.0),
        ("2h", 7_200.0),
        ("7d", 604_800.0),
        ("0.5d", 43_200.0),
        ("007s", 7.0),
    ],
)
def test_a_number_is_seconds_unless_it_names_another_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-1s",
        "+1s",
        "1 s",
        " 1s",
        "1s ",
        "1s\n",
        "1S",
        "1M",
        "1w",
        "1m30s",
        "1.s",
        ".5s",
        "1,5s",
        "1e3s",
        "1_000s",
        "\u0661s",  # a digit, but an Arabic one
        "infs",
        "nans",
        "0.0000001s",
        "1234567890123s",
    ],
)
def test_anything_else_is_told_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the text is compared below
        parse_duration(text)
    assert str(caught.value) == EXPECTED


@given(st.text(max_size=10))
def test_any_text_is_a_finite_duration_or_a_value_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert math.isfinite(seconds)
    assert seconds >= 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (0.0004, "0"),
        (0.001, "1ms"),
        (0.1 + 0.2, "300ms"),
        (0.9996, "1s"),
        (1.5, "1500ms"),
        (59, "59s"),
        (60, "1m"),
        (90, "90s"),
        (3_600, "1h"),
        (5_400, "90m"),
        (86_400, "1d"),
        (90_000, "25h"),
        (604_800, "7d"),
    ],
)
def test_seconds_are_written_in_the_largest_unit_without_a_fraction(
    seconds: float, text: str
) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [-0.001, -1, math.inf, -math.inf, math.nan])
def test_what_is_no_duration_is_not_written(seconds: float) -> None:
    with pytest.raises(ValueError, match="a duration is finite and not negative"):
        format_duration(seconds)


@given(st.integers(0, 10**12))  # thirty years
def test_what_was_written_reads_back_to_the_millisecond(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds
