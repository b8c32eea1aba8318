"""Durability where a replica may take the primary's place: its disk is waited for as well."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from time import monotonic

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from shared.errors import Problem, Unavailable
from shared.queue.partition import Partition
from shared.queue.writer import Accepted, Queue
from shared.redis.connection import open_redis
from shared.redis.durability import (
    Durability,
    Mode,
    check_durability,
    check_replicas,
    count_left_out,
    without_needless_wait,
)
from shared.settings.redis_url import RedisUrl
from tests.integration.jobs import delivery
from tests.integration.sentinels import Fleet, fleet
from tests.integration.test_durability import pretending

pytestmark = pytest.mark.asyncio(loop_scope="module")

FSYNC = Durability(Mode.FSYNC, fails_over=True)


@pytest.fixture(scope="module")
def servers() -> Iterator[Fleet]:
    with fleet(sentinels=1) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def redis(servers: Fleet) -> AsyncIterator[Redis]:
    async with open_redis(RedisUrl(servers.url)) as redis:
        async with asyncio.timeout(20):
            # One that has just connected has its file off until it has copied everything.
            while not (await redis.execute_command("WAITAOF", 1, 1, 100))[1]:
                await redis.incr("written")
        yield redis


@pytest_asyncio.fixture(loop_scope="module")
async def replica(servers: Fleet) -> AsyncIterator[Redis]:
    async with Redis(port=servers.servers[1].port) as replica:
        yield replica


async def test_a_replica_that_syncs_always_has_it_at_once(redis: Redis) -> None:
    """Asked once a batch, it would answer by its clock: a second each."""
    queue = Queue(Partition.only(redis), FSYNC)
    assert await check_durability(redis, FSYNC) == await check_replicas(redis, FSYNC) == []
    begun = monotonic()
    for number in range(10):
        assert await queue.enqueue([delivery(b"%d" % number)]) == [Accepted.NEW]
    assert monotonic() - begun < 5


async def test_too_few_replicas_refuse_as_with_replica(redis: Redis) -> None:
    two = Durability(Mode.FSYNC, replicas=2, timeout=0.1, fails_over=True)
    message = "DURABILITY=fsync with Sentinel: expected 2 connected replicas, got 1"
    assert await check_durability(redis, two) == [Problem("not_replicated", message)]
    assert await refusal(Queue(Partition.only(redis), two)) == (
        "not_replicated: 1 of 2 replicas synced their append-only file in time"
    )


async def test_replicas_that_are_not_waited_for_may_be_promoted_all_the_same(redis: Redis) -> None:
    assert await count_left_out(redis, FSYNC) == 0

    larger = pretending(redis, connected_slaves=3)
    assert await count_left_out(larger, FSYNC) == 2
    assert await count_left_out(larger, Durability(Mode.REPLICA, replicas=2, fails_over=True)) == 1
    assert await count_left_out(larger, Durability(Mode.MEMORY, fails_over=True)) == 0
    assert await count_left_out(larger, Durability(Mode.FSYNC)) == 0  # nobody knows of a fail-over


async def refusal(queue: Queue) -> str:
    """Why a delivery is refused."""
    with pytest.raises(Unavailable) as caught:
        await queue.enqueue([delivery(b"x")])
    return str(caught.value)


@pytest.mark.parametrize(
    ("setting", "wrong", "right", "expected"),
    [
        ("appendonly", "no", "yes", "appendonly yes, got no"),
        ("appendfsync", "no", "always", "appendfsync always or everysec, got no on Redis "),
    ],
)
async def test_replicas_that_sync_nothing_are_told_before_each_batch_is_refused(
    *, redis: Redis, replica: Redis, setting: str, wrong: str, right: str, expected: str
) -> None:
    await replica.config_set(setting, wrong)
    try:
        assert await check_durability(redis, FSYNC) == []
        (problem,) = await check_replicas(redis, FSYNC)
        assert problem.code == "not_durable"
        port = replica.connection_pool.connection_kwargs["port"]
        assert problem.message.startswith(
            "DURABILITY=fsync with Sentinel: expected 1 replicas that sync what they get, got 0: "
            f"127.0.0.1:{port}: expected {expected}"
        )
        said = await refusal(Queue(Partition.only(redis), FSYNC))
        assert said.startswith("not_replicated: 0 of 1 replicas")
        assert await check_replicas(redis, Durability(Mode.REPLICA, fails_over=True)) == []
    finally:
        await replica.config_set(setting, right)


async def test_a_replica_that_cannot_be_asked_is_taken_for_a_good_one(
    redis: Redis, replica: Redis
) -> None:
    """Its network may let the primary in alone."""
    await replica.config_set("appendonly", "no")
    await replica.config_set("requirepass", "of_its_own")
    try:
        assert await check_replicas(redis, FSYNC) == []
    finally:
        await replica.config_set("requirepass", "")
        await replica.config_set("appendonly", "yes")


async def test_a_redis_that_is_too_old_to_ask_its_replicas_is_refused(redis: Redis) -> None:
    old = pretending(redis, redis_version="7.0.15")
    message = (
        "DURABILITY=fsync with Sentinel: expected Redis 7.2 or newer (WAITAOF), got 7.0; "
        "DURABILITY=replica does without"
    )
    for asserted in (False, True):  # nobody can vouch for a replica's disk
        durability = Durability(Mode.FSYNC, asserted=asserted, fails_over=True)
        assert await check_durability(old, durability) == [Problem("not_durable", message)]
        assert await without_needless_wait(old, durability) is durability
    assert await check_durability(old, Durability(Mode.REPLICA, fails_over=True)) == []


async def test_where_several_may_be_promoted_somebody_has_to_say_how_many_are_waited_for(
    redis: Redis,
) -> None:
    for mode in (Mode.FSYNC, Mode.REPLICA):
        unsaid = Durability(mode, fails_over=True)
        assert await check_replicas(redis, unsaid) == []  # there is but one
        (problem,) = await check_replicas(pretending(redis, connected_slaves=2), unsaid)
        assert problem.code == "not_durable"
        assert problem.message == (
            "WAIT_REPLICAS: expected a number, since Sentinel may promote any of 2 replicas "
            "(2 loses nothing at a fail-over, fewer may lose accepted events), got none"
        )
        said = Durability(mode, fails_over=True, is_said=True)
        assert await check_replicas(pretending(redis, connected_slaves=2), said) == []


async def test_who_is_refused_asks_anew_who_the_primary_is(redis: Redis) -> None:
    """One that is cut off from its replicas answers all the same."""
    queue = Queue(
        Partition.only(redis), Durability(Mode.FSYNC, replicas=2, timeout=0.1, fails_over=True)
    )
    number = await queue._wire.execute_command("CLIENT", "ID")
    assert (await refusal(queue)).startswith("not_replicated")
    assert await queue._wire.execute_command("CLIENT", "ID") != number
