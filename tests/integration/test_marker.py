"""Facts about a Redis that is emptied, replaced or restored under programs, which tell of it."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from shared.observe import metrics
from shared.queue import keys, marker
from shared.queue.marker import Incident, Marker
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from tests.conftest import StartCluster, StartRedis
from tests.integration.resharding import ask
from tests.integration.several import over
from tests.integration.test_cluster import admit, first_of, until_it_works
from tests.integration.workplace import Lines, Workplace, body
from worker.operate.overview import read_overview

LOOKS: Final = 2
"""So many, and a program knows a Redis well enough to judge it."""


class Program:
    """What one program knows of a Redis, and tells of it."""

    def __init__(self, redis: Redis, partition: Partition | None = None) -> None:
        self.lines = Lines()
        partition = partition or Partition.only(redis)
        self.names = partition.names
        self.marker = Marker(partition, self.lines.log)

    async def look(self, times: int = 1) -> list[Incident]:
        """What it tells by so many looks."""
        return [each for _ in range(times) if (each := await self.marker.look())]

    async def told(self) -> str:
        """The event of the only line that it has logged after a few looks."""
        await self.look(LOOKS + 1)
        (line,) = self.lines.events()
        return line


async def accept(
    redis: Redis, number: int, first: int = 0, *, names: keys.Names | None = None
) -> None:
    """Accept events."""
    signed = (body(f"evt_{each}") for each in range(first, first + number))
    await Workplace(redis, names=names).accept(*signed)


def counted(what: str) -> float:
    """How often programs here have found it so."""
    return metrics.REGISTRY.get_sample_value("sellfern_redis_lost_total", {"what": what}) or 0.0


async def empty(redis: Redis) -> None:
    """Lose everything."""
    await redis.flushall()


async def replace(redis: Redis) -> None:
    """Put another one in its place, which a program that knows nothing has begun."""
    await redis.flushall()
    assert await Program(redis).look(LOOKS) == []


@pytest.mark.parametrize("lose", [empty, replace])
async def test_a_redis_without_what_it_had_is_told_once_by_each_that_knew_it(
    redis: Redis, lose: Callable[[Redis], Awaitable[None]]
) -> None:
    before = counted("emptied")
    programs = [Program(redis) for _ in range(3)]
    await accept(redis, 3)
    for each in programs:
        assert await each.look(LOOKS) == []
    await lose(redis)
    newcomer = Program(redis)
    assert await newcomer.look(LOOKS) == []
    for each in programs:
        assert await each.told() == "redis_emptied"
        (line,) = each.lines.of("redis_emptied")
        assert line["events"] == 3
        assert "3 unfinished events, all marks and all state are gone" in line["message"]
    assert counted("emptied") == before + 3
    assert await newcomer.look(LOOKS) == []
    (shown,) = (await read_overview(Partition.only(redis))).incidents or ()
    assert (shown.what, shown.events, shown.back_to) == ("emptied", 3, None)
    # It may happen again.
    await accept(redis, 1)
    assert await newcomer.look() == []
    await lose(redis)
    assert [each.what for each in await newcomer.look(LOOKS)] == ["emptied"]


async def test_a_restored_redis_is_told_with_its_moment_and_what_is_missing(
    tmp_path: Path, fresh_redis_server: StartRedis
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    data.mkdir()
    server = fresh_redis_server(appendfsync="always", folder=data)
    async with Redis.from_url(server.url) as redis:

        async def put_back() -> None:
            server.stop()
            shutil.rmtree(data / "appendonlydir")
            shutil.copytree(backup, data / "appendonlydir")
            server.start()
            await redis.connection_pool.disconnect()

        programs = [Program(redis) for _ in range(3)]
        await accept(redis, 2)
        for each in programs:
            await each.look(LOOKS)
        saved_at = time.time()
        shutil.copytree(data / "appendonlydir", backup)
        await accept(redis, 5, first=2)
        for each in programs:
            await each.look(LOOKS)
        await put_back()
        for each in programs:
            assert await each.told() == "redis_restored"
            (line,) = each.lines.of("redis_restored")
            assert line["events"] == 5
        (shown,) = (await read_overview(Partition.only(redis))).incidents or ()
        assert shown.back_to is not None
        assert saved_at - 60 < shown.back_to <= saved_at < shown.seen_at
        # And once more, to the same backup, of which the programs know another id by now.
        await put_back()
        (again,) = await programs[0].look(LOOKS)
        assert again.what == "restored"


async def test_what_a_fail_over_or_a_crash_takes_of_the_last_moment_is_not_told(
    redis: Redis,
) -> None:
    programs = [Program(redis) for _ in range(3)]
    await accept(redis, 2)
    for each in programs:
        await each.look(LOOKS)
    last = {name: await redis.dump(name) for name in (keys.MARKER, keys.COUNTERS)}
    await accept(redis, 3, first=2)
    for each in reversed(programs):
        await each.look()
    for name, dumped in last.items():
        await redis.restore(name, 0, dumped, replace=True)
    # The one that has seen most of what is gone looks for a while before the others find Redis.
    for each in programs:
        assert await each.look(LOOKS + 1) == []


async def test_what_no_replica_has_got_is_not_told_either(fresh_cluster: StartCluster) -> None:
    """A primary that is cut off counts on, and whatever it counts has been answered by a 503."""
    cluster = fresh_cluster(1, replicas=1)
    primary, replica = cluster.nodes
    url = f"{cluster.url},127.0.0.1:{replica.port}"
    await admit(cluster, "~*", "+@all", "-role")
    async with first_of(f"redis+cluster://u:p@{cluster.hosts}") as redis:
        stranger = Program(redis, Partition.at(0, redis))  # who may not ask for replicas
        assert await stranger.look(LOOKS) == []
        assert int(await redis.hget(stranger.names.marker, "beats") or 0) == LOOKS
    async with first_of(url, connections=20) as redis:
        program = Program(redis, Partition.at(0, redis))
        for number in range(LOOKS + 1):
            await accept(redis, 1, first=number, names=program.names)
            assert await program.look() == []
            assert await redis.execute_command("WAIT", 1, 0) == 1
        replica.kill()
        await accept(redis, 5, first=9, names=program.names)
        assert await program.look(LOOKS + 2) == []
        primary.kill()
        replica.start()
        await ask(replica, "FAILOVER", "TAKEOVER")
        await until_it_works(redis)
        assert await program.look(LOOKS + 2) == []
        # What it has known since is missed as ever.
        await redis.delete(program.names.marker)
        assert [each.what for each in await program.look()] == ["emptied"]


async def test_accepted_events_that_alone_are_missing_are_told(redis: Redis) -> None:
    program = Program(redis)
    await accept(redis, 5)
    await program.look(LOOKS)
    await redis.hset(keys.COUNTERS, "accepted", "3")
    (told,) = await program.look(LOOKS)
    assert (told.what, told.events, told.back_to) == ("restored", 2, None)
    assert told.sentence.endswith(" UTC, 2 accepted events are gone")


async def test_two_that_notice_it_at_once_tell_it_once_each(redis: Redis) -> None:
    programs = [Program(redis) for _ in range(2)]
    await accept(redis, 2)
    for each in programs:
        await each.look(LOOKS)
    await redis.flushall()
    seen = [await each.marker._read() for each in programs]
    for each, found in zip(programs, seen, strict=True):
        happened = each.marker._judge(found, time.time())
        assert happened is not None
        each.marker._past.add(happened.before)
        await each.marker._write_down(happened, found.id)
    assert [await each.look(LOOKS + 1) for each in programs] == [[], []]


async def test_a_program_tells_nothing_of_what_it_has_never_seen(redis: Redis) -> None:
    program = Program(redis)
    assert await program.look(LOOKS) == []
    await redis.flushall()
    assert await program.look(LOOKS) == []  # nothing had been accepted
    await accept(redis, 1)
    await redis.hset(keys.MARKER, "incident", "a later version's")
    assert await program.look(LOOKS) == []
    assert not (await read_overview(Partition.only(redis))).incidents


async def test_a_start_after_a_while_says_since_when_nobody_has_looked(redis: Redis) -> None:
    await Program(redis).look()
    assert (await read_overview(Partition.only(redis))).unwatched_since is msgspec.UNSET
    await redis.hset(keys.MARKER, "at", str(time.time() - 3600))
    overview = await read_overview(Partition.only(redis))
    assert overview.unwatched_since
    assert overview.unwatched_since == pytest.approx(time.time() - 3600, abs=60)
    program = Program(redis)
    assert await program.look(LOOKS) == []
    (line,) = program.lines.of("redis_unwatched")
    assert line["seconds"] == pytest.approx(3600, abs=60)
    assert marker.unwatched_since(overview.unwatched_since) == line["message"]
    assert (await read_overview(Partition.only(redis))).unwatched_since is msgspec.UNSET


async def test_a_program_whose_clock_is_behind_is_there_all_the_same(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: real() - 300)
        await Program(redis).look()
    assert (await read_overview(Partition.only(redis))).unwatched_since is msgspec.UNSET
    newcomer = Program(redis)
    await newcomer.look()
    assert newcomer.lines.events() == []


async def test_while_redis_is_full_nobody_is_said_to_have_been_away(
    fresh_redis_server: StartRedis,
) -> None:
    """Programs look at it all the time, and can't leave a sign."""
    async with Redis.from_url(fresh_redis_server().url) as redis:
        await Program(redis).look()
        await redis.hset(keys.MARKER, "at", str(time.time() - 3600))
        await redis.config_set("maxmemory", 1)
        assert (await read_overview(Partition.only(redis))).unwatched_since is msgspec.UNSET
        newcomer = Program(redis)
        with pytest.raises(OutOfMemoryError):
            await newcomer.look()
        assert newcomer.lines.events() == []


async def test_each_primary_has_a_marker_and_one_that_is_full_or_away_is_no_incident(
    redis: Redis, fresh_redis_server: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marker, "EVERY", 0.01)
    server, lines = fresh_redis_server(), Lines()
    async with Redis.from_url(server.url) as other:
        partitions = over(redis, other)
        names = [partitions.all[number].names.marker for number in range(2)]

        async def beats(number: int) -> int:
            return int(await partitions.all[number].redis.hget(names[number], "beats") or 0)

        async def until_it_goes_on(number: int) -> None:
            before = await beats(number)
            async with asyncio.timeout(20):
                while await beats(number) < before + 3:
                    await asyncio.sleep(0.01)

        async with marker.watching(partitions, lines.log):
            for number in range(2):
                await until_it_goes_on(number)
            await other.config_set("maxmemory", 1)
            server.freeze()
            await until_it_goes_on(0)
            server.thaw()
            await other.config_set("maxmemory", 0)
            await until_it_goes_on(1)
    assert lines.events() == []
    assert await redis.keys("*marker") == [names[0].encode()]


async def test_nobody_looks_where_it_is_not_known_to_be_the_right_one(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marker, "EVERY", 0.001)
    asked = 0

    def may_look(_: Partition) -> bool:
        nonlocal asked
        asked += 1
        return False

    async with marker.watching(Partitions.only(redis), Lines().log, may_look):
        async with asyncio.timeout(20):
            while asked < 5:
                await asyncio.sleep(0.001)
    assert await redis.keys() == []


async def test_what_could_not_be_written_down_is_told_once_all_the_same(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(redis)
    await accept(redis, 2)
    await program.look(LOOKS)
    await redis.flushall()
    execute: Callable[..., Awaitable[Any]] = redis.execute_command

    async def fail(*arguments: Any, after: bool) -> None:
        if after:
            await execute(*arguments)
        raise ConnectionError("reset by peer")

    for after in (False, True):
        with monkeypatch.context() as patched:
            patched.setattr(redis, "execute_command", partial(fail, after=after))
            with pytest.raises(ConnectionError):
                await program.look()
        assert program.lines.events() == []
    assert await program.told() == "redis_emptied"
