"""Facts about what workers say of what they are at, and what stays known of one that is lost."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.queue.reach import Reach
from tests.integration.jobs import reach
from tests.integration.several import over
from tests.integration.workplace import body, place_with, stuck_until, working
from worker import Event, Organization
from worker.at_work import AtWork, Doing
from worker.engine import at_work, watchdog
from worker.operate.merged import look
from worker.operate.overview import Overview
from worker.operate.workers import LostWorker, WorkerOverview, running, sentence, troubles
from worker.pipeline.transitions import Profile, Transitions


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it told soon."""
    monkeypatch.setattr(at_work, "LONG", 0.02)
    monkeypatch.setattr(at_work, "_LONG_ENOUGH", 0.02)
    monkeypatch.setattr(watchdog, "_FILE_SECONDS", 0.02)


async def seen(redis: Redis, fact: Callable[[Overview], bool]) -> Overview:
    """The overview once that is so."""
    async with asyncio.timeout(30):
        while not fact(found := (await look(reach(redis))).overview):
            await asyncio.sleep(0.02)
    return found


def shown(state: str) -> Callable[[Overview], bool]:
    return lambda overview: any(each.state == state for each in running(overview.workers))


async def test_a_handler_that_takes_long_is_told_until_it_ends(redis: Redis) -> None:
    let_go = asyncio.Event()

    async def act(event: Event[Any], _: Organization) -> None:
        if event.id == "evt_long":
            await let_go.wait()

    place = place_with(redis, act)
    began = time.time()
    async with working(worker := place.worker()):
        (job,) = await place.accept(body("evt_long"))
        await place.accept(*(body(f"evt_{n}") for n in range(5)))
        overview = await seen(redis, lambda found: bool(running(found.workers)))
        (doing,) = running(overview.workers)
        assert (doing.job, doing.event_id, doing.organization) == (job, "evt_long", "org_a")
        assert (doing.state, doing.type, doing.worker) == ("running", "order.updated", worker._name)
        assert doing.handler.endswith("act")
        assert began - 1 < doing.since < time.time() + 1
        await seen(redis, lambda found: "in act" in running(found.workers)[0].stack)
        assert not [*troubles(overview.workers)]
        assert overview.workers[0].loop_delay is not None
        let_go.set()
        await seen(redis, lambda found: not running(found.workers))
    assert not await redis.exists(keys.WORKERS_NOW)


async def test_one_that_is_stuck_is_told_with_where_it_is(redis: Redis) -> None:
    let_go = asyncio.Event()
    handle = stuck_until(let_go)
    place = place_with(redis, handle, handler_timeout=0.1, stuck_after=0.1, max_attempts=1)
    async with working(place.worker()):
        await place.accept(body("evt_1"))
        overview = await seen(redis, shown("stuck"))
        (doing,) = troubles(overview.workers)
        assert "in swallow" in doing.stack
        said = sentence(doing, overview.at)
        assert "goes on in w" in said
        assert "though it was cancelled, with evt_1, order.updated of org_a" in said
        let_go.set()
        await seen(redis, lambda found: not running(found.workers))


async def test_one_that_blocks_its_worker_is_told_while_it_does(redis: Redis) -> None:
    async def block(_event: Event[Any], _: Organization) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not let_go:
            time.sleep(0.01)  # noqa: ASYNC251  that is the misdeed

    let_go: list[bool] = []
    place = place_with(redis, block)
    worker = place.worker(lease=0.5)
    worker._pulse.limit = 0.1

    def look_on() -> Overview:
        def is_told(overview: Overview) -> bool:
            # On a busy machine the loop may stand still before, and be told with nobody's name.
            found = running(overview.workers)
            return [(each.state, each.job) for each in found] == [("blocking", job)]

        async def looked() -> Overview:
            async with place.open_redis() as own:
                found = await seen(own, is_told)  # once, though it runs long as well
                let_go.append(True)
                return found

        return asyncio.run(looked())

    (job,) = await place.accept(body("evt_1"))
    async with working(worker):
        overview = await asyncio.to_thread(look_on)
        (doing,) = running(overview.workers)
        assert "in block" in doing.stack
        assert sentence(doing, overview.at).startswith(
            f"worker {worker._name} has stood still for "
        )
        assert "block keeps its loop, with evt_1, order.updated of org_a" in sentence(doing, 0.0)
        # What it has told of its delay comes with a sign of life, behind what it is at.
        await seen(redis, lambda found: [*map(stood_still, found.workers)] == [True])


def stood_still(worker: WorkerOverview) -> bool:
    return (worker.loop_delay or 0) > 0.05 and not running([worker])


def test_names_of_any_bytes_are_told() -> None:
    told = at_work.blocking(None, "task \udcff", 1.0, "\udcff.py:1 in act")
    assert (told.handler, told.stack) == ("task ?", "?.py:1 in act")
    assert msgspec.json.decode(msgspec.json.encode(told), type=Doing) == told


def beats(redis: Redis, name: str) -> Callable[..., Awaitable[Any]]:
    """Signs of life of a worker of this name."""
    transitions = Transitions(Partition.only(redis))
    told = b'{"host": "node-7", "version": "1.2", "running": 3, "pid": 9}'

    async def beat(lease: float = 30) -> Any:
        return await transitions.renew(name, [], description=told, slots=4, lease=lease)

    return beat


async def test_a_worker_that_goes_without_a_word_stays_known_with_what_it_was_at(
    redis: Redis,
) -> None:
    transitions = Transitions(Partition.only(redis))
    await beats(redis, "gone")(0.05)
    doing = Doing("org_a:1", 1.0, "shop.act", "org_a", "evt_1", "order.updated")
    await transitions.show("gone", msgspec.json.encode(AtWork(time.time(), [doing])))
    await asyncio.sleep(0.1)
    expected = [("gone", "node-7", 9, "1.2", 4, 3, "evt_1")]

    async def lost() -> list[tuple[Any, ...]]:
        found = (await look(reach(redis))).overview.lost or []
        return [
            (*map(each.__getattribute__, LostWorker.__struct_fields__[:6]), each.doing[0].event_id)
            for each in found
        ]

    assert await lost() == expected  # though none is left that could have noted it
    await beats(redis, "other")()
    assert await redis.hkeys(keys.WORKERS) == [b"other"]
    assert await lost() == expected
    assert not await redis.exists(keys.WORKERS_NOW)
    (told,) = (await look(reach(redis))).overview.lost or []
    assert told.sentence == (
        "worker gone on node-7 went without a word; "
        "its 3 events are others' once their leases are over"
    )
    await beats(redis, "gone")()  # it had only stood still
    assert await lost() == []
    await beats(redis, "odd")()
    odd = {"x": "rubbish", "y": b"\x93\xff", "z": b"\x93\x01\xa1\xff\xa0"}
    await redis.hset(keys.WORKERS_LOST, mapping=odd)
    assert await lost() == []


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
async def test_how_long_one_runs_is_told_though_its_worker_has_another_clock(
    redis: Redis, ahead: float
) -> None:
    transitions = Transitions(Partition.only(redis))
    await transitions.renew("w1", [], description=b"{}", slots=4, lease=30)
    its = time.time() + ahead
    told = AtWork(its, [Doing("org_a:1", its - 30)])
    await transitions.show("w1", msgspec.json.encode(told))
    overview = (await look(reach(redis))).overview
    (doing,) = running(overview.workers)
    assert 29 < overview.at - doing.since < 90


async def test_one_that_leaves_is_not_lost_and_says_no_more(redis: Redis) -> None:
    transitions = Transitions(Partition.only(redis))
    await beats(redis, "w1")()
    await transitions.show("w1", b"{}")
    assert await redis.hlen(keys.WORKERS_NOW) == 1
    await transitions.leave("w1")
    await transitions.show("w1", b"{}")  # what was on its way
    assert not await redis.exists(keys.WORKERS_NOW, keys.WORKERS_LOST)


async def test_of_many_that_are_lost_the_last_twenty_stay_known(redis: Redis) -> None:
    for number in range(30):
        await beats(redis, f"w{number}")(0.001)
        await asyncio.sleep(0.005)
        await beats(redis, "lives")()
    found = (await look(reach(redis))).overview.lost or []
    assert [each.worker for each in found] == [f"w{n}" for n in range(29, 9, -1)]
    assert await redis.pttl(keys.WORKERS_LOST) > 0
    await redis.delete(keys.WORKERS_LOST)
    for number in range(30, 60):
        await beats(redis, f"w{number}")()
    await redis.zadd(
        keys.WORKERS_SEEN, {f"w{n}": time.time() * 1000 - 100 + n for n in range(30, 60)}
    )
    await beats(redis, "lives")()  # all at once, as when Redis had been away
    found = (await look(reach(redis))).overview.lost or []
    assert [each.worker for each in found] == [f"w{n}" for n in range(59, 39, -1)]
    assert await redis.hkeys(keys.WORKERS) == [b"lives"]


async def test_what_takes_long_is_bounded(redis: Redis) -> None:
    let_go = asyncio.Event()

    async def act(_event: Event[Any], _: Organization) -> None:
        await let_go.wait()

    place = place_with(redis, act)
    async with working(place.worker(slots=100)):
        await place.accept(*(body(f"evt_{n}") for n in range(80)))
        overview = await seen(
            redis, lambda found: any(each.more_doing == 30 for each in found.workers)
        )
        assert len(running(overview.workers)) == 50
        assert await redis.memory_usage(keys.WORKERS_NOW, samples=0) < 32_000
        let_go.set()


async def test_a_change_of_the_endpoints_file_is_told_though_no_work_can_be(redis: Redis) -> None:
    profiles: list[Profile] = []

    async def act(_event: Event[Any], _: Organization) -> None:
        pass

    worker = place_with(redis, act).worker(lease=300, profiles=lambda: [*profiles])
    (leases,) = worker._leases
    leases.at_work = lambda: AtWork(time.time(), [Doing("org_a:1", 1.0)])
    await redis.set(keys.WORKERS_NOW, "not a hash")
    async with working(worker):
        await seen(redis, lambda overview: bool(overview.workers))
        profiles.append(Profile("org_new", 1))
        async with asyncio.timeout(60):  # the next sign of life is later
            while not await redis.hexists(keys.ORGANIZATIONS, "org_new"):
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", [keys.WORKERS_NOW, keys.WORKERS_LOST])
async def test_what_is_for_operators_alone_keeps_no_worker_from_its_job(
    redis: Redis, name: str
) -> None:
    await redis.set(name, "not a hash")
    await beats(redis, "gone")(0.001)
    await asyncio.sleep(0.01)
    for _ in range(2):
        await beats(redis, "w1")()
    assert await redis.hkeys(keys.WORKERS) == [b"w1"]
    assert await redis.zrange(keys.WORKERS_SEEN, 0, -1) == [b"w1"]
    assert int(await redis.get(keys.SLOTS)) == 4
    await Transitions(Partition.only(redis)).leave("w1")
    assert not await redis.exists(keys.WORKERS, keys.WORKERS_SEEN)
    assert int(await redis.get(keys.SLOTS)) == 0


async def test_an_earlier_users_file_keeps_nobody_from_seeing_the_rest(redis: Redis) -> None:
    await redis.set(keys.WORKERS_NOW, "not a hash")
    await beats(redis, "w1")()
    overview = (await look(reach(redis))).overview
    assert [each.worker for each in overview.workers] == ["w1"]


async def test_a_worker_of_several_partitions_is_one_and_lost_in_none_while_it_lives(
    redis: Redis,
) -> None:
    partitions = over(redis)
    long = [Doing(f"org_{n}:1", 10.0 - n, "act") for n in range(2)]
    blocks = Doing("", 50.0, "task-1", state="blocking")
    for number in range(2):
        there = Transitions(partitions.all[number])
        await there.renew("w1", [], description=b"{}", slots=4, lease=30)
        told = AtWork(time.time(), [blocks, long[number]], 1)
        await there.show("w1", msgspec.json.encode(told))
    cut_off = Transitions(partitions.all[2])
    for name in ("w1", "w2"):
        await cut_off.renew(name, [], description=b"{}", slots=4, lease=0.001)
    await asyncio.sleep(0.01)
    overview = (await look(Reach(Partitions(partitions.all)))).overview
    (worker,) = overview.workers
    assert [each.job for each in worker.doing] == ["", "org_1:1", "org_0:1"]
    assert worker.more_doing == 2
    assert [each.worker for each in overview.lost or []] == ["w2"]
    assert "whose doing it is nobody knows" in sentence(worker.doing[0], 60.0)
