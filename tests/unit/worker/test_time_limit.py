"""Facts about how long a handler may take."""

import asyncio

import pytest

from worker.time_limit import TimeLimit, TimeLimits


class Timers:
    """Counts the loop's timers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        loop = asyncio.get_running_loop()
        real = loop.call_at

        def call_at(*args: object, **kwargs: object) -> object:
            self.made += 1
            return real(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "call_at", call_at)


async def hang(limits: TimeLimits, ended: list[str], name: str) -> bool:
    limit = TimeLimit(limits)
    try:
        with limit:
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        ended.append(name)
        if limit.is_cancelled_from_outside:
            raise
    return limit.is_over


async def test_what_takes_too_long_is_cancelled_in_the_order_of_its_start() -> None:
    limits, ended = TimeLimits(0.02), list[str]()
    tasks = [asyncio.create_task(hang(limits, ended, name)) for name in "abc"]
    async with asyncio.timeout(5):
        assert await asyncio.gather(*tasks) == [True] * 3
    assert ended == ["a", "b", "c"]
    assert [task.cancelling() for task in tasks] == [0, 0, 0]


async def test_what_begins_later_is_over_later() -> None:
    limits, ended, loop = TimeLimits(0.1), list[str](), asyncio.get_running_loop()
    first = asyncio.create_task(hang(limits, ended, "a"))
    await asyncio.sleep(0.05)
    began = loop.time()
    async with asyncio.timeout(5):
        assert await hang(limits, ended, "b")
        assert loop.time() - began >= 0.1
        assert await first
    assert ended == ["a", "b"]


async def test_one_timer_does_for_all_that_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, limits = Timers(monkeypatch), TimeLimits(60)
    for _ in range(100):
        with TimeLimit(limits) as limit:
            await asyncio.sleep(0)
        assert not limit.is_over
    assert timers.made == 1


async def test_a_timer_that_finds_nothing_leaves_the_next_one_to_the_next_block() -> None:
    limits, ended = TimeLimits(0.01), list[str]()
    with TimeLimit(limits):
        pass
    while limits._is_set:
        await asyncio.sleep(0.002)
    async with asyncio.timeout(5):
        assert await hang(limits, ended, "a")


async def test_a_cancellation_from_outside_is_told_apart() -> None:
    limits, ended = TimeLimits(60), list[str]()
    task = asyncio.create_task(hang(limits, ended, "a"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["a"]
