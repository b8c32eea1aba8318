"""What a Redis must be like before accepted events are entrusted to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.errors import Problem, Unavailable
from shared.queue.partition import Partition
from shared.queue.writer import Accepted, Queue, wait_commands
from shared.redis.connection import open_redis
from shared.redis.durability import (
    Durability,
    Mode,
    check_durability,
    check_server,
    is_kept,
    without_needless_wait,
)
from shared.settings.redis_url import RedisUrl
from tests.conftest import StartRedis
from tests.integration.jobs import delivery, open_queue
from tests.ports import in_cluster_mode
from tests.tools import tool

FSYNC = Durability(Mode.FSYNC)
REPLICA = Durability(Mode.REPLICA)
MEMORY = Durability(Mode.MEMORY)
NO_AOF = Problem("not_durable", "DURABILITY=fsync: expected appendonly yes, got no")


class Pretending:
    """A real Redis that says other things of itself in INFO, such as an old version."""

    def __init__(self, redis: Redis, **said: object) -> None:
        self._redis = redis
        self._said = said

    async def info(self) -> dict[str, Any]:
        return {**await self._redis.info(), **self._said}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)


def pretending(redis: Redis, **said: object) -> Redis:
    return cast("Redis", Pretending(redis, **said))


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Redis]:
    async with open_redis(RedisUrl(url)) as redis:
        yield redis


async def limited(admin: Redis, url: str, *rules: str) -> str:
    """The URL of a user that may do all but what the rules take away."""
    everything = ("on", ">example", "~*", "&*", "+@all")
    await admin.execute_command("ACL", "SETUSER", "limited", "reset", *everything, *rules)
    return url.replace("redis://", "redis://limited:example@")


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a coroutine answers something true."""
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_a_redis_that_syncs_every_write_keeps_what_it_is_given(redis: Redis) -> None:
    assert await check_server(redis) == []
    assert await check_durability(redis, FSYNC) == []
    assert await check_durability(redis, MEMORY) == []


async def test_without_an_append_only_file_nothing_is_kept(
    fresh_redis_server: StartRedis,
) -> None:
    async with client(fresh_redis_server(appendfsync=None).url) as redis:
        assert await check_durability(redis, FSYNC) == [NO_AOF]
        # Whoever vouches for appendfsync doesn't vouch for a file that isn't there.
        assert await check_durability(redis, Durability(asserted=True)) == [NO_AOF]
        assert await check_durability(redis, MEMORY) == []
        assert await check_server(redis) == []


async def test_where_waitaof_is_a_file_that_is_synced_every_second_will_do(
    fresh_redis_server: StartRedis,
) -> None:
    async with client(fresh_redis_server(appendfsync="everysec").url) as redis:
        assert await check_durability(redis, FSYNC) == []
        assert await without_needless_wait(redis, FSYNC) is FSYNC
        assert await Queue(Partition.only(redis), FSYNC).enqueue([delivery(b"x")]) == [Accepted.NEW]
        assert (await redis.info("commandstats"))["cmdstat_waitaof"]["calls"]


async def test_a_file_that_redis_never_syncs_is_refused(fresh_redis_server: StartRedis) -> None:
    """WAITAOF would only ever run out of time."""
    async with client(fresh_redis_server(appendfsync="no").url) as redis:
        (problem,) = await check_durability(redis, FSYNC)
        assert problem.code == "not_durable"
        assert "expected appendfsync always or everysec, got no on Redis " in problem.message
        hasty = Durability(Mode.FSYNC, timeout=0.01)
        with pytest.raises(Unavailable) as caught:
            await Queue(Partition.only(redis), hasty).enqueue([delivery(b"x")])
        assert caught.value.code == "not_synced"


@pytest.mark.parametrize("appendfsync", ["everysec", "no"])
async def test_who_vouches_for_a_setting_that_can_be_read_is_taken_at_their_word(
    fresh_redis_server: StartRedis, appendfsync: str
) -> None:
    async with client(fresh_redis_server(appendfsync=appendfsync).url) as redis:
        (problem,) = await check_durability(redis, Durability(asserted=True))
        assert problem.code == "not_durable"
        assert (
            "expected appendfsync always, which DURABILITY_ASSERTED vouches for, "
            f"got {appendfsync} on Redis "
        ) in problem.message
        await redis.config_set("appendfsync", "always")
        assert await check_durability(redis, Durability(asserted=True)) == []


async def test_an_append_only_file_that_is_switched_off_later_is_noticed_at_the_next_batch(
    fresh_redis_server: StartRedis,
) -> None:
    async with (
        client(fresh_redis_server().url) as redis,
        open_queue(Partition.only(redis), FSYNC) as writer,
    ):
        assert await writer.accept(delivery(b"x")) is Accepted.NEW
        await redis.config_set("appendonly", "no")
        with pytest.raises(Unavailable):
            await writer.accept(delivery(b"y"))
        assert await check_durability(redis, FSYNC) == [NO_AOF]


async def test_a_user_who_may_not_read_the_configuration_is_no_problem_where_waitaof_is(
    fresh_redis_server: StartRedis,
) -> None:
    server = fresh_redis_server()
    async with (
        client(server.url) as admin,
        client(await limited(admin, server.url, "-config")) as redis,
    ):
        assert await check_durability(redis, FSYNC) == []
        assert await without_needless_wait(redis, FSYNC) is FSYNC


async def test_a_user_who_may_not_ask_anything_is_a_problem(
    fresh_redis_server: StartRedis,
) -> None:
    server = fresh_redis_server()
    problem = Problem("redis_permission", "the Redis user may not do this")
    async with (
        client(server.url) as admin,
        client(await limited(admin, server.url, "-info")) as redis,
    ):
        assert await check_server(redis) == [problem]
        assert await check_durability(redis, MEMORY) == [problem]
        assert await without_needless_wait(redis, FSYNC) is FSYNC


async def test_too_few_replicas_are_a_problem_until_there_are_enough(
    fresh_redis_server: StartRedis,
) -> None:
    primary = fresh_redis_server(appendfsync=None)
    async with client(primary.url) as redis:
        assert await check_durability(redis, REPLICA) == [
            Problem("not_replicated", "DURABILITY=replica: expected 1 connected replicas, got 0")
        ]
        fresh_redis_server(appendfsync=None, replicaof=("127.0.0.1", primary.port))

        async def enough() -> bool:
            return not await check_durability(redis, REPLICA)

        await until(enough)
        two = Durability(Mode.REPLICA, replicas=2)
        assert [problem.message for problem in await check_durability(redis, two)] == [
            "DURABILITY=replica: expected 2 connected replicas, got 1"
        ]

        async def acknowledged() -> bool:
            return bool(await redis.execute_command("WAIT", 1, 100))

        await until(acknowledged)
        assert await Queue(Partition.only(redis), REPLICA).enqueue([delivery(b"x")]) == [
            Accepted.NEW
        ]
        short = Queue(Partition.only(redis), Durability(Mode.REPLICA, replicas=2, timeout=0.01))
        with pytest.raises(Unavailable) as caught:
            await short.enqueue([delivery(b"y")])
        assert caught.value.code == "not_replicated"


async def test_a_redis_that_cannot_write_its_file_takes_nothing(redis: Redis) -> None:
    full = pretending(redis, aof_last_write_status="err")
    assert await check_server(full) == [
        Problem("redis_not_persisting", "Redis can't write to its disk")
    ]


async def test_a_replica_is_no_place_to_write_to(fresh_redis_server: StartRedis) -> None:
    primary = fresh_redis_server()
    replica = fresh_redis_server(replicaof=("127.0.0.1", primary.port))
    async with client(replica.url) as redis:
        problem = Problem("redis_readonly", "expected a primary, got a slave")
        assert await check_server(redis) == [problem]
        assert await check_durability(redis, FSYNC) == [problem]


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_redis_that_evicts_is_refused(fresh_redis_server: StartRedis, policy: str) -> None:
    server = fresh_redis_server(arguments={"maxmemory-policy": policy})
    async with client(server.url) as redis:
        (problem,) = await check_server(redis)
        assert problem == Problem(
            "redis_evicts",
            f"maxmemory-policy: expected noeviction, got {policy}: "
            "accepted events could be evicted",
        )
        assert await check_durability(redis, FSYNC) == [problem]


async def test_a_node_of_a_cluster_is_refused_before_it_refuses_every_delivery(
    fresh_redis_server: StartRedis,
) -> None:
    """INFO alone looks well there: the slots of a node are its own matter."""
    server = fresh_redis_server(arguments=in_cluster_mode())
    async with client(server.url) as redis:
        (problem,) = await check_server(redis)
        assert problem == Problem(
            "redis_cluster",
            "cluster-enabled: expected no, got yes: keys of one event lie apart; "
            "redis+cluster://… is for all its nodes",
        )
        assert await check_durability(redis, FSYNC) == [problem]
        queue = Queue(Partition.only(redis), MEMORY)
        assert await refusal(queue) == "redis_cluster"  # no slot is served yet
        await redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

        async def formed() -> bool:
            return bool("cluster_state:ok" in str(await redis.execute_command("CLUSTER", "INFO")))

        await until(formed)
        assert await refusal(queue) == "redis_cluster"  # all are, but not in one script


async def refusal(queue: Queue) -> str:
    """The code with which a delivery is refused."""
    with pytest.raises(Unavailable) as caught:
        await queue.enqueue([delivery(b"x")])
    return caught.value.code


async def test_all_problems_are_told_at_once(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None, arguments={"maxmemory-policy": "allkeys-lru"})
    async with client(server.url) as redis:
        old = pretending(redis, redis_version="6.2.14")
        codes = [problem.code for problem in await check_durability(old, FSYNC)]
    assert codes == ["redis_too_old", "redis_evicts", "not_durable"]


@pytest.mark.parametrize(
    ("version", "got"),
    [("6.2.14", "6.2"), ("5", "5.0"), ("unstable", "0.0"), (6.0, "6.0")],
)
async def test_an_old_redis_is_refused(redis: Redis, version: object, got: str) -> None:
    old = pretending(redis, redis_version=version)
    assert await check_server(old) == [
        Problem("redis_too_old", f"expected Redis 7.0 or newer, got {got}")
    ]


@pytest.mark.parametrize("version", ["7.0.0", "7.2.4", "8.0.0", "10.1.0", "255.255.255", 8.2])
async def test_a_new_redis_is_taken(redis: Redis, version: object) -> None:
    assert await check_server(pretending(redis, redis_version=version)) == []


async def test_before_waitaof_every_write_must_be_synced_by_the_setting(
    fresh_redis_server: StartRedis,
) -> None:
    async with client(fresh_redis_server(appendfsync="everysec").url) as redis:
        old = pretending(redis, redis_version="7.0.15")
        assert await check_durability(old, FSYNC) == [
            Problem(
                "not_durable",
                "DURABILITY=fsync: expected appendfsync always "
                "(or everysec on Redis 7.2 or newer), got everysec on Redis 7.0",
            )
        ]
        assert await without_needless_wait(old, FSYNC) is FSYNC
        await redis.config_set("appendfsync", "always")
        assert await check_durability(old, FSYNC) == []


async def test_before_waitaof_nothing_is_waited_for_where_every_write_is_synced(
    redis: Redis,
) -> None:
    old = pretending(redis, redis_version="7.0.15")
    found = await without_needless_wait(old, FSYNC)
    assert found == Durability(Mode.FSYNC, asserted=True)
    assert wait_commands(found) == ()
    assert await without_needless_wait(redis, FSYNC) is FSYNC  # a newer one can be asked
    for other in (REPLICA, MEMORY):
        assert await without_needless_wait(old, other) is other


async def test_a_slot_may_go_to_a_node_that_is_new_enough_to_be_asked_and_syncs_later(
    fresh_redis_server: StartRedis,
) -> None:
    durability = Durability(Mode.FSYNC, replicas=0, fails_over=True)
    old = fresh_redis_server(program=tool("redis-server"))
    async with client(old.url) as redis:
        fitted = await without_needless_wait(redis, durability)
        queue = Queue(Partition.only(redis), durability)
        with pytest.raises(Unavailable):
            await queue.enqueue([delivery(b"x")])
        await queue.fit()
        assert await queue.enqueue([delivery(b"y")]) == [Accepted.NEW]
    async with client(fresh_redis_server(appendfsync="everysec").url) as redis:
        queue = Queue(Partition.only(redis), fitted)
        assert await queue.enqueue([delivery(b"x")]) == [Accepted.NEW]
        assert "cmdstat_waitaof" in await redis.info("commandstats")


async def test_before_waitaof_whoever_may_not_read_the_setting_may_vouch_for_it(
    fresh_redis_server: StartRedis,
) -> None:
    server = fresh_redis_server()
    async with (
        client(server.url) as admin,
        client(await limited(admin, server.url, "-config")) as redis,
    ):
        old = pretending(redis, redis_version="7.0.15")
        (problem,) = await check_durability(old, FSYNC)
        assert problem.code == "not_durable"
        assert problem.message.endswith(
            "got Redis 7.0 and no permission; DURABILITY_ASSERTED=1 vouches for appendfsync always"
        )
        assert await without_needless_wait(old, FSYNC) is FSYNC
        assert await check_durability(old, Durability(asserted=True)) == []


async def test_a_redis_that_hides_the_setting_is_one_that_may_not_be_read(redis: Redis) -> None:
    class Hiding(Pretending):
        async def config_get(self, _name: str) -> dict[str, str]:
            return {}  # as some hosted ones answer

    old = cast("Redis", Hiding(redis, redis_version="7.0.15"))
    (problem,) = await check_durability(old, FSYNC)
    assert "no permission" in problem.message


async def test_a_redis_that_says_nothing_of_itself_is_refused(redis: Redis) -> None:
    class Silent(Pretending):
        async def info(self) -> dict[str, Any]:
            return {}

    codes = [problem.code for problem in await check_server(cast("Redis", Silent(redis)))]
    assert codes == ["redis_too_old", "redis_readonly", "redis_evicts"]


async def test_a_redis_that_is_gone_is_a_problem_and_no_exception(
    fresh_redis_server: StartRedis,
) -> None:
    server = fresh_redis_server()
    async with client(server.url) as redis:
        assert await check_server(redis) == []
        server.stop()
        ended = Problem("redis_unreachable", "no connection to Redis")
        refused = Problem("redis_unreachable", "no connection to Redis: connection refused")
        assert await check_server(redis) == [ended]
        for durability in (FSYNC, REPLICA, MEMORY):
            assert await check_durability(redis, durability) == [refused]
            assert await without_needless_wait(redis, durability) is durability


async def test_a_redis_that_is_still_loading_takes_nothing_yet(
    fresh_redis_server: StartRedis,
) -> None:
    """INFO is answered while it loads, though no write is."""
    server = fresh_redis_server(appendfsync=None)
    expected = [Problem("redis_loading", "Redis is loading its data")]
    async with client(server.url) as redis, Redis.from_url(server.url) as admin:
        await slow_down_loading(admin)
        loading = asyncio.create_task(admin.execute_command("DEBUG", "RELOAD"))

        async def seen() -> bool:
            return await check_server(redis) == expected

        await until(seen)
        with pytest.raises(Unavailable) as caught:
            await Queue(Partition.only(redis), MEMORY).enqueue([delivery(b"x")])
        assert caught.value.code == "redis_loading"
        assert await check_durability(redis, MEMORY) == expected
        await redis.config_set("key-load-delay", 0)
        await loading
        assert await check_server(redis) == []


async def slow_down_loading(admin: Redis) -> None:
    """A millisecond a key, twenty seconds in all, but commands are answered meanwhile."""
    await admin.execute_command("DEBUG", "POPULATE", 20_000)
    await admin.config_set("loading-process-events-interval-bytes", 1024)
    await admin.config_set("key-load-delay", 1000)


async def test_what_survives_a_crash_is_known(fresh_redis_server: StartRedis) -> None:
    """With every replica that there is, and on the disk where there is a file."""
    write = ("HINCRBY", "a", "b", 1)
    primary = fresh_redis_server(appendfsync="everysec")
    replica = fresh_redis_server(appendfsync=None, replicaof=("127.0.0.1", primary.port))
    async with client(primary.url) as redis, client(replica.url) as other:
        async with asyncio.timeout(20):
            while not (await redis.info("replication"))["connected_slaves"]:
                await asyncio.sleep(0.01)
            while not await is_kept(redis, write, 5):
                pass
        assert await redis.hget("a", "b") == await other.hget("a", "b")
        replica.freeze()
        assert not await is_kept(redis, write, 0.05)
        replica.thaw()
        assert await is_kept(pretending(redis, redis_version="7.0.0"), write, 20)
    memory = fresh_redis_server(appendfsync=None)
    async with client(memory.url) as redis:
        assert await is_kept(redis, write, 0.05)
        with pytest.raises(ResponseError):
            await is_kept(redis, ("HINCRBY", "a"), 0.05)
