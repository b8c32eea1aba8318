"""How an organization's events go on after they have waited: slowly, and at its rate."""

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.endpoints.endpoint import Rate
from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.by_hand import LATER, RETENTION, Hand
from tests.integration.jobs import NOTHING, account, bodies, delivery, enqueue
from tests.integration.test_rates import MINUTE, accepted, at_a_rate, settle
from worker.operate import organizations
from worker.pipeline.policy import Breaker
from worker.pipeline.transitions import (
    Profile,
    Settled,
    Settlement,
)


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis, has_turns=True)


async def held_up(redis: Redis, hand: Hand, number: int) -> list[str]:
    await hand.cap(100)
    jobs = await accepted(redis, number)
    await organizations.pause(Partition.only(redis), "org_a", "a test")
    assert await hand.claim(100) == []
    return jobs


async def a_second_passes(redis: Redis) -> None:
    since, *rest = (await redis.hget(keys.RATES, "ramp:org_a") or b"").decode().split(":")
    await redis.hset(keys.RATES, "ramp:org_a", ":".join((str(int(since) - 1000), *rest)))
    await redis.hset(keys.RATES, "next:org_a", "0")
    await redis.zadd(keys.DUE, {"rate:org_a": 1}, xx=True)


async def test_what_was_paused_begins_slowly_and_twice_as_fast_each_second(
    redis: Redis, hand: Hand
) -> None:
    jobs = await held_up(redis, hand, 40)
    await organizations.resume(Partition.only(redis), "org_a")
    first = await hand.claim(100)
    assert [claim.job for claim in first] == jobs[:10]
    assert await hand.claim(100) == []
    await a_second_passes(redis)
    credit = 3  # a tenth of a second's at 20/s, and the one that is due
    assert len(await hand.claim(100)) == credit
    while await redis.exists(keys.RATES):
        await a_second_passes(redis)
        assert await hand.claim(100)
    found = await account(redis)
    assert (found.parked, found.queued) == (set(), set())


async def test_an_operator_says_how_fast_it_goes_on(redis: Redis, hand: Hand) -> None:
    await held_up(redis, hand, 40)
    await organizations.resume(Partition.only(redis), "org_a", starts=50)
    assert len(await hand.claim(100)) == 6  # a tenth of a second's, and the one that is due
    await organizations.resume(Partition.only(redis), "org_a", starts=1e6)
    assert len(await hand.claim(100)) == 34
    assert await redis.hgetall(keys.RATES) == {}


async def test_so_it_is_after_a_hold_and_after_a_breaker(redis: Redis, hand: Hand) -> None:
    await hand.cap(100)
    await accepted(redis, 40)
    (claim,) = await hand.claim(1)
    (settled,) = await hand.transitions.settle([Settlement(claim, "throttle", (LATER, "429"))])
    assert settled is Settled.THROTTLED
    assert await hand.claim(100) == []
    await redis.zadd(keys.DUE, {"hold:org_a": 1})
    assert len(await hand.claim(100)) == 10
    await organizations.resume(Partition.only(redis), "org_a", starts=1e6)

    (claim,) = await hand.claim(1)
    breaker = Breaker(failures=1, share=0, sample=1, cool_off=3600).packed()
    await hand.transitions.settle([Settlement(claim, "retry", (LATER, breaker))])
    assert await hand.claim(100) == []
    await organizations.resume(Partition.only(redis), "org_a")
    assert len(await hand.claim(100)) == 10


async def test_a_rate_of_its_own_holds_in_a_slow_beginning(redis: Redis, hand: Hand) -> None:
    await held_up(redis, hand, 5)
    await at_a_rate(hand)
    await organizations.resume(Partition.only(redis), "org_a")
    assert len(await hand.claim()) == 1


async def test_where_nothing_waits_there_is_no_slow_beginning(redis: Redis, hand: Hand) -> None:
    await organizations.pause(Partition.only(redis), "org_a", "a test")
    await organizations.resume(Partition.only(redis), "org_a")
    assert await redis.exists(keys.RATES) == 0
    await enqueue(redis, *(delivery(each) for each in bodies(40)))
    claims = await hand.claim(40)
    assert len(claims) == 40
    await hand.finish(claims)
    assert await account(redis) == NOTHING


async def test_a_breaker_that_was_never_open_begins_nothing_slowly(
    redis: Redis, hand: Hand
) -> None:
    """A failure that is forgotten, since so much has gone well, held nobody up."""
    await hand.cap(1)
    await accepted(redis, 3)
    (claim,) = await hand.claim()
    await hand.mark(claim)
    await redis.hset(keys.ORGANIZATIONS, f"{keys.BREAKER}org_a", "closed:0:99:1")
    assert await settle(hand, claim, "done", (RETENTION, (), (), True, 0)) is Settled.DONE
    assert await redis.hgetall(keys.RATES) == {}


async def test_a_slow_beginning_ends_once_redis_has_another_clock(redis: Redis, hand: Hand) -> None:
    await held_up(redis, hand, 40)
    await organizations.resume(Partition.only(redis), "org_a")
    later, *rest = (await redis.hget(keys.RATES, "ramp:org_a") or b"").decode().split(":")
    await redis.hset(keys.RATES, "ramp:org_a", ":".join((str(int(later) + 3 * MINUTE), *rest)))
    await redis.zadd(keys.DUE, {"rate:org_a": 1}, xx=True)
    assert len(await hand.claim(100)) == 40


async def test_a_rate_holds_however_its_numbers_are_written(redis: Redis, hand: Hand) -> None:
    """The slowest one a second, and the credit of many, have exponents."""
    await held_up(redis, hand, 5)
    await organizations.resume(Partition.only(redis), "org_a", starts=1 / 86_400)
    assert len(await hand.claim()) == 1
    await accepted(redis, 1, "org_b")
    await hand.transitions.publish([Profile("org_b", rate=Rate.parse("1/h", 10**12))])
    assert len(await hand.claim()) == 1
    assert await redis.hexists(keys.RATES, "next:org_b")


async def test_a_slow_beginning_ends_with_the_last_that_waits(redis: Redis, hand: Hand) -> None:
    """Whoever comes after it is slowed by nothing, and nothing is left of it."""
    await held_up(redis, hand, 1)
    await organizations.resume(Partition.only(redis), "org_a", starts=1 / 60)
    assert len(await hand.claim()) == 1
    assert await redis.hgetall(keys.RATES) == {}


async def test_a_slow_beginning_that_time_has_ended_leaves_nothing(
    redis: Redis, hand: Hand
) -> None:
    await held_up(redis, hand, 40)
    await organizations.resume(Partition.only(redis), "org_a")
    assert len(await hand.claim(100)) == 10
    for _ in range(12):
        await a_second_passes(redis)
    assert len(await hand.claim(100)) == 30
    assert await redis.hgetall(keys.RATES) == {}


async def test_nothing_is_left_of_a_rate_that_is_gone(redis: Redis, hand: Hand) -> None:
    """Or every claim would look for rates for ever."""
    await at_a_rate(hand)
    await accepted(redis, 1)
    await hand.claim()
    await at_a_rate(hand, "")
    assert await redis.hgetall(keys.RATES) == {}


async def test_who_is_held_up_again_in_a_slow_beginning_begins_slowly_again(
    redis: Redis, hand: Hand
) -> None:
    await held_up(redis, hand, 40)
    await organizations.resume(Partition.only(redis), "org_a")
    await organizations.pause(Partition.only(redis), "org_a", "a test")
    assert await hand.claim(100) == []
    for _ in range(12):
        await a_second_passes(redis)
    await organizations.resume(Partition.only(redis), "org_a")
    assert len(await hand.claim(100)) == 10


async def test_a_stock_arq_worker_takes_the_starts_that_it_gives_back(
    redis: Redis, hand: Hand
) -> None:
    await at_a_rate(hand)
    (job, *_) = await accepted(redis, 3)
    claim = await hand.transitions.adopt(job, lease=30)
    assert claim is not None
    assert await hand.claim() == []
    assert await hand.release(claim) is Settled.RELEASED
    assert [each.job for each in await hand.claim()] == [job]
    assert await hand.claim() == []


async def test_a_rate_for_what_goes_on_already_is_said_to_hold(redis: Redis, hand: Hand) -> None:
    await held_up(redis, hand, 40)
    assert await organizations.resume(Partition.only(redis), "org_a")
    assert not await organizations.resume(Partition.only(redis), "org_a")
    assert await organizations.resume(Partition.only(redis), "org_a", starts=50)


async def test_an_operator_without_a_right_to_rates_resumes_nothing_by_half(
    redis: Redis, hand: Hand
) -> None:
    """Its rights are of an earlier version."""
    await held_up(redis, hand, 3)
    names = (keys.ORGANIZATIONS, keys.DUE, keys.BREAKERS, f"{keys.PARKED}*")
    rights = ("on", "nopass", "+@all", *(f"~{name}" for name in names))
    await redis.execute_command("ACL", "SETUSER", "earlier", *rights)
    where = redis.connection_pool.connection_kwargs
    try:
        async with Redis(host=where["host"], port=where["port"], username="earlier") as earlier:
            with pytest.raises(ResponseError, match="permission"):
                await organizations.resume(Partition.only(earlier), "org_a")
    finally:
        await redis.execute_command("ACL", "DELUSER", "earlier")
    assert await organizations.resume(Partition.only(redis), "org_a")
    assert len(await hand.claim()) == 3


async def test_where_many_starts_are_due_at_once_a_worker_looks_again_at_once(
    redis: Redis, hand: Hand
) -> None:
    """A claim sees to so many organizations, and others are due by now."""
    names = [f"org_{number}" for number in range(70)]
    await hand.transitions.publish([Profile(name, rate=Rate.parse("1/h")) for name in names])
    for name in names:
        await accepted(redis, 2, name)
    assert len(await hand.claim(200)) == len(names)
    assert await hand.claim(200) == []
    await redis.hset(keys.RATES, mapping={f"next:{name}": "0" for name in names})
    await redis.zadd(keys.DUE, {f"rate:{name}": 1 for name in names})
    first, rest = [
        await hand.transitions.claim("w1", most=200, lease=30, holding=0) for _ in range(2)
    ]
    assert (len(first.jobs), first.next_due) == (64, 0)
    assert len(rest.jobs) == len(names) - 64
    assert rest.next_due != 0


@pytest.mark.parametrize("held", [False, True])
async def test_a_clock_that_was_set_back_puts_nobody_off_for_hours(
    redis: Redis, hand: Hand, *, held: bool
) -> None:
    """What was noted by another Redis's clock is looked at with each sign of life."""
    await hand.transitions.renew("w1", [], description=b"{}", slots=10, lease=30)
    await at_a_rate(hand)
    await accepted(redis, 3)
    (claim,) = await hand.claim()
    if held:
        assert await settle(hand, claim, "throttle", (LATER, "429")) is Settled.THROTTLED
        await redis.hset(keys.ORGANIZATIONS, "hold:org_a", "9000000000000:429")
    assert await hand.claim() == []
    await redis.hset(keys.RATES, "next:org_a", "0")
    name = "hold:org_a" if held else "rate:org_a"
    await redis.zadd(keys.DUE, {name: 9e12}, xx=True)
    assert await hand.claim() == []
    await hand.transitions.renew("w1", [], description=b"{}", slots=10, lease=30)
    assert len(await hand.claim()) == 1
