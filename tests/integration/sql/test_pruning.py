"""Facts about the inbox's rows: they go with age, but never while their event may run again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from tests.conftest import StartRedis
from tests.integration.several import at_home
from tests.integration.several import over as over_primaries
from tests.integration.sql.shop import Shop, opened_shop, save
from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization
from worker.opened import Known
from worker.operate import revival, upkeep
from worker.pipeline.transitions import MarkRequest
from worker.sql import inbox

RETENTION = 7 * 86_400.0


async def over(events: Sequence[Known]) -> list[bool]:
    return [True] * len(events)


async def age(shop: Shop, days: int, like: str = "%") -> None:
    """Make rows older, as time would."""
    then = (
        f"datetime('now', '-{days} days')" if shop.is_sqlite else f"now() - interval '{days} days'"
    )
    change = f"UPDATE sellfern_inbox SET committed_at = {then}"  # noqa: S608  its own words
    await shop.execute(f"{change} WHERE event_id LIKE '{like}'")


async def test_rows_go_once_they_are_older_than_asked(shop: Shop) -> None:
    for number in range(5):
        await shop.once(f"evt_old_{number}")
    await shop.once("evt_young")
    await age(shop, 8, "evt_old%")
    assert await shop.database.prune(over, older_than=9 * 86_400) == 0
    assert await shop.database.prune(over, older_than=RETENTION) == 5
    assert await shop.entries() == {("org_a", "evt_young", "")}


async def test_each_row_is_looked_at_though_many_stay(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look is bounded, and those that stay don't stand in the way of what is behind them."""
    monkeypatch.setattr(inbox, "_AT_ONCE", 3)
    monkeypatch.setattr(inbox, "_MOST_BATCHES", 2)
    for number in range(10):
        await shop.once(f"evt_{number}")
    await age(shop, 8)

    async def all_but_six(events: Sequence[Known]) -> list[bool]:
        return [event_id >= "evt_6" for _, event_id in events]

    gone = [await shop.database.prune(all_but_six, older_than=RETENTION) for _ in range(3)]
    assert sum(gone) == 4
    assert await shop.database.prune(all_but_six, older_than=RETENTION) == 0
    assert {entry[1] for entry in await shop.entries()} == {f"evt_{number}" for number in range(6)}


@pytest.mark.parametrize(
    ("mark", "goes"),
    [
        (None, True),
        (b"done:org_a:0", True),
        (b"pending:org_a:0", False),
        (b"dead:org_a:0", False),
        (b"of-a-later-version:org_a:0", False),
    ],
)
async def test_a_row_stays_while_its_event_is_pending_or_dead(
    sqlite_shop: Shop, redis: Redis, mark: bytes | None, *, goes: bool
) -> None:
    await sqlite_shop.once()
    await age(sqlite_shop, 8)
    if mark is not None:
        await redis.set(keys.event("org_a", "evt_1"), mark)
    log = Workplace(redis).lines
    await upkeep.prune(
        Partitions.only(redis), [sqlite_shop.database], retention=RETENTION, log=log.log
    )
    assert (await sqlite_shop.entries() == set()) is goes
    assert len(log.of("inbox_pruned")) == int(goes)


async def test_rows_of_a_partition_that_is_away_stay_and_keep_no_others(
    sqlite_shop: Shop, redis: Redis, fresh_redis_server: StartRedis
) -> None:
    server = fresh_redis_server()
    async with Redis.from_url(server.url) as other:
        partitions = over_primaries(redis, other, number=2)
        names = [at_home(number, 2) for number in range(2)]
        for each in names:
            await sqlite_shop.once("evt_1", name=each)
        await age(sqlite_shop, 8)
        log = Workplace(redis).lines.log
        prune = partial(upkeep.prune, partitions, [sqlite_shop.database], retention=RETENTION)
        server.stop()
        await prune(log=log)
        assert {entry[0] for entry in await sqlite_shop.entries()} == {names[1]}
        server.start()
        await prune(log=log)
        assert await sqlite_shop.entries() == set()


@pytest.mark.parametrize(("answering", "does"), [({0, 1, 2}, 0), ({1, 2}, 1), ({2}, 2)])
async def test_the_first_partition_that_answers_prunes_for_all(
    redis: Redis, answering: set[int], does: int
) -> None:
    done: list[int] = []

    async def note(number: int) -> None:
        done.append(number)

    for each in over_primaries(redis, number=3):
        if each.number in answering:
            await upkeep.in_first(each, lambda: answering, partial(note, each.number))()
    assert done == [does]


async def test_a_database_that_fails_keeps_no_other_from_being_pruned(
    sqlite_shop: Shop, redis: Redis
) -> None:
    await sqlite_shop.once()
    await age(sqlite_shop, 8)
    log = Workplace(redis).lines.log
    async with opened_shop(f"{sqlite_shop.url}2") as broken:
        await broken.execute("DROP TABLE sellfern_inbox")
        kept = [broken.database, sqlite_shop.database]
        with pytest.raises(ExceptionGroup, match="prune"):
            await upkeep.prune(Partitions.only(redis), kept, retention=RETENTION, log=log)
    assert await sqlite_shop.entries() == set()


async def test_what_crashed_after_its_commit_and_is_replayed_late_is_not_written_twice(
    shop: Shop, redis: Redis
) -> None:
    """Pruned by age alone, its row would be gone by then."""
    log = Workplace(redis).lines.log

    async def prune() -> None:
        await upkeep.prune(Partitions.only(redis), [shop.database], retention=RETENTION, log=log)

    assert await replayed_late(shop, redis, prune) == 1
    await prune()
    assert await shop.entries() == set()


async def replayed_late(shop: Shop, redis: Redis, prune: Callable[[], Awaitable[object]]) -> int:
    """Rows of an event that commits, crashes until it is dead, and is replayed after a pruning."""
    handlers, database = Handlers(), shop.database

    @handlers.on("order.updated")
    async def handle(event: Event[Any], organization: Organization) -> None:
        await database.once(event, organization, save)

    place = Workplace(redis, handlers)
    (job,) = await place.accept(body("evt_1"))
    for number in range(3):  # each commits, or finds it, and is gone before the mark
        while not (claimed := await place.claim(lease=0.01)):
            await asyncio.sleep(0.001)
        await place.transitions.mark([MarkRequest(claimed[0][0], "evt_1")])
        assert await shop.once() is (number == 0)
    await place.handle_next()
    assert await redis.get(keys.event("org_a", "evt_1")) == f"dead:{job}".encode()
    await age(shop, 30)
    await prune()
    await revival.replay_one(Partition.only(redis), job)
    await place.handle_next()
    assert await redis.get(keys.event("org_a", "evt_1")) == f"done:{job}".encode()
    return await shop.lines()
