"""The benchmark's driver does to each event what an ingress and a worker do."""

import pytest
from redis.asyncio import Redis

from shared.queue.partition import Partition
from tests.bench.driving import FULL, FULL_ACCEPTED, Driver
from tests.bench.environments import CannotRunError

NUMBER = FULL_ACCEPTED + FULL


async def test_it_accepts_and_handles_all_that_it_is_told_to_in_full_batches(redis: Redis) -> None:
    partition = Partition.at(3, redis)
    driver = Driver(partition, 4)
    # The first of a script goes by its text.
    await driver.accept(1, "Z")
    await driver.handle(1)
    before = await scripts_run(redis)
    await driver.accept(NUMBER, "A")
    assert await redis.zcard(partition.names.accepted) == NUMBER
    assert await scripts_run(redis) - before == 2
    await driver.handle(NUMBER)
    assert await redis.zcard(partition.names.accepted) == 0
    marks = [
        await redis.get(name) async for name in redis.scan_iter(partition.names.event("*", "*"))
    ]
    assert len(marks) == NUMBER + 1
    assert all(mark.startswith(b"done:") for mark in marks)


async def test_it_says_so_where_there_are_fewer(redis: Redis) -> None:
    driver = Driver(Partition.at(0, redis), 1)
    await driver.accept(1, "A")
    with pytest.raises(CannotRunError, match="1 of 2 events are not there"):
        await driver.handle(2)


async def scripts_run(redis: Redis) -> int:
    """How often a script was asked for by its digest, and there."""
    found = (await redis.info("commandstats")).get("cmdstat_evalsha", {})
    return int(found.get("calls", 0)) - int(found.get("failed_calls", 0))
