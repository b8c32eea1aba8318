"""Facts about how dead letters are given another life: their pace, and when it stops."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from tests.bench.distance import distant
from tests.integration.jobs import NOTHING, account, counters, reach
from tests.integration.workplace import Workplace, body, working
from worker import Event, Handlers, Organization, Reject
from worker.engine.worker import Worker
from worker.operate import organizations
from worker.operate.dead_letters import DeadLetter, select
from worker.operate.dead_lists import Filter, count
from worker.operate.revival import FAILURES_IN_A_ROW, Pace, Progress, Replay, discard_all


class Ward:
    """A worker whose handler does as it is told, and what it has been given."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.calls: Counter[str] = Counter()
        self.rejects: Callable[[str], bool] = lambda _: True
        handlers = Handlers()

        @handlers.on("*")
        async def act(event: Event[Any], organization: Organization) -> Reject | None:
            self.calls[event.id] += 1
            if self.rejects(event.id):
                return Reject("as told")
            await organization.state.increment("handled")
            return None

        self.place = Workplace(redis, handlers)

    async def bury(self, number: int, organization: str = "org_a") -> None:
        """Let so many events die."""
        signed = [body(f"{organization}_{n:04}", organization) for n in range(number)]
        await self.place.accept(*signed, organization=organization)
        for _ in range(number):
            await self.place.handle_next()
        self.calls.clear()

    def dead(self) -> AsyncIterator[DeadLetter]:
        """All that are dead, those too that die while somebody looks."""
        return select(reach(self.redis), Filter())

    async def replay(self, rate: float = 1000, progress: Progress | None = None) -> Progress:
        """Replay all that are dead now."""
        replaying = Replay(reach(self.redis), rate, progress=progress or Progress())
        return await replaying.run(self.dead())

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        """Let the worker run as long as the block."""
        worker = self.place.worker()
        async with working(worker):
            yield worker

    async def settled(self) -> None:
        """Wait until nothing waits or runs."""
        async with asyncio.timeout(20):
            while await self.redis.zcard(keys.ACCEPTED):
                await asyncio.sleep(0.005)


@pytest.fixture
def ward(redis: Redis) -> Ward:
    return Ward(redis)


async def test_replays_are_no_faster_than_the_rate(ward: Ward) -> None:
    await ward.bury(200)
    seen: list[int] = []
    began = monotonic()
    replaying = Replay(reach(ward.redis), 400, told=seen.append)
    done = await replaying.run(ward.dead())
    assert monotonic() - began > 199 / 400
    assert done.queued == 200
    assert seen == list(range(1, 201))
    assert (await counters(ward.redis))["replayed"] == 200


@given(
    rate=st.floats(0.1, 50),
    pauses=st.lists(st.floats(0, 3), min_size=1, max_size=30),
)
def test_in_no_second_go_more_than_the_rate_and_what_a_second_had_to_make_up_for(
    rate: float, pauses: list[float]
) -> None:
    now, went = 50.0, list[float]()
    pace = Pace(rate, due=now)
    for pause in pauses:
        now += pause
        while pace.early(now) <= 0:
            went.append(now)
            pace.went()
    for moment in set(went):
        assert sum(moment <= each < moment + 1 for each in went) <= 2 * rate + 2


async def test_it_stops_by_itself_when_ten_in_a_row_have_died_again(ward: Ward) -> None:
    await ward.bury(300)
    async with ward.working():
        done = await ward.replay(rate=200)
        await ward.settled()
    assert done.stopped
    assert FAILURES_IN_A_ROW <= done.died_again <= done.queued < 300
    assert await count(Partition.only(ward.redis)) == {"org_a": 300}
    assert len(ward.calls) == done.queued


async def test_it_goes_on_while_some_work_and_tries_none_twice(ward: Ward) -> None:
    await ward.bury(60)
    ward.rejects = lambda event_id: event_id.endswith(("1", "2", "3"))
    async with ward.working():
        done = await ward.replay(rate=100)
        await ward.settled()
    assert (done.stopped, done.queued) == (False, 60)
    assert set(ward.calls.values()) == {1}
    assert await count(Partition.only(ward.redis)) == {"org_a": 18}


async def test_replays_that_wait_do_not_hide_those_that_die(ward: Ward) -> None:
    await ward.bury(5, "org_a")
    await ward.bury(300, "org_b")
    await organizations.pause(Partition.only(ward.redis), "org_a", "a test")
    async with ward.working():
        done = await ward.replay(rate=200)
    assert done.stopped
    assert done.queued < 305
    assert (await account(ward.redis)).waiting["org_a"] == 5


async def test_a_replay_that_is_interrupted_loses_nothing_and_the_next_one_goes_on(
    ward: Ward,
) -> None:
    await ward.bury(200)
    ward.rejects = lambda _: False
    progress = Progress()
    async with ward.working():
        interrupted = asyncio.create_task(ward.replay(rate=400, progress=progress))
        while progress.queued < 50:
            await asyncio.sleep(0.002)
        interrupted.cancel()
        await asyncio.gather(interrupted, return_exceptions=True)
        assert 50 <= progress.queued < 200
        rest = await ward.replay(rate=10_000)
        await ward.settled()
    assert progress.queued + rest.queued == 200  # what was on its way is counted
    assert set(ward.calls.values()) == {1}
    assert len(ward.calls) == 200
    assert await count(Partition.only(ward.redis)) == {}
    assert await account(ward.redis) == NOTHING


@asynccontextmanager
async def far_from(redis: Redis, milliseconds: float, folder: Path) -> AsyncIterator[Redis]:
    """The same Redis, so long a round trip away."""
    port = redis.connection_pool.connection_kwargs["port"]
    with distant(port, milliseconds, folder) as url:
        async with Redis.from_url(url) as there:
            yield there


async def test_far_from_redis_many_go_in_one_round_trip(ward: Ward, tmp_path: Path) -> None:
    await ward.bury(400)
    async with far_from(ward.redis, 50, tmp_path) as there:
        began = monotonic()
        done = await Replay(reach(there), 10_000).run(select(reach(there), Filter()))
        assert monotonic() - began < 400 * 0.05 / 4
    assert done.queued == 400


async def test_what_is_on_its_way_when_somebody_interrupts_is_counted(
    ward: Ward, tmp_path: Path
) -> None:
    await ward.bury(100)
    progress = Progress()
    async with far_from(ward.redis, 400, tmp_path) as there:
        replaying = Replay(reach(there), 10_000, progress=progress)
        task = asyncio.create_task(replaying.run(select(reach(there), Filter())))
        while not (await counters(ward.redis)).get("replayed"):
            await asyncio.sleep(0.002)
        assert progress.queued == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert progress.queued == (await counters(ward.redis))["replayed"] < 100


async def test_a_redis_that_has_forgotten_its_scripts_replays_all_the_same(ward: Ward) -> None:
    await ward.bury(100)
    await ward.redis.script_flush()
    done = await ward.replay(10_000)
    assert (done.queued, done.seen) == (100, 100)


async def test_at_a_slow_rate_the_first_one_goes_at_once(ward: Ward) -> None:
    await ward.bury(3)
    progress = Progress()
    task = asyncio.create_task(ward.replay(rate=0.1, progress=progress))
    while not progress.queued:
        await asyncio.sleep(0.002)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await counters(ward.redis))["replayed"] == progress.queued == 1


async def test_far_from_redis_many_are_discarded_in_one_round_trip(
    ward: Ward, tmp_path: Path
) -> None:
    await ward.bury(400)
    gone: list[None] = []
    async with far_from(ward.redis, 50, tmp_path) as there:
        began = monotonic()
        letters = select(reach(there), Filter())
        await discard_all(reach(there), letters, retention=60, told=lambda: gone.append(None))
        assert monotonic() - began < 400 * 0.05 / 4
    assert len(gone) == 400
    assert await count(Partition.only(ward.redis)) == {}


async def test_one_that_is_gone_meanwhile_is_told(ward: Ward) -> None:
    await ward.bury(2)
    letters = [letter async for letter in ward.dead()]
    await ward.redis.flushall()

    async def listed_before() -> AsyncIterator[DeadLetter]:
        for letter in letters:
            yield letter

    done = await Replay(reach(ward.redis), 1000).run(listed_before())
    assert (done.absent, done.queued, done.seen) == (2, 0, 2)
