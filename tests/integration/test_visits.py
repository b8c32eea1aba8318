"""Facts about one worker in two partitions: its suspects, its slots, and what comes too late."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.keys import Names
from shared.queue.partition import TAGS, Partition
from shared.queue.partitions import Partitions
from tests.integration.workplace import POLICY, Workplace, body, working
from worker import Event, Handlers, Organization
from worker.engine.process import Exit
from worker.engine.together import SharedClaims
from worker.engine.visit import Visited
from worker.engine.worker import Worker
from worker.operate import upkeep
from worker.pipeline.policy import Policy
from worker.pipeline.transitions import Claimed

SUSPECT, BLOCK = "evt_suspect", "evt_block"


class Floor:
    """Two partitions of a Redis with one worker, and handlers that note who runs beside whom.

    Attributes:
        seconds: that an event takes, by its id; else no time.
        begun: how often each event was, in the order in which they first were.
        most: how many have run at once.
        beside: those that ran while the suspect did.
    """

    def __init__(self, redis: Redis, policy: Policy = POLICY) -> None:
        self.redis = redis
        self.seconds: dict[str, float] = {}
        self.begun: Counter[str] = Counter()
        self.most = 0
        self.beside: set[str] = set()
        self.recorded: list[bytes | None] = []
        self._running: set[str] = set()
        handlers = Handlers()

        @handlers.on("order.updated")
        async def act(event: Event[Any], _: Organization) -> None:
            self.begun[event.id] += 1
            self._running.add(event.id)
            self.most = max(self.most, len(self._running))
            if SUSPECT in self._running:
                self.beside |= self._running - {SUSPECT}
                # What would count, should the worker end now.
                self.recorded.append(await redis.hget(self.suspects, self.job))
            if event.id == BLOCK:
                time.sleep(2)  # noqa: ASYNC251  that is the misdeed
            await asyncio.sleep(self.seconds.get(event.id, 0))
            self._running.discard(event.id)

        self.places = [Workplace(redis, handlers, policy, Names(tag)) for tag in TAGS[:2]]
        for number, place in enumerate(self.places):
            place.partition = Partition.at(number, redis)
        first, second = self.places
        second.pipeline = first.pipeline.within(second.batcher, second.partition.names.job_prefix)
        self.suspects, self.job = second.partition.names.suspects, ""

    async def accept(self, number: int, place: int, seconds: float = 0.0) -> None:
        """Accept events of an organization of a partition."""
        ids = [f"evt_{place}_{each}" for each in range(number)]
        self.seconds |= dict.fromkeys(ids, seconds)
        name = f"org_{place}"
        signed = (body(each, name) for each in ids)
        await self.places[place].accept(*signed, organization=name)

    async def accept_suspect(self, seconds: float) -> None:
        """Accept one in the second partition, whose workers have gone away twice."""
        self.seconds[SUSPECT] = seconds
        place = self.places[1]
        (self.job,) = await place.accept(body(SUSPECT, "org_s"), organization="org_s")
        for _ in range(2):
            assert await place.transitions.adopt(self.job, lease=30)
            await self.redis.zadd(place.partition.names.queue, {self.job: keys.DEFERRED_FROM})
            await place.transitions.claim("w", most=0, lease=30, holding=0)

    def worker(self, *, lease: float = 30, slots: int = 10, **options: Any) -> Worker:
        first, second = self.places

        @asynccontextmanager
        async def opened() -> AsyncIterator[Partitions]:
            async with first.open_redis() as redis:
                yield Partitions(tuple(Partition.at(number, redis) for number in range(2)))

        context = second.context(lease)
        there = {**second.options(context, slots), **options.pop("there", {})}
        others = [Visited(context, second.partition, there)]
        return first.worker(slots=slots, lease=lease, opened=opened, others=others, **options)

    async def are_done(self) -> bool:
        """Whether nothing is left in either."""
        left = [await self.redis.zcard(place.partition.names.accepted) for place in self.places]
        return not any(left)

    async def drained(self) -> None:
        async with asyncio.timeout(20):
            while not await self.are_done():
                await asyncio.sleep(0.002)

    async def counted(self, place: int, name: str) -> int:
        raw = await self.redis.hget(self.places[place].partition.names.counters, name)
        return int(raw or 0)


@pytest.fixture
def floor(redis: Redis) -> Floor:
    return Floor(redis)


@pytest.mark.parametrize("number", [0, 300])
async def test_a_suspect_of_one_partition_runs_alone_in_the_worker(
    floor: Floor, number: int
) -> None:
    """And doesn't wait for the others to have nothing left: they are kept from taking more."""
    await floor.accept(300, 0, 0.005)
    await floor.accept(number, 1, 0.005)
    await floor.accept_suspect(0.3)
    async with working(floor.worker()):
        await floor.drained()
    assert floor.begun == Counter(dict.fromkeys(floor.seconds, 1))
    assert floor.beside == set()
    assert list(floor.begun).index(SUSPECT) < 200


async def test_a_suspect_has_neighbours_from_elsewhere_only_once_its_partition_knows(
    floor: Floor,
) -> None:
    """Else it would be found guilty of what a neighbour in another partition has done."""
    await floor.accept_suspect(2)
    async with working(floor.worker(lease=1)):
        async with asyncio.timeout(10):
            while not floor.begun[SUSPECT]:
                await asyncio.sleep(0.002)
        await floor.accept(20, 0)
        await floor.drained()
    assert floor.beside
    alone, *beside = floor.recorded
    assert alone is not None
    assert alone.endswith(b":1")
    assert beside
    assert not any(each is not None and each.endswith(b":1") for each in beside)


async def test_what_comes_too_late_is_given_back_where_others_have_its_slots(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, held = asyncio.Event(), asyncio.Event()
    claim = floor.places[1].transitions.claim

    async def claim_late(*arguments: Any, **options: Any) -> Claimed:
        claimed = await claim(*arguments, **options)
        if claimed.jobs and not held.is_set():
            held.set()
            await go.wait()
        return claimed

    monkeypatch.setattr(floor.places[1].transitions, "claim", claim_late)
    await floor.accept(30, 1)
    async with working(floor.worker()):
        await asyncio.wait_for(held.wait(), 10)
        await floor.accept(10, 0, 0.5)
        async with asyncio.timeout(10):
            while sum(floor.begun.values()) < 8:  # its cap, though eight are on their way
                await asyncio.sleep(0.002)
        go.set()
        await floor.drained()
    assert floor.most == 10
    assert floor.begun == Counter(dict.fromkeys(floor.seconds, 1))
    assert await floor.counted(1, "lease_expired") == 0
    assert await floor.counted(1, "handled") == 30


async def test_a_blocked_loop_loses_no_lease_in_any_partition(floor: Floor) -> None:
    for place in (0, 1):
        await floor.accept(3, place, 0.5)
    async with working(floor.worker(lease=0.5)):
        async with asyncio.timeout(10):
            while sum(floor.begun.values()) < 6:
                await asyncio.sleep(0.002)
        await floor.places[1].accept(body(BLOCK, "org_b"), organization="org_b")
        await floor.drained()
    assert [await floor.counted(place, "lease_expired") for place in (0, 1)] == [0, 0]
    assert set(floor.begun.values()) == {1}


async def test_the_watchdog_gives_back_in_all_partitions_what_a_blocked_worker_holds(
    redis: Redis,
) -> None:
    floor = Floor(redis, replace(POLICY, handler_timeout=0.8, stuck_after=30))
    for place in (0, 1):
        await floor.accept(3, place, 0.7)
    first, second = floor.places
    worker = floor.worker()
    worker._pulse.limit = 0.1
    async with working(worker):
        async with asyncio.timeout(10):
            while sum(floor.begun.values()) < 6:
                await asyncio.sleep(0.002)
        await second.accept(body(BLOCK, "org_b"), organization="org_b")
        async with asyncio.timeout(10):
            while not first.left:
                await asyncio.sleep(0.01)
        assert (first.left, first.left_at_once) == ([Exit.BLOCKED], True)
        (line,) = first.lines.of("worker_blocked")
        assert line["event_id"] == BLOCK
        released = Counter(line["job"][:5] for line in first.lines.of("event_released"))
        assert released == {f"{{{tag}}}": 3 for tag in TAGS[:2]}
        names = [each.partition.names.workers for each in floor.places]
        assert await redis.exists(*names) == 0


async def test_each_partition_s_clock_does_its_own_upkeep(floor: Floor) -> None:
    done: list[int] = []
    jobs: set[bytes] = set()

    def cron(number: int) -> dict[str, Any]:
        async def note() -> None:
            jobs.update(await floor.redis.keys("arq:job:*"))
            done.append(number)

        prefix = floor.places[number].partition.names.job_prefix
        job = upkeep.cron_job(note, job_prefix=prefix)
        job.run_at_startup = True
        return {"cron_jobs": [job]}

    async with working(floor.worker(**cron(0), there=cron(1))):
        async with asyncio.timeout(10):
            while len(done) < 2:
                await asyncio.sleep(0.002)
        await floor.drained()
    assert sorted(done) == [0, 1]
    assert {name.partition(b"cron:")[0].decode() for name in jobs} == {
        f"arq:job:{{{tag}}}" for tag in TAGS[:2]
    }


async def test_a_burst_ends_once_no_partition_has_anything_left(floor: Floor) -> None:
    await floor.accept(50, 0, 0.01)
    await floor.accept(150, 1, 0.01)
    worker = floor.worker(is_burst=True)
    await asyncio.wait_for(worker.async_run(), 20)
    await worker.close()
    assert await floor.are_done()
    assert floor.most == 10


async def test_weights_say_how_much_waits_in_a_partition(floor: Floor) -> None:
    for name in ("org_a", "org_b", "org_c"):
        await floor.places[1].accept(body("", name), organization=name)
    worker = floor.worker()
    claims = worker._visits[1].claims
    assert isinstance(claims, SharedClaims)
    assert await claims._weigh({}) == 3
    assert await claims._weigh({"org_b": 4.0, "org_z": 9.0}) == 6
    empty = worker.claims
    assert isinstance(empty, SharedClaims)
    assert await empty._weigh({"org_b": 4.0}) == 1
    await worker.close()
