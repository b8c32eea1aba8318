"""Facts about an organization that lives in another partition than its home."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count, islice
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis

from ingress import primaries
from ingress.primaries import Primaries
from ingress.settings import IngressSettings
from shared.endpoints.endpoint import Endpoints
from shared.errors import Unavailable
from shared.program.findings import Finding
from shared.queue import scripts
from shared.queue.partition import home
from shared.queue.partitions import Partitions, open_partitions
from shared.queue.reach import Reach
from shared.queue.writer import Accepted, Moved, PartitionedWriter, Queue, QueueWriter
from shared.redis.connection import REDIS_ERRORS
from shared.redis.durability import Durability, Mode
from tests.conftest import StartRedis
from tests.integration.jobs import delivery
from tests.integration.several import ORGANIZATIONS, Shop, at_home, over
from tests.integration.workplace import Lines
from worker.opened import Known
from worker.operate import dead_letters, dead_lists, lookup, organizations, revival, upkeep
from worker.operate.console.runs import Runs
from worker.operate.dead_letters import Selection
from worker.operate.dead_lists import Filter
from worker.operate.moving import Move
from worker.operate.runs import Run
from worker.operate.searching import search_everywhere

GONE, STAYS = ORGANIZATIONS[0], "org_stays"


@pytest.fixture
def partitions(redis: Redis) -> Partitions:
    return over(redis)


async def send_off(partitions: Partitions, organization: str, *way: int) -> None:
    """Let it have gone from its home to another partition, and on to the next."""
    here = partitions.of(organization)
    for number in way:
        await here.redis.hset(here.names.moved, organization, str(number))
        here = partitions.all[number % len(partitions)]


def writer_of(partitions: Partitions) -> PartitionedWriter:
    queues = [Queue(each, Durability(Mode.MEMORY)) for each in partitions]
    return PartitionedWriter([QueueWriter(each) for each in queues])


async def depths(partitions: Partitions) -> list[int]:
    return [await each.redis.zcard(each.names.accepted) for each in partitions]


async def test_of_a_batch_those_that_have_moved_are_told_and_the_others_enqueued(
    partitions: Partitions,
) -> None:
    queue = Queue(partitions.all[0], Durability(Mode.FSYNC))
    batch = [delivery(b"1", STAYS), delivery(b"2", GONE), delivery(b"3", STAYS)]
    assert await queue.enqueue(batch) == [Accepted.NEW] * 3
    await send_off(partitions, GONE, 3)
    moved, *rest = [delivery(b"2", GONE), *batch, delivery(b"4", GONE), delivery(b"5", STAYS)]
    answers = await queue.enqueue([moved, *rest])
    told = [each.partition if isinstance(each, Moved) else each for each in answers]
    assert told == [3, Accepted.KNOWN, 3, Accepted.KNOWN, 3, Accepted.NEW]
    assert await depths(partitions) == [4, 0, 0, 0]
    (only,) = await queue.enqueue([delivery(b"6", GONE)])
    assert isinstance(only, Moved)


async def test_a_delivery_goes_after_its_organization_and_the_next_one_straight_there(
    partitions: Partitions,
) -> None:
    writer = writer_of(partitions)
    await send_off(partitions, GONE, 1, 2, 3)
    assert await writer.accept(delivery(b"1", GONE)) is Accepted.NEW
    assert writer.place_of(GONE) == 3
    await partitions.all[0].redis.delete(partitions.all[0].names.moved)
    assert await writer.accept(delivery(b"2", GONE)) is Accepted.NEW
    assert await depths(partitions) == [0, 0, 0, 2]
    # Back at home, who remembers the other place is told there.
    await send_off(partitions, GONE)
    last = partitions.all[3]
    await last.redis.hset(last.names.moved, GONE, "0")
    assert await writer.accept(delivery(b"3", GONE)) is Accepted.NEW
    assert await depths(partitions) == [1, 0, 0, 2]
    assert not any(writer._moved)


async def test_whoever_has_moved_is_found_though_its_home_is_away(
    fresh_redis_server: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an ingress that has begun since, and had no delivery for it."""
    monkeypatch.setattr(primaries, "_LEARN_SECONDS", 0.02)
    servers = [fresh_redis_server(appendfsync=None) for _ in range(2)]
    urls = " ".join(server.url for server in servers)
    settings = IngressSettings.from_environ(
        {"REDIS_URL": urls, "PARTITIONS": "4", "DURABILITY": "memory"}
    )
    endpoints = SimpleNamespace(current=Endpoints({}, {}))
    first, stays, wrong, back = islice((f"org_{n}" for n in count() if home(f"org_{n}", 4) == 0), 4)
    async with (
        open_partitions(settings.common) as partitions,
        Primaries.opened(settings, partitions, endpoints) as there,
    ):
        here, late = partitions.all[0], ORGANIZATIONS[2]
        await send_off(partitions, first, 3)
        await send_off(partitions, back, 3)
        # Nobody lives in a tenth one, and what isn't said by its home may be out of date.
        await here.redis.hset(here.names.moved, mapping={wrong: 9, ORGANIZATIONS[1]: 2})
        assert await there.first_look() == []
        writer = there.writer
        assert isinstance(writer, PartitionedWriter)
        assert [writer.place_of(each) for each in (first, stays, wrong, back)] == [3, 0, 0, 3]
        assert writer.place_of(ORGANIZATIONS[1]) == 1
        async with there.watching():
            await send_off(partitions, late, 1)
            await here.redis.hdel(here.names.moved, back)
            async with asyncio.timeout(20):
                while (writer.place_of(late), writer.place_of(back)) != (1, 0):
                    await asyncio.sleep(0.01)
            servers[0].kill()
            for name in (first, late):
                assert await writer.accept(delivery(b"1", name)) is Accepted.NEW
            with pytest.raises(Unavailable, match="redis_unreachable"):
                await writer.accept(delivery(b"1", stays))


async def test_nobody_goes_round_in_circles(partitions: Partitions) -> None:
    await send_off(partitions, GONE, 1, 2, 0, 1)
    with pytest.raises(Unavailable, match="organization_moving"):
        await writer_of(partitions).accept(delivery(b"1", GONE))
    await send_off(partitions, GONE, 9)
    with pytest.raises(Unavailable, match="organization_moving"):
        await writer_of(partitions).accept(delivery(b"1", GONE))
    assert await depths(partitions) == [0, 0, 0, 0]


async def test_commands_act_where_it_is_and_find_it_by_ids_from_before(redis: Redis) -> None:
    shop = Shop(over(redis))
    partitions, there = shop.partitions, shop.partitions.all[1]
    await send_off(partitions, GONE, 1)
    # The letter of another organization there, renamed: as a move would have left it.
    await shop.bury(1, "evt_1")
    (raw,) = await redis.zrange(there.names.dead(ORGANIZATIONS[1]), 0, -1)
    job = raw.decode().replace(ORGANIZATIONS[1], GONE)
    await redis.rename(there.names.dead_letter(raw.decode()), there.names.dead_letter(job))
    await redis.hset(there.names.dead_letter(job), "organization", GONE)
    await redis.zadd(there.names.dead(GONE), {job: 1})
    await redis.hset(there.names.buried, GONE, "1")
    before = job.replace(there.names.job_prefix, partitions.all[0].names.job_prefix)
    reach = Reach(partitions)
    assert await reach.living(GONE) is there
    assert await reach.name_now(before) == job
    found = await dead_letters.find_anywhere(reach, before)
    assert found is not None
    assert found.job == job
    named = await Selection((before,)).by_names_of_now(reach)
    assert [each.job async for each in named.letters(reach)] == [job]
    meant = Filter(organization=GONE)
    assert [each.job async for each in dead_letters.select(reach, meant)] == [job]
    event = await lookup.find_anywhere(reach, before)
    assert event is not None
    assert event.job == job
    assert [each.job for each in (await search_everywhere(reach, before)).found] == [job]
    assert await organizations.pause(await reach.living(GONE), GONE, "a test")
    assert await redis.hget(there.names.organizations, f"pause:{GONE}") == b"a test"


async def test_who_has_gone_or_is_on_its_way_is_neither_paused_nor_replayed(redis: Redis) -> None:
    shop = Shop(over(redis))
    here = shop.partitions.all[0]
    await shop.bury(0, "evt_1")
    (raw,) = await redis.zrange(here.names.dead(GONE), 0, -1)
    left: list[int] = []
    before = {name: await redis.dump(name) for name in await redis.keys()}
    for name in (here.names.moved, here.names.moving):
        await redis.hset(name, GONE, "1")
        for act in (organizations.pause(here, GONE, ""), organizations.resume(here, GONE)):
            with pytest.raises(Unavailable, match="organization_moving"):
                await act
        assert await revival.replay_one(here, raw.decode()) == "moved"
        assert await revival.discard(here, raw.decode(), retention=60) == "moved"
        letters = Selection((raw.decode(),)).letters(Reach(shop.partitions))
        await revival.discard_all(
            Reach(shop.partitions),
            letters,
            retention=60,
            told=pytest.fail,
            left=lambda: left.append(1),
        )
        await redis.delete(name)
    assert {name: await redis.dump(name) for name in await redis.keys()} == before
    assert left == [1, 1]
    assert await organizations.pause(here, GONE, "")


async def test_rows_of_an_inbox_are_judged_by_the_marks_where_the_organization_is(
    partitions: Partitions,
) -> None:
    here, there = partitions.all[0], partitions.all[2]
    await send_off(partitions, GONE, 2)
    await here.redis.set(here.names.event(GONE, "left"), "dead:x")
    await there.redis.set(there.names.event(GONE, "carried"), "dead:x")
    await there.redis.set(there.names.event(GONE, "done"), "done:x")
    events = [(GONE, each) for each in ("left", "carried", "done", "unknown")]
    told: list[bool] = []

    class Database:
        async def check(self) -> list[Finding]:
            return []

        async def prune(
            self,
            are_over: Callable[[Sequence[Known]], Awaitable[Sequence[bool]]],
            *,
            older_than: float,
        ) -> int:
            told.extend(await are_over(events))
            return round(older_than)

    await upkeep.prune(partitions, [Database()], retention=1, log=Lines().log)
    assert told == [False, False, True, True]
    # On its way home again, home knows of it what has come already, and not from where it comes.
    told.clear()
    await here.redis.delete(here.names.moved)
    await here.redis.hset(here.names.moving, GONE, "in:2:1")
    await upkeep.prune(partitions, [Database()], retention=1, log=Lines().log)
    assert told == [False, False, False, False]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("read_before", [1, 4])
async def test_who_lists_dead_letters_goes_after_an_organization_that_moves_meanwhile(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, read_before: int, *, newest_first: bool
) -> None:
    monkeypatch.setattr(dead_lists, "_ASKED_AT_ONCE", 2)
    shop, first = Shop(over(redis)), at_home(0)
    second = max(ORGANIZATIONS)  # which is listed behind it
    await shop.bury(0, "evt_0")
    number = ORGANIZATIONS.index(second)
    await shop.bury(number, *(f"evt_{n}" for n in range(1, 9)))
    assert first < second
    # All at once, as those of one batch may.
    there = shop.partitions.all[number].names
    jobs = [job.decode() for job in await redis.zrange(there.dead(second), 0, -1)]
    for n, job in enumerate(jobs):
        await redis.zadd(there.dead(second), {job: 1000 + n // 4})
        await redis.hset(there.dead_letter(job), "died_at", f"{1000 + n // 4}")
    found = list[str]()
    async for letter in dead_letters.select(
        Reach(shop.partitions), Filter(), newest_first=newest_first
    ):
        found.append(letter.event_id)
        if len(found) == read_before:
            target = shop.partitions.all[(number + 1) % 4]
            await Move(shop.partitions, second, target).run()
    assert sorted(found) == [f"evt_{n}" for n in range(9)]


async def test_a_run_over_those_that_are_on_their_way_is_not_finished_and_can_be_taken_up(
    redis: Redis,
) -> None:
    shop, organization = Shop(over(redis)), at_home(0)
    await shop.bury(0, "evt_1", "evt_2")
    here = shop.partitions.all[0]
    await redis.hset(here.names.moving, organization, "out:1:0")
    console = Runs(shop.partitions, Lines().log, 60.0, _nothing, patience=0)
    for verb in ("discard", "replay"):
        run = Run(verb, organization, "Ada", total=2)
        ended = await _ended(console, run)
        assert (ended.state, ended.can_be_taken_up) == ("stopped", True)
        assert ended.note == "2 were on their way to another partition"
    await redis.hdel(here.names.moving, organization)
    ended = await _ended(console, ended.again("Ada"))
    assert (ended.state, ended.progress.queued, ended.progress.moved) == ("finished", 2, 0)
    await console.close()


async def _nothing() -> None:
    pass


async def _ended(console: Runs, run: Run) -> Run:
    assert await console.start(run) == "begun"
    await console._tasks[run.id]
    found = await console.find(run.id)
    assert found is not None
    return found


async def test_a_stock_arq_worker_takes_nothing_of_who_is_on_its_way(redis: Redis) -> None:
    shop = Shop(over(redis))
    here = shop.partitions.all[0]
    (job,) = await shop.wait(0, "evt_1")
    for name in (here.names.moving, here.names.moved):
        await redis.hset(name, GONE, "out:1:0")
        assert await shop.places[0].transitions.adopt(job, lease=30) is None
        await redis.delete(name)
    assert await shop.places[0].transitions.adopt(job, lease=30) is not None


@asynccontextmanager
async def one_away(redis: Redis) -> AsyncIterator[Partitions]:
    """Of four partitions the second one's server doesn't answer."""
    async with Redis(port=1) as nobody:
        partitions = over(redis)
        away = replace(partitions.all[1], redis=nobody)
        yield Partitions((partitions.all[0], away, *partitions.all[2:]))


async def test_the_partition_that_is_said_to_be_away_is_the_one_that_is(redis: Redis) -> None:
    async with one_away(redis) as partitions:
        home, away = partitions.all[:2]
        await redis.hset(home.names.moved, GONE, "1")
        reach = Reach(partitions)
        assert await reach.living(GONE) is away
        job = f"{home.names.job_prefix}{GONE}:{1:032x}"
        assert await reach.name_now(job) == away.names.job_prefix + job.removeprefix(
            home.names.job_prefix
        )
        assert [each.partition for each in reach.missing] == [1]
        with pytest.raises(REDIS_ERRORS):
            await partitions.living(GONE)


def test_a_single_queue_looks_for_nobody_who_has_moved() -> None:
    for name in ("enqueue", "pause", "resume", "replay", "discard", "adopt"):
        assert "sellfern:mov" not in scripts.load(name).text
