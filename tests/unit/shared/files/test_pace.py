"""Work in slices."""

import pytest

from shared.files import pace
from shared.files.pace import REST, WORK, Pace


class Clock:
    """A clock that only work and rest move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rests: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(pace, "sleep", clock.sleep)
    return clock


def test_a_slice_is_followed_by_a_rest(clock: Clock) -> None:
    work = Pace(_since=clock.now)
    for _ in range(10):
        clock.now += WORK / 2
        work.breathe()
    assert clock.rests == [REST] * 5


def test_where_nobody_waits_there_is_none(clock: Clock) -> None:
    work = Pace(rest=0, _since=clock.now)
    clock.now += WORK * 10
    work.breathe()
    assert clock.rests == []
