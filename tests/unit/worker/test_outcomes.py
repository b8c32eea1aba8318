"""Facts about what a handler may ask for."""

from datetime import timedelta

import pytest

from worker import Reject, Retry


def test_a_retry_names_seconds_or_a_timedelta() -> None:
    assert Retry(after=2).after == 2
    assert Retry(after=timedelta(minutes=1)).after == 60
    assert Retry().after is None
    assert str(Retry()) == "the handler asked for a retry"


@pytest.mark.parametrize("after", [-1, float("nan")])
def test_a_retry_in_the_past_is_refused(after: float) -> None:
    with pytest.raises(ValueError, match="expected 0 seconds or more"):
        Retry(after=after)


def test_a_reject_says_why() -> None:
    assert Reject("no such order").why == "no such order"
