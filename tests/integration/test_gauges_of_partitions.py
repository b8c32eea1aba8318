"""Facts about the gauges of several partitions on two primaries, of which one may go away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from ingress.primaries import Primaries
from ingress.settings import IngressSettings
from shared.endpoints.endpoint import Endpoints, OrganizationProfile
from shared.program import awaiting
from shared.queue import due, gauges, keys
from shared.queue.gauges import Gauges
from shared.queue.partition import Partition, home
from shared.queue.partitions import Partitions, open_partitions, opened
from shared.queue.writer import Queue
from shared.redis.durability import Durability, Mode
from tests.conftest import StartRedis
from tests.ingress_support import Known
from tests.integration.jobs import delivery
from tests.integration.workplace import Lines

NUMBER = 4
ORGANIZATIONS = [f"org_{number}" for number in range(12)]
MIB = 1024 * 1024


@dataclass
class Place:
    """Some partitions, and who shows them."""

    servers: list[EmbeddedRedis]
    partitions: Partitions
    gauges: Gauges
    registry: CollectorRegistry
    lines: Lines

    async def scraped(self, name: str, **labels: str) -> float | None:
        """What a scrape shows."""
        await self.gauges.refresh()
        return self.registry.get_sample_value(f"sellfern_{name}", labels)

    async def up(self) -> list[float | None]:
        """What it shows of each partition."""
        return [await self.scraped("partition_up", partition=str(each)) for each in range(NUMBER)]


@pytest.fixture
async def place(
    fresh_redis_server: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    monkeypatch.setattr(gauges, "CACHE_SECONDS", 0.0)
    monkeypatch.setattr(gauges, "_WALK_SECONDS", 5.0)
    servers = [fresh_redis_server(appendfsync=None) for _ in range(2)]
    lines, registry = Lines(), CollectorRegistry()
    async with opened([Redis.from_url(server.url) for server in servers], NUMBER) as partitions:
        shown = Gauges(partitions, organizations=3, bytes_limit_of=lambda _: 0, log=lines.log)
        with shown.registered(registry):
            yield Place(servers, partitions, shown, registry, lines)


async def accept(partitions: Partitions) -> None:
    """One event of the first organization, two of the second and so on."""
    for number, name in enumerate(ORGANIZATIONS, 1):
        queue = Queue(partitions.of(name), Durability(Mode.MEMORY))
        await queue.enqueue([delivery(b"%d" % each, name) for each in range(number)])


async def test_what_waits_is_summed_and_the_largest_of_all_are_named(place: Place) -> None:
    await accept(place.partitions)
    for partition in place.partitions:
        await partition.redis.hset(partition.names.buried, "org_x", str(partition.number))
    assert await place.scraped("queue_depth", state="queued") == sum(range(13))
    assert await place.scraped("dead_letters_kept") == 0 + 1 + 2 + 3
    named = {
        name: await place.scraped("organization_events", organization=name, state="waiting")
        for name in ORGANIZATIONS
    }
    assert {name: number for name, number in named.items() if number} == {
        "org_9": 10,
        "org_10": 11,
        "org_11": 12,
    }
    assert await place.scraped("organization_bytes", organization="org_11", kind="waiting")
    assert await place.scraped("organization_bytes", organization="org_1", kind="waiting") is None
    assert await place.up() == [1.0] * NUMBER


async def test_a_worker_is_one_wherever_it_works_and_the_oldest_is_the_oldest_anywhere(
    place: Place,
) -> None:
    for partition in place.partitions:
        names = partition.names
        await partition.redis.zadd(
            names.workers_seen, {"w1": 1e15, f"w{partition.number % 2}": 1e15}
        )
        await partition.redis.set(names.slots, 30)
    (seconds, _) = await place.partitions.all[1].redis.time()
    accepted = {"job": (seconds - 100) * 1000}
    await place.partitions.all[1].redis.zadd(place.partitions.all[1].names.accepted, accepted)
    assert await place.scraped("workers") == 2
    assert await place.scraped("worker_slots") == 30
    oldest = await place.scraped("oldest_waiting_seconds")
    assert oldest is not None
    assert 100 <= oldest < 130


async def test_what_is_due_is_told_of_each_partition_and_of_none_that_cannot_be_read(
    place: Place,
) -> None:
    await accept(place.partitions)
    seconds = [await place.scraped("due_seconds", partition=str(each)) for each in range(NUMBER)]
    assert all(each is not None for each in seconds)
    assert await place.scraped("due_events") == sum(range(13))
    place.servers[1].kill()
    assert await place.scraped("redis_up") == 1
    seconds = [await place.scraped("due_seconds", partition=str(each)) for each in range(NUMBER)]
    assert [each is None for each in seconds] == [False, True, False, True]
    place.servers[0].kill()
    assert await place.scraped("redis_up") == 0
    assert await place.scraped("due_events") is None


@pytest.mark.parametrize("is_slow", [True, False])
async def test_a_look_at_what_is_due_that_fails_or_lasts_makes_no_partition_seem_away(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, is_slow: bool
) -> None:
    await accept(place.partitions)
    if is_slow:
        monkeypatch.setattr(gauges, "READ_SECONDS", 0.5)
        monkeypatch.setattr(due.Look, "read", lambda *_, **__: asyncio.sleep(30))
    else:
        for partition in place.partitions:
            await partition.redis.set(partition.names.due, "somebody's hand")
    assert await place.up() == [1.0] * NUMBER
    assert await place.scraped("queue_depth", state="queued") == sum(range(13))
    assert await place.scraped("due_events") is None
    (line,) = place.lines.of("gauges_not_read")
    assert line["partitions"] == [*range(NUMBER)]


async def test_a_full_primary_is_not_hidden_behind_an_empty_one(place: Place) -> None:
    for number, limit in enumerate((1000 * MIB, 100 * MIB)):
        await place.partitions.all[number].redis.config_set("maxmemory", limit)
    assert await place.scraped("redis_memory_limit_bytes") == 100 * MIB


async def test_events_beside_the_partitions_are_counted_once_in_each_primary(place: Place) -> None:
    assert await place.scraped("undivided_events") == 0
    for partition in place.partitions.all[:2]:
        await partition.redis.zadd(keys.ACCEPTED, {"org_a:ab": 1})
    assert await place.scraped("undivided_events") == 2


async def test_one_that_is_away_is_left_out_and_said_once(place: Place) -> None:
    await accept(place.partitions)
    place.servers[1].kill()
    there = [each for each, name in enumerate(ORGANIZATIONS, 1) if home(name, NUMBER) % 2 == 0]
    for _ in range(2):
        assert await place.scraped("queue_depth", state="queued") == sum(there)
        assert await place.up() == [1.0, 0.0, 1.0, 0.0]
    (line,) = place.lines.of("gauges_not_read")
    assert (line["code"], line["partitions"]) == ("redis_unreachable", [1, 3])
    place.servers[0].kill()
    assert await place.scraped("queue_depth", state="queued") is None
    assert await place.up() == [0.0] * NUMBER
    for server in place.servers:
        server.start()
    assert await place.up() == [1.0] * NUMBER


async def test_one_that_hangs_does_not_hang_the_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "READ_SECONDS", 0.3)
    monkeypatch.setattr(gauges, "_WALK_SECONDS", 0.0)
    await accept(place.partitions)
    place.servers[1].freeze()
    try:
        assert await place.up() == [1.0, 0.0, 1.0, 0.0]
    finally:
        place.servers[1].thaw()
    assert [line["code"] for line in place.lines.of("gauges_not_read")] == ["redis_timeout"]


async def test_a_primary_that_comes_back_as_another_one_is_told_though_it_keeps_what_it_is_given(
    fresh_redis_server: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaiting, "LONGEST_PAUSE", 0.01)
    servers = [fresh_redis_server() for _ in range(2)]
    async with Redis.from_url(servers[1].url) as redis:
        await redis.set(Partition.at(0, redis).names.layout, "4:1/2")
    servers[1].stop()
    environ = {"REDIS_URL": " ".join(each.url for each in servers), "PARTITIONS": "4"}
    settings = IngressSettings.from_environ(environ)
    async with open_partitions(settings.common) as partitions:
        there = Primaries(settings, partitions, Known(Endpoints({}, {})))
        assert await there.first_look() == []
        async with there.watching():
            servers[1].start()
            async with asyncio.timeout(20):
                while there.all[1].unfit[:1] == [] or there.all[1].unfit[0].code != "redis_layout":
                    await asyncio.sleep(0.01)
            assert await there.problems() == []
            while any(each._looking for each in there.all):
                await there.problems()
            (note,) = there.notes()
            assert "expected place 1/2 in the list" in note.message
            await partitions.all[1].redis.set(partitions.all[0].names.layout, "4:2/2")
            async with asyncio.timeout(20):
                while there.all[1].unfit:
                    await asyncio.sleep(0.01)
            await there.problems()
            assert there.notes() == []


async def test_a_share_of_memory_is_one_of_the_primary_where_an_organization_lives(
    fresh_redis_server: StartRedis,
) -> None:
    sizes = (100 * MIB, 200 * MIB)
    urls = [fresh_redis_server(appendfsync=None).url for _ in sizes]
    settings = IngressSettings.from_environ({"REDIS_URL": " ".join(urls), "PARTITIONS": "4"})
    profiles = {name: OrganizationProfile(name, 1.0, None, {}) for name in ORGANIZATIONS}
    profiles["org_own"] = OrganizationProfile("org_own", 1.0, None, {}, 7)
    endpoints = Known(Endpoints({}, profiles))
    async with (
        open_partitions(settings.common) as partitions,
        Primaries.opened(settings, partitions, endpoints) as primaries,
    ):
        for primary, size in zip(primaries.all, sizes, strict=True):
            await primary.redis.config_set("maxmemory", size)
            await primary.held.look(primary.redis)
        for name in ORGANIZATIONS:
            assert primaries.limit_of(name) == sizes[home(name, NUMBER) % 2] // 4
        assert primaries.limit_of("org_own") == 7
