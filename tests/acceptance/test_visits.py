"""Facts about workers of several partitions: they share slots, and each queue is on its own."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic

from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from shared.queue.partition import Partition, home
from shared.queue.partitions import Partitions
from tests.acceptance.process import Program, environment, run, until
from tests.acceptance.test_burst import burst
from tests.acceptance.worker_process import running
from tests.conftest import StartRedis
from tests.integration.workplace import Workplace, body

SLOTS = 24


def living_in(partition: int, partitions: int, number: int = 1) -> list[str]:
    """So many organizations whose home it is."""
    names = (f"org_{each}" for each in count())
    found = (name for name in names if home(name, partitions) == partition)
    return [next(found) for _ in range(number)]


def one_in_each(partitions: int) -> list[str]:
    """An organization of each."""
    return [name for number in range(partitions) for name in living_in(number, partitions)]


def endpoints_of(organizations: Sequence[str]) -> str:
    return "\n".join(
        f'[[endpoint]]\nid = "{each}"\norganization_id = "{each}"\nsecrets = ["whsec_{each}"]\n'
        for each in organizations
    )


@dataclass
class Field:
    """Partitions with events for a worker.

    Attributes:
        partitions: they.
        gate: before which no handler does anything.
        environ: of the worker.
    """

    partitions: Partitions
    gate: Path
    environ: dict[str, str]

    async def accept(self, organization: str, number: int, seconds: float = 0.0) -> None:
        partition = self.partitions.of(organization)
        place = Workplace(partition.redis, names=partition.names)
        data = {"gate": str(self.gate), "seconds": seconds}
        signed = (body("", organization, data=data) for _ in range(number))
        await place.accept(*signed, organization=organization)

    async def left(self) -> list[int]:
        """How many accepted events each partition has."""
        return [await each.redis.zcard(each.names.accepted) for each in self.partitions]

    async def are_done(self) -> bool:
        return not any(await self.left())

    async def held(self) -> list[int]:
        """How many jobs of each partition a worker holds."""
        found = []
        for each in self.partitions:
            running = await each.redis.hvals(each.names.running)
            found.append(sum(map(int, running)))
        return found

    async def handled(self, organization: str) -> int:
        """How often handlers of its events have committed."""
        partition = self.partitions.of(organization)
        raw = await partition.redis.hget(partition.names.counters, "handled")
        return int(raw or 0)


@asynccontextmanager
async def field(
    folder: Path,
    organizations: Sequence[str],
    *servers: EmbeddedRedis,
    partitions: int,
    **settings: str,
) -> AsyncIterator[Field]:
    folder.joinpath("endpoints.toml").write_text(endpoints_of(organizations))
    async with AsyncExitStack() as stack:
        redis = [await stack.enter_async_context(Redis.from_url(each.url)) for each in servers]
        for each in redis:
            await each.flushall()
        all_ = tuple(Partition.at(n, redis[n % len(redis)]) for n in range(partitions))
        environ = environment(
            " ".join(each.url for each in servers),
            folder,
            WORKER_HANDLERS="tests.acceptance.napping:handlers",
            PARTITIONS=str(partitions),
            WORKER_CONCURRENCY=str(SLOTS),
            **settings,
        )
        yield Field(Partitions(all_), folder / "gate", environ)


async def test_partitions_share_slots_by_the_organizations_that_wait_in_them(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """Nine in one and one in each of three others; as if all were in a single queue."""
    organizations = [
        *living_in(0, 4, 9),
        *(name for partition in (1, 2, 3) for name in living_in(partition, 4)),
    ]
    async with field(tmp_path, organizations, redis_server, partitions=4) as here:
        here.gate.touch()
        for each in organizations:
            await here.accept(each, 300, 0.02)
        async with running(here.environ) as (worker,):
            lines = await worker.logged("napping", 1800)
            await until(here.are_done)
    # From when all have been weighed until the first might have nothing left.
    begun = Counter(line["organization"] for line in lines[300:1800])
    assert len(begun) == 12
    assert min(begun.values()) / max(begun.values()) >= 0.6, begun


async def test_a_primary_that_stands_still_delays_no_others_handlers(
    fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    servers = fresh_redis_server(), fresh_redis_server()
    (frozen,), (other,) = living_in(1, 2), living_in(0, 2)

    async def seconds(here: Field) -> float:
        """That a worker takes for what comes in when it has nothing to do."""
        began = monotonic()
        await here.accept(other, 10 * SLOTS, 0.05)
        await until(lambda: _is_empty(here.partitions.of(other)))
        return monotonic() - began

    async with field(tmp_path, [frozen, other], *servers, partitions=2) as here:
        here.gate.touch()
        async with running(here.environ) as (worker,):
            before = await seconds(here)
            servers[1].freeze()
            try:
                meanwhile = [await seconds(here) for _ in range(6)]
                ready = await worker.admin("/readyz")
                metrics = (await worker.admin("/metrics")).body.decode()
            finally:
                servers[1].thaw()
            for number, is_up in enumerate((1.0, 0.0)):
                assert f'sellfern_partition_up{{partition="{number}"}} {is_up}' in metrics
            assert ready.status == 200
            (note,) = ready.json["notes"]
            assert note["code"] == "no_sign_of_life"
            assert "of 2 partitions, 1 " in note["message"]
            # By the median: one look may fall into a moment in which the machine does other things.
            assert sorted(meanwhile)[3] <= before * 1.3 + 0.3, (before, meanwhile)
            assert max(meanwhile) <= before + 2.5, (before, meanwhile)
            assert worker.events("lease_lost") == []
            await here.accept(frozen, 5)
            await until(here.are_done)


async def test_a_worker_starts_while_the_first_primary_stands_still(
    fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    servers = fresh_redis_server(), fresh_redis_server()
    (frozen,), (other,) = living_in(0, 2), living_in(1, 2)
    async with field(tmp_path, [frozen, other], *servers, partitions=2) as here:
        here.gate.touch()
        await here.accept(frozen, 5)
        servers[0].freeze()
        try:
            async with running(here.environ) as (worker,):
                await here.accept(other, 5)
                await until(lambda: _is_empty(here.partitions.of(other)))
                assert (await worker.admin("/readyz")).status == 200
                servers[0].thaw()
                await until(here.are_done)
        finally:
            servers[0].thaw()


async def test_a_primary_that_comes_back_as_another_one_is_left_alone(
    fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    servers = fresh_redis_server(), fresh_redis_server()
    (organization,) = living_in(1, 2)
    async with field(tmp_path, [organization], *servers, partitions=2) as here:
        here.gate.touch()
        partition, layout = here.partitions.of(organization), keys.Names("021").layout
        await here.accept(organization, 5)
        await partition.redis.set(layout, "2:1/2")
        servers[1].stop()
        async with running(here.environ) as (worker,):
            servers[1].start()
            await until(lambda: _is_noted(worker, "redis_layout"))
            assert not await partition.redis.exists(partition.names.workers)
            assert not await partition.redis.exists(f"{partition.names.queue}:health-check")
            assert await here.left() == [0, 5]
            await partition.redis.set(layout, "2:2/2")
            await until(here.are_done)
            codes = [line["code"] for line in worker.events("redis_awaited")]
            assert codes == ["redis_unreachable", "redis_layout"]
            await worker.logged("redis_found")


async def _is_noted(worker: Program, code: str) -> bool:
    ready = await worker.admin("/readyz")
    return any(each["code"] == code for each in ready.json.get("notes", ()))


async def test_a_burst_handles_what_waits_in_all_partitions(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    organizations = one_in_each(4)
    async with field(tmp_path, organizations, redis_server, partitions=4) as here:
        here.gate.touch()
        for each in organizations:
            await here.accept(each, 10)
        told = await burst(here.environ)
        assert (told["handled"], told["left"]) == (40, 0)
        assert await here.are_done()


async def test_a_burst_ends_with_the_last_of_its_partitions(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """Those with nothing to do are begun no second time, which would take more at its end."""
    organizations = one_in_each(4)
    async with field(tmp_path, organizations, redis_server, partitions=4) as here:
        here.gate.touch()
        await here.accept(organizations[2], 3, 1.0)
        told = await burst(here.environ)
        assert (told["handled"], told["left"]) == (3, 0)


async def test_a_burst_waits_for_no_primary_that_is_away(
    fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    servers = fresh_redis_server(), fresh_redis_server()
    async with field(tmp_path, living_in(0, 2), *servers, partitions=2) as here:
        servers[1].stop()
        shown = await run("worker", "run", "--burst", environ=here.environ)
    assert shown.code == 2, shown.stderr
    assert "no connection to Redis" in shown.stderr


async def test_a_worker_of_another_number_of_partitions_waits_and_is_not_ready(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    (organization,) = living_in(0, 4)
    async with field(tmp_path, [organization], redis_server, partitions=4) as here:
        async with running(here.environ):
            checked = await run("worker", "check", environ=here.environ)
            assert checked.code == 0, checked.stderr
        two = {**here.environ, "PARTITIONS": "2"}
        checked = await run("worker", "check", environ=two)
        assert checked.code == 2
        assert "expected 4, as many as this Redis was begun with, got 2" in checked.stdout
        other = await Program.begin("worker", two)
        try:
            (line,) = await other.logged("redis_awaited")
            assert line["code"] == "redis_layout"
            assert (await other.admin("/readyz")).status == 503
        finally:
            await other.stop()


async def _is_empty(partition: Partition) -> bool:
    left: int = await partition.redis.zcard(partition.names.accepted)
    return left == 0


async def test_a_worker_that_stops_gives_back_in_all_partitions(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    organizations = one_in_each(4)
    settings = {"DRAIN_SECONDS": "1s", "LEASE_SECONDS": "1h"}
    async with field(tmp_path, organizations, redis_server, partitions=4, **settings) as here:
        for each in organizations:
            await here.accept(each, 10)
        async with running(here.environ) as (worker,):
            await worker.logged("napping", SLOTS)
            assert sum(await here.held()) >= SLOTS
            worker.send(signal.SIGTERM)
            assert await worker.ended() == 0, worker.text
            assert worker.events("loop_failed") == []
        assert await here.held() == [0] * 4
        assert await here.left() == [10] * 4
        for partition in here.partitions:
            redis, names = partition.redis, partition.names
            assert await redis.zcount(names.queue, keys.DEFERRED_FROM, "+inf") == 0
            assert not await redis.exists(names.workers)


async def test_a_primary_that_stands_still_keeps_no_worker_from_leaving_the_others(
    fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    servers = fresh_redis_server(), fresh_redis_server()
    organizations = one_in_each(2)
    settings = {"DRAIN_SECONDS": "1s", "LEASE_SECONDS": "1h"}
    async with field(tmp_path, organizations, *servers, partitions=2, **settings) as here:
        for each in organizations:
            await here.accept(each, 4)
        async with running(here.environ) as (worker,):
            await worker.logged("napping", 8)
            servers[1].freeze()
            try:
                worker.send(signal.SIGTERM)
                await worker.ended()
                redis, names = here.partitions.all[0].redis, here.partitions.all[0].names
                assert not await redis.exists(names.workers)
                assert await redis.zcount(names.queue, keys.DEFERRED_FROM, "+inf") == 0
                assert await redis.zcard(names.accepted) == 4
            finally:
                servers[1].thaw()


async def test_a_killed_workers_events_are_handled_once_in_each_partition(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    organizations = one_in_each(4)
    async with field(tmp_path, organizations, redis_server, partitions=4) as here:
        for each in organizations:
            await here.accept(each, 10)
        async with running(here.environ) as (worker,):
            await worker.logged("napping", SLOTS)
            worker.send(signal.SIGKILL)
            await worker.ended()
        here.gate.touch()
        async with running(here.environ):
            await until(here.are_done)
        await asyncio.gather(*map(here.handled, organizations))
        assert [await here.handled(each) for each in organizations] == [10] * 4
