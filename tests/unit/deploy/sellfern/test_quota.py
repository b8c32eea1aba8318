"""Facts about how often an API key may ask."""

import pytest

from deploy.sellfern.answer import Refused
from deploy.sellfern.quota import Quota
from tests.unit.deploy.sellfern.hand_clock import HandClock


def test_one_request_too_many_is_told_when_to_come_again() -> None:
    clock = HandClock()
    quota = Quota(2, clock)
    quota.take("k")
    quota.take("k")
    with pytest.raises(Refused) as refused:
        quota.take("k")
    assert (refused.value.status, refused.value.code) == (429, "rate_limited")
    assert refused.value.headers == {"Retry-After": "1"}
    quota.take("another key")


def test_who_comes_again_in_time_is_let_in() -> None:
    clock = HandClock()
    quota = Quota(1, clock)
    quota.take("k")
    clock.now += 0.999
    with pytest.raises(Refused):
        quota.take("k")
    clock.now += 0.001
    quota.take("k")


def test_without_a_limit_nobody_is_refused() -> None:
    quota = Quota(None, HandClock())
    for _ in range(1000):
        quota.take("k")
