"""Facts about events that happen by themselves."""

import asyncio

from deploy.sellfern.server import keep_happening

_PATIENCE = 10.0


class Happenings:
    """Counts; tells once there are enough."""

    def __init__(self, enough: int, *, wanted: bool = True) -> None:
        self.times: list[float] = []
        self.asked = 0
        self.wanted = wanted
        self.enough = enough
        self.reached = asyncio.Event()

    async def __call__(self) -> bool:
        self.asked += 1
        if self.wanted:
            self.times.append(asyncio.get_running_loop().time())
        if self.asked >= self.enough:
            self.reached.set()
        return self.wanted


async def run(happenings: Happenings, rate: list[float]) -> None:
    """Let them happen, at a rate that may be changed, until there are enough."""
    task = asyncio.create_task(keep_happening(lambda: rate[0], happenings))
    try:
        async with asyncio.timeout(_PATIENCE):
            await happenings.reached.wait()
    finally:
        task.cancel()


async def test_no_more_events_happen_than_the_rate_says() -> None:
    happenings = Happenings(11)
    await run(happenings, [100.0])
    assert happenings.times[-1] - happenings.times[0] >= 0.099


async def test_a_rate_of_nothing_is_a_pause_until_it_is_turned_up() -> None:
    happenings, rate = Happenings(3), [0.0]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run(happenings, rate))
        await asyncio.sleep(0.06)
        assert happenings.asked == 0
        rate[0] = 1000.0
        await running
    assert len(happenings.times) == 3


async def test_a_rate_that_cannot_be_kept_lets_others_work() -> None:
    happenings = Happenings(1000)
    await run(happenings, [1e9])
    assert len(happenings.times) >= 1000


async def test_nobody_is_asked_in_haste_when_nobody_wants_anything() -> None:
    happenings = Happenings(2, wanted=False)
    started = asyncio.get_running_loop().time()
    await run(happenings, [1e9])
    assert asyncio.get_running_loop().time() - started >= 0.05
    assert happenings.times == []
