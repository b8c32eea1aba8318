"""Facts about thousands of organizations: no script of a worker's life is long for them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.endpoints.endpoint import Rate
from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.by_hand import Hand
from tests.integration.jobs import account, delivery, enqueued
from worker.operate.overview import read_overview
from worker.pipeline.transitions import Profile

MANY = 2_000


@pytest.fixture
async def hand(redis: Redis) -> Hand:
    return Hand(redis)


def profiles(number: int = MANY, weight: float = 1.0) -> list[Profile]:
    rate = Rate.parse("5/s")
    return [
        Profile(f"org_{n}", n % 3 or None, weight, rate if n % 2 else None) for n in range(number)
    ]


async def scripts_run(redis: Redis) -> list[Any]:
    """The calls of scripts since the slow log was emptied, each with its arguments."""
    return [
        each["command"].split()
        for each in await redis.slowlog_get(10_000)
        if each["command"].upper().startswith(b"EVAL")
    ]


async def log_all(redis: Redis) -> None:
    await redis.config_set("slowlog-log-slower-than", 0)
    await redis.config_set("slowlog-max-len", 10_000)
    await redis.slowlog_reset()


@pytest.fixture
async def noted(redis: Redis) -> AsyncIterator[None]:
    """Have Redis note every command, as long as the test runs."""
    before = await redis.config_get("slowlog-*")
    await log_all(redis)
    yield
    for name, value in before.items():
        await redis.config_set(name, value)


@pytest.mark.usefixtures("noted")
async def test_only_what_is_news_is_published_and_some_at_a_time(redis: Redis, hand: Hand) -> None:
    await hand.transitions.publish(
        [Profile("org_a")]
    )  # the script's text comes with the first call
    await redis.slowlog_reset()
    await hand.transitions.publish(profiles())
    assert len(await scripts_run(redis)) == 4
    kept = await redis.hgetall(keys.ORGANIZATIONS), await redis.hgetall(keys.RATES)
    assert (len(kept[0]), len(kept[1])) == (MANY + 1, MANY // 2)
    await redis.slowlog_reset()
    await Hand(redis).transitions.publish(profiles())  # as another worker's start does
    assert await scripts_run(redis) == []
    changed = profiles()
    changed[7] = Profile("org_7", 9, 0.5)
    changed[1500] = Profile("org_1500", None, 2.0, Rate.parse("1/m"))
    await hand.transitions.publish(changed)
    assert len(await scripts_run(redis)) == 2
    assert await redis.hget(keys.ORGANIZATIONS, "org_7") == b"9:0.5"
    assert await redis.hget(keys.RATES, "org_7") is None  # it had one
    assert await redis.hget(keys.RATES, "org_1500") is not None
    await redis.delete(keys.ORGANIZATIONS)
    await hand.transitions.publish(changed)
    assert await redis.hlen(keys.ORGANIZATIONS) == MANY


async def test_more_slots_reach_those_who_have_something_parked(redis: Redis, hand: Hand) -> None:
    others = [delivery(b'{"n":%d}' % n, f"org_{n}") for n in range(50)]
    mine = [delivery(b'{"m":%d}' % n, "org_a") for n in range(9)]
    await renew(hand, "w1", slots=5)  # four of them for one organization
    await enqueued(redis, *mine)
    assert len(await hand.claim(9)) == 4
    await enqueued(redis, *others)
    assert len((await account(redis)).parked) == 5
    assert await redis.smembers(keys.HELD_BACK) == {b"org_a"}
    await renew(hand, "w2", slots=5)  # eight
    assert len((await account(redis)).parked) == 1
    claims = await hand.claim(100)
    assert len([each for each in claims if each.job.startswith("org_a:")]) == 4


async def test_who_has_nothing_parked_any_more_is_forgotten(redis: Redis, hand: Hand) -> None:
    await redis.sadd(keys.HELD_BACK, *(f"org_{n}" for n in range(30)))
    for _ in range(30):
        await renew(hand, "w1", slots=5)
    assert await redis.exists(keys.HELD_BACK) == 0


@pytest.mark.usefixtures("noted")
async def test_an_overview_holds_nobody_up(redis: Redis) -> None:
    many = {f"org_{n}": n + 1 for n in range(10 * MANY)}
    await redis.hset(keys.ORGANIZATIONS, mapping=dict.fromkeys(many, "2:1.0"))
    await redis.hset(keys.ORGANIZATIONS, f"pause:org_{MANY}", "why")
    await redis.hset(keys.RATES, mapping=dict.fromkeys(many, "200.0:100.0"))
    await redis.hset(keys.WAITING, mapping={name: str(n) for name, n in many.items()})
    await redis.hset(keys.BYTES, mapping={f"{name}:dead": "7" for name in many})
    await redis.slowlog_reset()
    overview = await read_overview(Partition.only(redis))
    assert {each.organization: each.waiting for each in overview.organizations} == many
    assert all(
        (each.cap, each.rate, each.bytes_held) == (2, 5, 7) for each in overview.organizations
    )
    (paused,) = [each for each in overview.organizations if each.paused]
    assert paused.organization == f"org_{MANY}"
    commands = [each["command"].split() for each in await redis.slowlog_get(10_000)]
    whole = {words[1].decode() for words in commands if words[0].upper() == b"HGETALL"}
    assert whole == {
        keys.WORKERS,
        keys.WORKERS_NOW,
        keys.WORKERS_LOST,
    }  # as many as there are workers
    scans = [words for words in commands if words[0].upper() == b"HSCAN"]
    assert 4 * 40 <= len(scans) <= 4 * 60


async def renew(hand: Hand, worker: str, *, slots: int) -> None:
    await hand.transitions.renew(worker, [], description=b"{}", slots=slots, lease=30)
