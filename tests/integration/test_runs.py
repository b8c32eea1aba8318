"""Facts about runs over dead letters: begun once, kept in Redis, taken up where nobody goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from shared.errors import Unavailable
from shared.observe.logs import get_logger
from shared.queue import keys
from shared.queue.partitions import Partitions
from shared.queue.reach import Missing, Reach
from tests.integration.console.letters import bury
from tests.integration.jobs import counters, reach
from tests.integration.several import over
from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization, Reject
from worker.operate import revival, runs
from worker.operate.console.runs import Runs
from worker.operate.dead_letters import DeadLetter, Selection
from worker.operate.dead_lists import Filter
from worker.operate.runs import Going, Run, find, new_id, read_all

NEVER = 0.01
"""Replays a second: the second one comes when the test is long over."""


async def nothing() -> None:
    pass


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs be kept often, and given up soon."""
    monkeypatch.setattr(runs, "_EVERY", 0.02)


class House:
    """Consoles on connections of their own, over one Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._opened: list[Runs] = []

    def console(self, patience: float = 0.2) -> Runs:
        """One more."""
        where = self.redis.connection_pool.connection_kwargs
        redis = Redis(host=where["host"], port=where["port"])
        found = Runs(Partitions.only(redis), get_logger(), 3600.0, nothing, patience)
        self._opened.append(found)
        return found

    async def close(self) -> None:
        for each in self._opened:
            await each.close()
            await each.partitions.all[0].redis.aclose()


@pytest.fixture
async def house(redis: Redis) -> AsyncIterator[House]:
    """Give a house without a console."""
    house = House(redis)
    yield house
    await house.close()


def replay(**changes: Any) -> Run:
    chosen = Selection(filter=Filter(organization="org_a"))
    return Run(**{"verb": "replay", "about": "org_a", "who": "Ada", "selection": chosen, **changes})


async def until(fact: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await fact():
            await asyncio.sleep(0.01)


async def becomes(console: Runs, run_id: str, *states: str) -> Run:
    """The run once it is in one of these states, as Redis has it."""

    async def is_so() -> bool:
        return (await kept(console, run_id)).state in states

    await until(is_so)
    return await kept(console, run_id)


async def kept(console: Runs, run_id: str) -> Run:
    found = await find(console.partitions, run_id)
    assert found is not None
    return found


async def left_behind(house: House, monkeypatch: pytest.MonkeyPatch, run: Run) -> Run:
    """A run whose console has gone without a word, as it stands in Redis."""
    console = house.console()
    monkeypatch.setattr(runs, "HELD_SECONDS", 0.3)
    assert await console.start(run) == "begun"
    await until(lambda: is_seen(console, run.id))

    async def silent(_: Going, __: float) -> str:
        return ""

    with monkeypatch.context() as patched:
        patched.setattr(Going, "_keep", silent)
        await console.close()
    return await becomes(console, run.id, "interrupted")


async def is_seen(console: Runs, run_id: str) -> bool:
    return (await kept(console, run_id)).seen > 0


async def test_many_presses_in_two_consoles_are_one_run(house: House, redis: Redis) -> None:
    await bury(redis, "org_a", 40)
    run_id = new_id(reach(redis))
    consoles = [house.console(), house.console()]
    begun = await asyncio.gather(
        *(consoles[n % 2].start(replay(id=run_id, rate=10_000)) for n in range(20))
    )
    assert sorted(begun) == ["begun", *["known"] * 19]
    run = await becomes(consoles[0], run_id, "finished")
    assert (run.progress.queued, run.progress.known, run.times) == (40, 0, 1)
    assert (await counters(redis))["replayed"] == 40
    again = [await each.start(replay(id=run_id, rate=10_000)) for each in consoles]
    assert again == ["known", "known"]  # nor is it begun once more when it has ended


async def test_what_a_console_leaves_behind_is_taken_up_once(
    house: House, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(redis, "org_a", 60)
    run = await left_behind(house, monkeypatch, replay(rate=30))
    assert 0 < run.progress.queued < 60
    assert (run.level, run.can_be_taken_up) == ("warn", True)
    consoles = [house.console(), house.console()]
    run.rate = 10_000
    begun = await asyncio.gather(*(consoles[n % 2].start(run.again("Grace")) for n in range(10)))
    assert begun.count("begun") == 1
    assert set(begun) <= {"begun", "known", "held"}
    done = await becomes(consoles[0], run.id, "finished")
    assert (await counters(redis))["replayed"] == 60
    assert (done.taken_up, done.times, done.total) == ("Grace", 2, run.total)
    # What was done in the moment before it was left isn't counted; the rest is, each once.
    assert 60 - 30 <= done.progress.queued <= 60
    assert done.progress.known == 0


async def test_a_console_that_is_told_to_end_leaves_it_at_once(house: House, redis: Redis) -> None:
    await bury(redis, "org_a", 5)
    first, second = house.console(), house.console()
    run = replay(rate=NEVER)
    await first.start(run)
    await until(lambda: is_seen(second, run.id))
    assert await second.start((await kept(second, run.id)).again("Grace")) == "held"
    await first.close()
    found = await kept(second, run.id)
    assert (found.state, found.note) == ("interrupted", "what went on with it has ended")
    assert await second.start(found.again("Grace")) == "begun"


async def test_whoever_was_slow_does_no_more_once_another_has_taken_it_up(
    house: House, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(redis, "org_a", 5)
    slow, quick = house.console(), house.console()
    run = replay(rate=NEVER)
    await slow.start(run)
    await until(lambda: is_seen(quick, run.id))
    going = slow._here[run.id]
    # As though it had stood still for longer than it is waited for.
    hold = (await redis.hget(keys.RUNS, f"{run.id}:hold")).decode().split(":", 3)
    await redis.hset(keys.RUNS, f"{run.id}:hold", ":".join([*hold[:2], "1", "another"]))
    assert await quick.start((await kept(quick, run.id)).again("Grace")) == "begun"
    await until(lambda: is_gone(slow, run.id))
    assert going.run.state == "interrupted"
    assert (await kept(quick, run.id)).state == "running"


async def is_gone(console: Runs, run_id: str) -> bool:
    return run_id not in console._here


async def test_what_is_taken_up_where_its_end_is_still_told_goes_on_there(
    house: House, redis: Redis
) -> None:
    await bury(redis, "org_a", 5)
    console, told = house.console(), asyncio.Event()

    async def changed() -> None:  # a look at a Redis that is slow
        await told.wait()

    console.changed = changed
    await console.start(run := replay(rate=NEVER))
    going, ended = console._here[run.id], console._tasks[run.id]
    await until(lambda: is_seen(console, run.id))
    await going.stop("Ada")
    await becomes(console, run.id, "stopped")
    found = await console.find(run.id)
    assert found is not None
    assert await console.start(found.again("Grace")) == "begun"
    told.set()
    await ended
    again = await console.find(run.id)
    assert again is not None
    assert (again.state, [each.id for each in console.going]) == ("running", [run.id])
    assert console._here[run.id].run is again
    await console.stop(again, "Grace")
    assert not console._here


async def test_it_is_stopped_from_another_console_while_redis_is_full(
    house: House, redis: Redis
) -> None:
    going, second = Going(run := replay(), reach(redis), lambda *_: None), house.console()
    await going.begin()
    doing = asyncio.create_task(going.to_its_end(asyncio.sleep(600)))
    await redis.config_set("maxmemory", "1")
    try:
        await second.stop(run, "Grace")
        await becomes(second, run.id, "stopped")
        await doing
    finally:
        await redis.config_set("maxmemory", "0")
    await redis.delete(keys.RUNS)
    await second.stop(run, "Grace")
    assert not await redis.exists(keys.RUNS)


async def test_it_is_stopped_from_another_console_and_who_did_it_is_told(
    house: House, redis: Redis
) -> None:
    await bury(redis, "org_a", 5)
    first, second = house.console(), house.console()
    run = replay(rate=NEVER)
    await first.start(run)
    await second.look()
    (seen,) = second.going
    await second.stop(seen, "Grace")
    found = await becomes(second, run.id, "stopped")
    assert found.note == "stopped by Grace"
    assert found.can_be_taken_up
    assert (await counters(redis))["replayed"] == 1
    assert await second.start(found.again("Ada")) == "begun"  # and isn't stopped by that again
    await until(lambda: is_seen(second, run.id))
    await second.stop(second._here[run.id].run, "Ada")


async def test_what_became_of_a_sample_is_told_though_its_console_has_gone(
    house: House, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = Handlers()
    is_fixed = False

    @handlers.on("order.updated")
    async def act(_event: Event[Any], _: Organization) -> Reject | None:
        return None if is_fixed else Reject("no such order")

    place = Workplace(redis, handlers)
    for number in range(8):
        await place.handle(body(f"evt_{number}"))
    run = replay(limit=3, rate=10_000)
    console = house.console(patience=60)
    await console.start(run)

    async def all_out() -> bool:
        return (await kept(console, run.id)).progress.queued == 3

    await until(all_out)
    await console.close()
    found = await kept(console, run.id)
    assert (found.total, len(found.out), found.progress.waiting) == (3, 3, 3)
    is_fixed = True
    for _ in range(3):
        await place.handle_next()
    assert await console.start(found.again("Grace")) == "begun"
    done = await becomes(console, run.id, "finished")
    assert done.outcome == "3 replayed: 3 handled"
    assert done.level == "good"
    assert await redis.hget(keys.BURIED, "org_a") == b"5"  # a sample is no larger when taken up


async def test_of_very_many_it_is_said_how_many_nobody_followed(redis: Redis) -> None:
    await bury(redis, "org_a", 300)
    run = replay(rate=10_000)
    going = Going(run, reach(redis), lambda *_: None, patience=0.0)
    assert await going.begin() == "begun"
    await going.to_its_end(going.work())
    run.state = "interrupted"
    found = msgspec.json.decode(run.kept(), type=Run).again("Grace")
    assert (len(found.out), found.progress.unfollowed) == (100, 200)
    assert found.progress.waiting == 100
    assert "200 that nobody followed" in found.progress.sentence


async def test_a_discard_goes_on_too(
    house: House, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(redis, "org_a", 300)
    monkeypatch.setattr(revival, "_AT_ONCE", 1)
    run = await left_behind(house, monkeypatch, replay(verb="discard"))
    console = house.console()
    if run.state != "finished":
        assert await console.start(run.again("Grace")) == "begun"
    done = await becomes(console, run.id, "finished")
    assert (await counters(redis))["discarded"] == 300
    assert 0 < done.discarded <= 300


async def test_nothing_is_meant_that_died_later_where_redis_was_away_when_it_began(
    redis: Redis,
) -> None:
    partitions = over(redis)
    away = [Missing(number, 4, "redis_timeout", "away") for number in (1, 2, 3)]
    before = await revival.since(Reach(partitions, away))

    async def letters() -> AsyncIterator[DeadLetter]:
        for later in (0, 1):
            died_at = before.began[0] + later
            yield DeadLetter("job", "org_a", "", "", "", "", "", 1, 0, died_at, b"", partition=3)

    assert [
        each.died_at - before.began[0] async for each in revival.died_before(before, letters())
    ] == [0]
    await asyncio.sleep(0.01)
    since = await revival.since(Reach(partitions), before)
    assert since.began == dict.fromkeys(range(4), before.began[0])


@pytest.mark.parametrize("verb", ["replay", "discard"])
async def test_what_has_died_since_it_began_is_left_alone_though_it_had_done_nothing_by_then(
    house: House, redis: Redis, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    await bury(redis, "org_a", 3)
    monkeypatch.setattr(runs, "HELD_SECONDS", 0.05)
    run = replay(verb=verb, selection=Selection())
    assert await Going(run, reach(redis), lambda *_: None).begin() == "begun"
    await asyncio.sleep(0.1)  # whoever began it is gone by now
    await bury(redis, "org_b", 2, died_at=round(time.time() * 1000))
    console = house.console()
    found = await kept(console, run.id)
    assert await console.start(found.again("Grace")) == "begun"
    done = await becomes(console, run.id, "finished")
    assert done.seen == 3


@pytest.mark.parametrize(
    ("error", "state"), [(Unavailable("redis_timeout", "it is away"), "failed"), (None, "failed")]
)
async def test_one_that_breaks_says_so_and_does_not_go_on_for_ever(
    house: House, redis: Redis, error: Exception | None, state: str
) -> None:
    async def broken() -> None:
        raise error or KeyError("a bug")

    going = Going(run := replay(), reach(redis), lambda *_: None)
    await going.begin()
    with suppress(Unavailable, KeyError):
        await going.to_its_end(broken())
    found = await kept(house.console(), run.id)
    assert (found.state, found.can_be_taken_up) == (state, True)


@pytest.mark.parametrize(
    ("is_stopped", "is_away", "state"),
    [(False, False, "finished"), (True, False, "stopped"), (False, True, "failed")],
)
async def test_who_waits_no_more_for_fates_is_told_what_was_left_out(
    redis: Redis, *, is_stopped: bool, is_away: bool, state: str
) -> None:
    waits, there = asyncio.Event(), Reach(over(redis))
    run = replay()

    async def work() -> None:
        if is_away:
            there.leave_out(there.partitions.all[0], Unavailable("redis_partition_moving", "away"))
            await there.gather(lambda _: nothing())
        run.progress.stopped = is_stopped
        run.progress.is_awaited = True
        waits.set()
        await asyncio.Event().wait()

    going = Going(run, there, lambda *_: None)
    await going.begin()
    task = asyncio.create_task(going.to_its_end(work()))
    await waits.wait()
    await going.stop("Ada")
    await task
    assert run.state == state


async def test_the_last_ones_are_kept_and_none_that_goes_on_is_forgotten(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "HELD_SECONDS", 3600.0)  # it shows no sign of life
    held = Going(replay(about="goes on"), reach(redis), lambda *_: None)
    await held.begin()
    for number in range(40):
        jobs = tuple(f"org_a:{n:032x}" for n in range(2000))
        run = replay(about=f"run {number}", selection=Selection(jobs), started=number)
        run.progress.deaths = {f"{'x' * 200} {n}": n for n in range(100)}
        going = Going(run, reach(redis), lambda *_: None)
        await going.begin()
        await going.to_its_end(nothing())
    found = await read_all(reach(redis))
    assert [run.about for run in found] == [
        "goes on",
        *(f"run {n}" for n in range(39, 39 - len(found) + 1, -1)),
    ]
    assert len(found) == 31
    assert await redis.memory_usage(keys.RUNS, samples=0) < 200_000
    assert await redis.pttl(keys.RUNS) > 29 * 86_400_000
    assert found[-1].selection is None
    await redis.hset(keys.RUNS, mapping={"odd": "rubbish", "odd:hold": "1:1:1:x", "x:hold": "y"})
    told = await redis.hget(keys.RUNS, found[0].id)
    for hold in ("1:1:1", "x:1:1:y", "1:1:y:z"):
        await redis.hset(keys.RUNS, mapping={f"torn {hold}": told, f"torn {hold}:hold": hold})
    assert len(await read_all(reach(redis))) == 31


async def test_a_job_of_any_bytes_is_replayed_and_only_not_taken_up(redis: Redis) -> None:
    run = replay(selection=Selection(("\udcff\x00",)))
    going = Going(run, reach(redis), lambda *_: None, patience=0.0)
    assert await going.begin() == "begun"
    await going.to_its_end(going.work())
    (found,) = await read_all(reach(redis))
    assert found.state == "finished"


async def test_a_run_is_kept_where_redis_answers(redis: Redis) -> None:
    partitions = over(redis)
    missing = [Missing(number, 4, "redis_timeout", "away") for number in range(3)]
    drawn = {partitions.of(new_id(Reach(partitions, missing))).number for _ in range(20)}
    assert drawn == {3}
    for number in range(4):
        others = [Missing(each, 4, "redis_timeout", "away") for each in range(4) if each != number]
        run = replay(id=new_id(Reach(partitions, others)), about=str(number))
        await Going(run, Reach(partitions), lambda *_: None).begin()
    assert {run.about for run in await read_all(Reach(partitions))} == {"0", "1", "2", "3"}
    assert await redis.hlen(partitions.all[2].names.runs) == 2
