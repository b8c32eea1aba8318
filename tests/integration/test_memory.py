"""Facts about events whose decoded bodies are large: a worker has only so many of them at once."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from time import thread_time
from typing import Any, Final

import msgspec
import pytest
from redis.asyncio import Redis

from shared.program import garbage
from shared.queue import keys
from tests.integration import workplace as workplaces
from tests.integration.jobs import NOTHING, account, counters, mark_of, record_of
from tests.integration.workplace import POLICY, Workplace, body
from worker import Event, Handlers, Organization
from worker.engine.worker import Worker
from worker.pipeline.batcher import Batcher
from worker.pipeline.memory import MemoryBudget, estimate
from worker.pipeline.transitions import MarkRequest, Settled

MIB: Final = 1024 * 1024
ITEMS: Final = [{"a": 1}] * 400


def large(event_id: str, **changes: Any) -> bytes:
    """A body of 3 KiB that is some 150 KiB once it is decoded."""
    return body(event_id, **{"data": {"items": ITEMS}, **changes})


class Crowd:
    """Handlers that stay until they are let go, and how many there are."""

    def __init__(self) -> None:
        self.now: set[str] = set()
        self.most = 0
        self.ended: list[str] = []
        self.go = asyncio.Event()
        self.handlers = Handlers()
        self.handlers.on("*")(self.stay)

    async def stay(self, event: Event[Any], _: Organization) -> None:
        self.now.add(event.id)
        self.most = max(self.most, len(self.now))
        try:
            await self.go.wait()
        finally:
            self.now.discard(event.id)
        self.ended.append(event.id)


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


def workplace(redis: Redis, handlers: Handlers, size: int = MIB, **policy: Any) -> Workplace:
    """One whose handlers may have half of so many bytes of large bodies."""
    place = Workplace(redis, handlers, replace(POLICY, **policy))
    place.pipeline = replace(place.pipeline, memory=MemoryBudget(size, slots=10))
    return place


@contextlib.asynccontextmanager
async def working(place: Workplace, **options: Any) -> AsyncIterator[Worker]:
    worker = place.worker(**options)
    async with workplaces.working(worker):
        yield worker


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def ends(redis: Redis, **wanted: int) -> None:
    """Wait until so many events have ended so."""
    async with asyncio.timeout(20):
        while not wanted.items() <= (await counters(redis)).items():
            await asyncio.sleep(0.005)


async def test_only_so_many_large_ones_are_in_hand_and_all_are_handled(
    redis: Redis, crowd: Crowd
) -> None:
    place = workplace(redis, crowd.handlers)
    await place.accept(*(large(f"evt_{n}") for n in range(8)), body("evt_small"))
    fit = MIB // 2 // estimate(large("evt_0"))
    async with working(place, slots=20) as worker:
        await until(lambda: len(crowd.now) == fit + 1 and len(worker.held()) == 9)
        assert "evt_small" in crowd.now
        crowd.go.set()
        await ends(redis, handled=9)
    assert crowd.most == fit + 1
    assert await account(redis) == NOTHING


async def test_who_waits_is_given_back_when_the_worker_stops(redis: Redis, crowd: Crowd) -> None:
    place = workplace(redis, crowd.handlers, 64 * 1024)  # each is larger than that
    first, second = await place.accept(large("evt_1"), large("evt_2"))
    async with working(place) as worker:
        await until(lambda: crowd.now == {"evt_1"} and len(worker.held()) == 2)
        worker.stop()
        await ends(redis, released=1)  # while the first one still runs
        assert crowd.now == {"evt_1"}
        assert (await account(redis)).queued == {second}
        crowd.go.set()
        await ends(redis, handled=1)
    assert (await mark_of(redis, "evt_1")) == f"done:{first}"
    claim = (await redis.hget(keys.CLAIMS, second) or b"").decode()
    assert claim.startswith(":0:0:")  # neither an attempt nor a claim


async def test_who_would_begin_to_wait_once_the_worker_stops_is_given_back_at_once(
    redis: Redis, crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, go_on = workplace(redis, crowd.handlers, 64 * 1024), asyncio.Event()
    mark = place.transitions.mark

    async def hang(requests: Sequence[MarkRequest]) -> Any:
        if crowd.now:
            await go_on.wait()
        return await mark(requests)

    monkeypatch.setattr(place.transitions, "mark", hang)
    place.batcher = Batcher(place.transitions, patience=1, log=place.lines.log)
    place.pipeline = replace(place.pipeline, ledger=place.batcher)
    await place.accept(large("evt_1"))
    async with working(place) as worker:
        await until(lambda: crowd.now == {"evt_1"})
        (second,) = await place.accept(large("evt_2"))
        await until(lambda: len(worker.held()) == 2)
        worker.stop()
        go_on.set()
        await ends(redis, released=1)  # while the first one still runs
        assert crowd.now == {"evt_1"}
        assert (await account(redis)).queued == {second}
        crowd.go.set()
        await ends(redis, handled=1)
    claim = (await redis.hget(keys.CLAIMS, second) or b"").decode()
    assert claim.startswith(":0:0:")  # neither an attempt nor a claim


async def test_a_stuck_handler_gives_its_share_back_with_its_attempt(redis: Redis) -> None:
    handlers, let_go, seen = Handlers(), asyncio.Event(), list[str]()

    @handlers.on("*")
    async def clings(event: Event[Any], _: Organization) -> None:
        seen.append(event.id)
        while event.id == "evt_1" and not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    place = workplace(redis, handlers, 64 * 1024, handler_timeout=0.05, max_attempts=1)
    await place.accept(large("evt_1"), large("evt_2"))
    async with working(place):
        await ends(redis, handled=1, dead=1)
        let_go.set()
    assert seen == ["evt_1", "evt_2"]


class Orders(msgspec.Struct):
    items: list[int]


async def test_what_can_not_be_decoded_gives_its_share_back(redis: Redis) -> None:
    handlers = Handlers()

    @handlers.on("*")
    async def takes_orders(_event: Event[Orders], _: Organization) -> None:
        pass

    place = workplace(redis, handlers, 64 * 1024)
    jobs = await place.accept(*(large(f"evt_{n}") for n in range(30)))
    async with working(place, slots=30):
        await ends(redis, dead=30)
    assert (await record_of(redis, jobs[0]))["reason"] == "malformed"


async def test_another_round_asks_anew(redis: Redis) -> None:
    """What the handler read has changed before the commit: it runs again, and nothing is left."""
    handlers, rounds = Handlers(), list[int]()

    @handlers.on("*")
    async def reads(_event: Event[Any], organization: Organization) -> None:
        rounds.append(len(rounds))
        await organization.state.get("n")
        if len(rounds) == 1:
            await redis.set(keys.state("org_a", "n"), "1")

    place = workplace(redis, handlers, 64 * 1024)
    for event_id in ("evt_1", "evt_2"):
        async with asyncio.timeout(5):
            assert await place.handle(large(event_id)) is Settled.DONE
    assert rounds == [0, 1, 2]


class Turns:
    """The processor's time that the longest turn of the running loop takes, in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0
        loop: Any = asyncio.get_running_loop()
        turn = loop._run_once

        def timed() -> None:
            before = thread_time()
            turn()
            self.longest = max(self.longest, thread_time() - before)

        loop._run_once = timed


@pytest.fixture
def tuned() -> Iterator[None]:
    """Collect garbage as a worker's process does."""
    threshold = gc.get_threshold()
    garbage.tune()
    yield
    gc.set_threshold(*threshold)


@pytest.mark.parametrize("unit", ['{"a":1}', "[[],[]]", "[[[[[[[[]]]]]]]]", "{}"])
@pytest.mark.usefixtures("tuned")
async def test_a_flood_of_large_bodies_keeps_the_loop_for_a_moment_only(
    redis: Redis, unit: str
) -> None:
    handlers = Handlers()

    @handlers.on("*")
    async def takes_its_time(_event: Event[Any], _: Organization) -> None:
        await asyncio.sleep(0.01)

    place = workplace(redis, handlers, 128 * MIB)
    data = f"[{','.join([unit] * (MIB // (len(unit) + 1) - 100))}]".encode()
    await place.accept(*(body(f"evt_{n}", data={"v": msgspec.Raw(data)}) for n in range(8)))
    turns = Turns()
    async with working(place):
        await ends(redis, handled=8)
    assert 0.002 < turns.longest < 0.2
