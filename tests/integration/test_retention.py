"""Facts about dead letters that nobody acts on."""

from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.jobs import counters, mark_of
from tests.integration.kept_up import keep_up
from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization, Reject
from worker.operate import revival
from worker.operate.revival import replay_one
from worker.operate.upkeep import expire


def rejecting(redis: Redis) -> Workplace:
    handlers = Handlers()

    @handlers.on("*")
    async def rejects(_event: Event[Any], _: Organization) -> None:
        raise Reject("no")

    return Workplace(redis, handlers)


async def test_only_the_old_ones_go_and_their_marks_with_them(redis: Redis) -> None:
    place = rejecting(redis)
    for number in (1, 2, 3):
        await place.handle(body(f"evt_{number}"))
    jobs = await redis.zrange(keys.dead("org_a"), 0, -1)
    await redis.zincrby(keys.dead("org_a"), -60_000, jobs[0])

    await expire(Partition.only(redis), retention=59, log=place.lines.log)
    assert [line["number"] for line in place.lines.of("dead_letters_expired")] == [1]
    assert await redis.zrange(keys.dead("org_a"), 0, -1) == jobs[1:]
    assert await mark_of(redis, "evt_1") is None
    assert await mark_of(redis, "evt_2") is not None
    assert (await counters(redis))["expired"] == 1
    assert await redis.hgetall(keys.BURIED) == {b"org_a": b"2"}


async def test_of_thousands_of_organizations_only_who_has_old_ones_is_looked_at(
    redis: Redis,
) -> None:
    place = rejecting(redis)
    await place.handle(body("evt_1"))
    (job,) = await redis.zrange(keys.dead("org_a"), 0, -1)
    await redis.zincrby(keys.dead("org_a"), -60_000, job)
    seconds, _ = await redis.time()
    others = [f"org_{number}" for number in range(1_200)]
    await redis.hset(keys.BURIED, mapping=dict.fromkeys(others, 1))
    async with redis.pipeline(transaction=False) as pipe:
        for name in others:
            pipe.zadd(keys.dead(name), {f"{name}:job": seconds * 1000})
        await pipe.execute()
    await redis.config_resetstat()
    await expire(Partition.only(redis), retention=59, log=place.lines.log)
    calls = await redis.info("commandstats")
    assert [line["number"] for line in place.lines.of("dead_letters_expired")] == [1]
    scripts = sum(
        calls.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha")
    )
    assert scripts <= 2  # by its text where Redis doesn't know the digest


async def test_one_that_is_being_replayed_stays_until_it_has_ended(redis: Redis) -> None:
    place = rejecting(redis)
    await place.handle(body("evt_1"))
    (job,) = await redis.zrange(keys.dead("org_a"), 0, -1)
    await redis.zincrby(keys.dead("org_a"), -60_000, job)
    assert await replay_one(Partition.only(redis), job.decode()) == "queued"

    await expire(Partition.only(redis), retention=59, log=place.lines.log)
    assert place.lines.of("dead_letters_expired") == []
    assert await mark_of(redis, "evt_1") == f"dead:{job.decode()}"


async def test_those_that_wait_keep_none_of_the_others(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of an organization that is paused, and that somebody has replayed before."""
    monkeypatch.setattr(revival, "_EXPIRED_AT_ONCE", 3)
    place, partition = rejecting(redis), Partition.only(redis)
    for number in range(12):
        await place.handle(body(f"evt_{number}"))
    jobs = [job.decode() for job in await redis.zrange(keys.dead("org_a"), 0, -1)]
    await redis.zadd(keys.dead("org_a"), {job: n + 1 for n, job in enumerate(jobs)})
    waiting = [*jobs[:4], jobs[7]]
    for job in waiting:
        assert await replay_one(partition, job) == "queued"
    await expire(partition, retention=59, log=place.lines.log)
    assert place.lines.of("dead_letters_expired")[0]["number"] == 7
    left = [job.decode() for job in await redis.zrange(keys.dead("org_a"), 0, -1)]
    assert left == waiting


async def test_a_worker_looks_by_itself_as_an_arq_cron_job(redis: Redis) -> None:
    place = rejecting(redis)
    await place.handle(body("evt_1"))
    (job,) = await redis.zrange(keys.dead("org_a"), 0, -1)
    await redis.zincrby(keys.dead("org_a"), -60_000, job)

    async def is_told() -> bool:
        return "dead_letters_expired" in place.lines.events()

    await keep_up(
        place, partial(expire, Partition.only(redis), retention=59, log=place.lines.log), is_told
    )
    assert place.lines.of("dead_letters_expired")[0]["number"] == 1
