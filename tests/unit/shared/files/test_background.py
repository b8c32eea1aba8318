"""Work in slices, and in a thread that nobody waits for."""

import asyncio
import threading

import pytest

from shared.files import background
from shared.files.background import REST, WORK, Pace, in_daemon_thread


async def test_what_the_function_gives_or_raises_is_given_or_raised() -> None:
    assert await in_daemon_thread(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await in_daemon_thread(lambda: 1 // 0)


def test_the_loop_ends_though_the_function_does_not() -> None:
    go, gone = threading.Event(), threading.Event()

    def hang() -> None:
        assert threading.current_thread().daemon  # nor does the process wait for it
        go.wait(30)
        gone.set()

    async def leave() -> None:
        task = asyncio.create_task(in_daemon_thread(hang))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    assert not gone.is_set()
    go.set()
    assert gone.wait(30)  # and it ends without a complaint, though the loop is away


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
    monkeypatch.setattr(background, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(background, "sleep", clock.sleep)
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
