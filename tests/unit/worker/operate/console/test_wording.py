"""Facts about numbers, times and jobs in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.display import clock, duration, moment, size
from worker.operate.console.wording import (
    age,
    from_reference,
    short,
    to_reference,
)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (0.42, "0.4"), (12, "12"), (12.34, "12.3"), (123.4, "123"), (999, "999"),
        (1000, "1k"), (1234, "1.2k"), (45_678, "45.7k"), (456_789, "457k"), (1_234_567, "1.2M"),
    ],
)  # fmt: skip
def test_a_number_is_short(number: float, text: str) -> None:
    assert short(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"), (0.0354, "35 ms"), (1.44, "1.4 s"), (59, "59 s"), (60, "1m"), (250, "4m 10s"),
        (3600, "1h"), (3660, "1h 1m"), (3601, "1h"), (183_600, "2d 3h"),
    ],
)  # fmt: skip
def test_a_duration_is_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_age_is_to_the_second() -> None:
    assert [age(each) for each in (-5, 0.9, 1.4, 61)] == [
        "just now",
        "just now",
        "1 s ago",
        "1m 1s ago",
    ]


def test_a_size_and_a_moment() -> None:
    told = ["12 B", "2.0 KiB", "3.0 MiB", "1.5 GiB"]
    assert [size(each) for each in (12, 2048, 3 << 20, 3 << 29)] == told
    assert clock(0) == "1970-01-01 00:00:00 UTC"
    # Whatever somebody's hand has written, as long as calendars have it.
    assert (clock(9e15), clock(float("-inf"))) == ("9999-12-31 23:59:59 UTC", clock(0))
    assert moment(float("inf")) == "9999-12-31T23:59:59.000+00:00"


@given(st.binary())
def test_a_reference_leads_back_to_its_job(raw: bytes) -> None:
    job = raw.decode(errors="surrogateescape")
    assert from_reference(to_reference(job)) == job


@given(st.text())
def test_any_text_is_taken_as_some_job(text: str) -> None:
    from_reference(text)
    from_reference(f"b64.{text}")


def test_our_own_jobs_stand_for_themselves() -> None:
    job = f"org_123:{'0f' * 16}"
    assert to_reference(job) == job
