"""Facts about virtual times near their end: they begin anew, and nobody loses a place."""

import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.job import job_id
from shared.queue.partition import Partition
from tests.acceptance import earlier
from tests.integration.by_hand import Hand
from tests.integration.jobs import NOTHING, account, counters, delivery, enqueued
from tests.integration.test_fairness import handled, share, wait
from tests.integration.workplace import Lines
from worker.operate import organizations, upkeep
from worker.pipeline.transitions import Settled

END = float(keys.DEFERRED_FROM)


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis)


async def renumber(redis: Redis) -> bool:
    """Do what upkeep does; whether they began anew."""
    lines = Lines()
    await upkeep.renumber(Partition.only(redis), log=lines.log)
    return lines.events() == ["virtual_times_renumbered"]


async def system_time(redis: Redis) -> float:
    return float(await redis.hget(keys.FLOWS, "*") or 0)


# The same life, whether they begin anew in the midst of it or not


Rest = Callable[[Redis, Hand], Awaitable[list[str]]]
"""Handles all that is left; its jobs, in the order in which they were claimed."""


async def rest_of_it(_: Redis, hand: Hand) -> list[str]:
    order: list[str] = []
    while claims := await hand.claim(3):
        order += [claim.job for claim in claims]
        await hand.finish(claims)
    return order


async def life(
    redis: Redis, hand: Hand, *, start: float, ends: bool, rest: Rest = rest_of_it
) -> list[str]:
    """Of three organizations; all jobs in the order in which they are given."""
    await redis.flushall()
    await redis.hset(keys.FLOWS, "*", f"{start:.17g}")
    await hand.cap(1, "org_a", 4.0)
    for organization, weight in (("org_a", 4.0), ("org_b", 1.0), ("org_c", 2.0)):
        sent = [delivery(b"%d" % n, organization, weight=weight) for n in range(40)]
        await enqueued(redis, *sent)
    first = await hand.claim(12)
    late, again, *others = [claim for claim in first if not claim.job.startswith("org_a")]
    (in_order,) = [claim for claim in first if claim.job.startswith("org_a")]
    await hand.retry(late)
    await hand.finish(others)
    await organizations.pause(Partition.only(redis), "org_c", "why")
    held = await hand.claim(8)
    assert (await account(redis)).parked
    if ends:
        assert await renumber(redis)
        assert await system_time(redis) <= 2
    await hand.release(again)
    await hand.retry(in_order)  # keeps its slot, and its place
    await hand.come_due(late.job)
    await hand.come_due(in_order.job)
    await organizations.resume(Partition.only(redis), "org_c", starts=1e6)
    await hand.finish(held)
    await enqueued(redis, delivery(b"new", "org_d"), delivery(b"new", "org_b"))
    order = [claim.job for claim in first + held] + await rest(redis, hand)
    assert await account(redis) == NOTHING
    return order


async def test_order_and_shares_go_on_as_if_nothing_had_happened(redis: Redis, hand: Hand) -> None:
    expected = await life(redis, hand, start=0, ends=False)
    assert await life(redis, hand, start=END - 1_000, ends=True) == expected
    assert await system_time(redis) < 1_000
    mine = [job for job in expected if job.startswith("org_a:")]
    assert mine[:2] == [mine[0]] * 2  # it came back to its place
    assert mine[1:] == [job_id("org_a", b"%d" % n) for n in range(40)]


async def test_an_earlier_versions_worker_goes_on_with_them(
    redis: Redis, hand: Hand, tmp_path: Path
) -> None:
    earlier.unpack(tmp_path)
    url = "redis://{host}:{port}/{db}".format(**redis.connection_pool.connection_kwargs)

    async def by_an_earlier_one(*_: Any) -> list[str]:
        process = await create_subprocess_exec(
            *(sys.executable, "-c", REST_OF_IT, url), cwd=tmp_path, stdout=PIPE
        )
        answer = await process.communicate()
        return msgspec.json.decode(answer[0], type=list[str])

    expected = await life(redis, hand, start=0, ends=False, rest=by_an_earlier_one)
    assert len(expected) > 122
    after = await life(redis, hand, start=END - 1_000, ends=True, rest=by_an_earlier_one)
    assert after == expected


REST_OF_IT = """
import asyncio, json, sys
from redis.asyncio import Redis
from tests.integration.by_hand import Hand

async def rest_of_it():
    hand, order = Hand(Redis.from_url(sys.argv[1])), []
    while claims := await hand.claim(3):
        order += [claim.job for claim in claims]
        await hand.finish(claims)
    print(json.dumps(order))

asyncio.run(rest_of_it())
"""


# When


@pytest.mark.parametrize(
    ("system", "jobs", "begins"),
    [
        (5e10, 0, False),
        (1e11, 1_000, True),
        (2e11, 6_000, False),
        (5e11, 6_000, True),
        (9e11, 6_000, True),
    ],
)
async def test_the_later_the_more_may_wait(
    redis: Redis, system: float, jobs: int, begins: Any
) -> None:
    await redis.hset(keys.FLOWS, "*", f"{system:.17g}")
    await wait(redis, jobs, "org_a")
    assert await renumber(redis) is begins
    assert (await counters(redis)).get("renumbered", 0) == int(begins)
    queue = await redis.zrange(keys.QUEUE, 0, -1, withscores=True)
    first = 1 if begins else system
    assert all(first <= score <= first + jobs + 2 for _, score in queue)


# Where nobody has seen to it


async def test_a_queue_at_the_end_goes_on_until_they_begin_anew(redis: Redis, hand: Hand) -> None:
    await redis.hset(keys.FLOWS, "*", f"{END - 5:.17g}")
    await wait(redis, 50, "org_a")
    await wait(redis, 50, "org_b")
    assert all(score < END for _, score in await redis.zrange(keys.QUEUE, 0, -1, withscores=True))
    (claim, *others) = await hand.claim(10)
    assert await hand.retry(claim) is Settled.RETRIED
    await hand.come_due(claim.job)
    await hand.finish(others)
    await handled(hand, 11)
    assert await renumber(redis)
    await handled(hand, 80, 10)
    assert await account(redis) == NOTHING
    await wait(redis, 50, "org_a")
    await wait(redis, 50, "org_b")
    assert share(await handled(hand, 40, 10), "org_b") == 20


async def test_places_beyond_the_end_come_up_again(redis: Redis, hand: Hand) -> None:
    """As an earlier version has left them: moments in the year 2001."""
    jobs = await wait(redis, 3, "org_a")
    await redis.hset(keys.FLOWS, mapping={"*": f"{END - 0.5:.17g}", "org_a": f"{END + 2:.17g}"})
    await redis.zadd(keys.QUEUE, {job: END + n for n, job in enumerate(jobs)})
    assert sorted(await handled(hand, 3)) == sorted(jobs)


async def test_what_somebodys_hand_has_written_stops_nothing(redis: Redis, hand: Hand) -> None:
    await wait(redis, 3, "org_a")
    await hand.claim(1)
    await redis.hset(
        keys.FLOWS, mapping={"*": f"{END - 9:.17g}", "org_b": "nan", "retry:org_b": "-inf"}
    )
    await redis.hset(keys.CLAIMS, mapping={"org_b:1": "rubbish", "org_b:2": ":0:0:x:"})
    await redis.sadd(keys.HELD_BACK, "org_nobody")
    assert await renumber(redis)
    assert await redis.hget(keys.CLAIMS, "org_b:1") == b"rubbish"
    await handled(hand, 2)
