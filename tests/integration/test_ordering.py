"""Facts about an organization whose events run one at a time, with two workers at work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from tests.integration.jobs import NOTHING, account, counters
from tests.integration.workplace import Workplace, body, working
from worker import Event, Handlers, Organization, Retry
from worker.engine.worker import Worker
from worker.pipeline.transitions import Profile

EVENTS = 40


@dataclass
class Floor:
    """Two workers, and what their handlers have done.

    Attributes:
        redis: where the events are.
        cap: of org_a.
        began: the event and the attempt of each handler of org_a, as they began.
        fails: how many attempts of an event fail.
        most: how many handlers of org_a were running at once.
        gate: what org_a's handlers wait for.
    """

    redis: Redis
    cap: int = 1
    began: list[tuple[str, int]] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    fails: dict[str, int] = field(default_factory=dict)
    most: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    _running: int = 0

    def __post_init__(self) -> None:
        handlers = Handlers()
        handlers.on("*")(self._other)
        handlers.on("*", organization="org_a")(self._ordered)
        self.place = Workplace(self.redis, handlers)
        self.gate.set()

    async def _other(self, event: Event[Any], _: Organization) -> None:
        self.others.add(event.id)

    async def _ordered(self, event: Event[Any], organization: Organization) -> None:
        self.began.append((event.id, event.attempt))
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            await self.gate.wait()
            await asyncio.sleep(0.001)  # long enough for another to begin that may
        finally:
            self._running -= 1
        failures = self.fails.get(event.id, 0)
        if event.attempt <= failures:
            if event.attempt % 2:
                raise Retry(after=0.01)
            raise RuntimeError("as told")
        await organization.state.put("last", event.id)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[list[Worker]]:
        """Let both workers run as long as the block."""
        profiles = [Profile("org_a", self.cap)]
        workers = [self.place.worker(profiles=lambda: list(profiles)) for _ in range(2)]
        async with working(*workers):
            yield workers

    async def accept(self, organization: str, number: int) -> list[str]:
        """Let so many events come in, one after the other; their ids in this order."""
        names = [f"{organization}_{n}" for n in range(number)]
        for start in range(0, number, 7):
            signed = [body(name, organization) for name in names[start : start + 7]]
            await self.place.accept(*signed, organization=organization)
        return names

    async def handled(self, number: int) -> None:
        """Wait until so many have been handled."""
        async with asyncio.timeout(20):
            while (await counters(self.redis)).get("handled", 0) < number:
                await asyncio.sleep(0.002)


@pytest.fixture
def floor(redis: Redis) -> Floor:
    return Floor(redis)


async def test_events_run_one_at_a_time_in_order_of_acceptance_retries_included(
    redis: Redis, floor: Floor
) -> None:
    async with floor.working():
        floor.fails = {f"org_a_{n}": n % 3 for n in range(0, EVENTS, 5)}
        names = await floor.accept("org_a", EVENTS)
        await floor.handled(EVENTS)
    expected = [
        (name, attempt) for name in names for attempt in range(1, floor.fails.get(name, 0) + 2)
    ]
    assert floor.began == expected
    assert len(expected) > EVENTS
    assert floor.most == 1
    assert await redis.get(keys.state("org_a", "last")) == f'"{names[-1]}"'.encode()
    assert await account(redis) == NOTHING


async def test_more_than_one_at_a_time_is_what_others_get(floor: Floor) -> None:
    """The same floor shows it where the order is not asked for."""
    floor.cap = 3
    floor.gate.clear()
    async with floor.working():
        await floor.accept("org_a", EVENTS)
        async with asyncio.timeout(20):
            while floor.most < 3:
                await asyncio.sleep(0.002)
        floor.gate.set()
        await floor.handled(EVENTS)
    assert floor.most == 3


async def test_others_do_not_wait_for_it(redis: Redis, floor: Floor) -> None:
    floor.gate.clear()
    async with floor.working():
        await floor.accept("org_a", 20)
        names = await floor.accept("org_b", EVENTS)
        await floor.handled(EVENTS)
        assert floor.others == set(names)
        assert floor.began == [("org_a_0", 1)]
        floor.gate.set()
        await floor.handled(EVENTS + 20)
    assert [name for name, _ in floor.began] == [f"org_a_{n}" for n in range(20)]


async def test_others_do_not_wait_for_its_retry_and_its_next_one_does(
    redis: Redis, floor: Floor
) -> None:
    floor.fails = {"org_a_0": 1}
    floor.gate.clear()
    async with floor.working():
        await floor.accept("org_a", 2)
        async with asyncio.timeout(20):
            while not floor.began:
                await asyncio.sleep(0.002)
        names = await floor.accept("org_b", EVENTS)
        floor.gate.set()
        await floor.handled(EVENTS + 2)
    assert floor.others == set(names)
    assert floor.began == [("org_a_0", 1), ("org_a_0", 2), ("org_a_1", 1)]


async def test_a_worker_that_leaves_in_the_middle_changes_nothing(
    redis: Redis, floor: Floor
) -> None:
    """What it had is the next one that the other worker gets."""
    floor.gate.clear()
    async with floor.working() as workers:
        names = await floor.accept("org_a", 10)
        async with asyncio.timeout(20):
            while not floor.began:
                await asyncio.sleep(0.002)
        (holder,) = [worker for worker in workers if worker.tasks]
        for task in holder.tasks.values():
            task.cancel()
        async with asyncio.timeout(20):
            while len(floor.began) < 2:
                await asyncio.sleep(0.002)
        floor.gate.set()
        await floor.handled(10)
    assert floor.began == [("org_a_0", 1), *((name, 1) for name in names)]
    assert floor.most == 1
    assert await account(redis) == NOTHING


async def test_who_waits_behind_a_short_retry_does_not_wait_for_a_worker_to_look(
    floor: Floor,
) -> None:
    """Both workers sleep when the retry is asked for, and look by themselves once a second."""
    floor.fails = {f"org_a_{n}": 1 for n in range(20)}
    loop = asyncio.get_running_loop()
    async with floor.working():
        began = loop.time()
        await floor.accept("org_a", 20)
        await floor.handled(20)
    assert len(floor.began) == 40
    assert loop.time() - began < 5  # half a second each, without
