"""Facts about an organization whose own system asks for fewer calls."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.job import decode
from shared.queue.partition import Partition
from tests.integration.jobs import counters
from tests.integration.test_breaker import IN_A_ROW, Shop, claimed
from tests.integration.workplace import body
from worker import Throttled
from worker.operate import lookup, organizations
from worker.pipeline.transitions import Profile, Refused, Settled, Settlement

HOUR = 3600.0


@pytest.fixture
def shop(redis: Redis) -> Shop:
    return Shop(redis)


def busy(after: float | timedelta = 30, why: str = "429") -> Any:
    """What a handler does whose organization's system is busy."""

    def act() -> Throttled:
        return Throttled(after, why)

    return act


async def throttled(shop: Shop, after: float | timedelta = 30, why: str = "429") -> str:
    """Let one event find that system busy; its job."""
    (job,) = await shop.place.accept(body())
    shop.instead = busy(after, why)
    assert await shop.place.handle_next() is Settled.THROTTLED
    shop.instead = None
    return job


async def over(redis: Redis, organization: str = "org_a") -> None:
    """Let the hold's time be over."""
    hold = keys.HOLD + organization
    assert await redis.zadd(keys.DUE, {hold: 1}, xx=True, ch=True) == 1


async def left(shop: Shop) -> float | None:
    """Seconds that the organization has to wait still, as the overview says."""
    return (await shop.of()).throttled_seconds


def raising() -> None:
    raise Throttled(timedelta(seconds=30), "429 of their ERP")


@pytest.mark.parametrize("act", [raising, busy(30, "429 of their ERP")], ids=["raised", "returned"])
async def test_all_its_events_wait_and_nothing_is_spent_or_counted(
    redis: Redis, shop: Shop, act: Any
) -> None:
    job, *_ = await shop.place.accept(*(body(f"evt_{number}") for number in range(3)))
    shop.instead = act
    assert await shop.place.handle_next() is Settled.THROTTLED
    assert await claimed(shop) == []
    overview = await shop.of()
    assert overview.throttled == "429 of their ERP"
    assert overview.throttled_seconds == pytest.approx(30, abs=5)
    assert (overview.failures, overview.breaker, overview.running) == (0, None, 0)
    assert await redis.zcard(keys.parked("org_a")) == 3
    assert (await redis.hget(keys.CLAIMS, job)).split(b":")[:3] == [b"", b"0", b"0"]
    assert (await counters(redis))["throttled"] == 1
    (line,) = shop.place.lines.of("event_throttled")
    assert (line["error"], line["after"]) == ("429 of their ERP", 30.0)


async def test_afterwards_it_goes_first_and_is_handled_as_if_never_tried(
    redis: Redis, shop: Shop
) -> None:
    first = await throttled(shop)
    later = await shop.place.accept(body(), body())
    assert await claimed(shop) == []
    await over(redis)
    ((claim, payload), *rest) = await shop.place.claim(10)
    assert [claim.job, *(each.job for each, _ in rest)] == [first, *later]
    assert (claim.attempts, claim.claims) == (0, 0)
    assert await shop.place.run(claim, payload) is Settled.DONE
    assert await shop.of() is not None
    assert (await shop.of()).throttled is None
    assert await redis.exists(keys.DUE, keys.THROTTLED) == 0


async def test_a_worker_sleeps_no_longer_than_the_hold_lasts(shop: Shop) -> None:
    await throttled(shop, 5)
    taken = await shop.place.transitions.claim("w1", most=1, lease=30, holding=0)
    assert taken.jobs == []
    assert taken.next_due == pytest.approx(5, abs=1)


async def test_other_organizations_do_not_notice(shop: Shop) -> None:
    await throttled(shop)
    assert await shop.place.handle(body("", "org_b"), organization="org_b") is Settled.DONE


async def test_of_several_holds_the_longest_wins_and_resume_ends_it(
    redis: Redis, shop: Shop
) -> None:
    jobs = await shop.place.accept(body(), body(), body())
    claims = await shop.place.claim(3)
    for (claim, payload), after in zip(claims, (30, 10, 60), strict=True):
        shop.instead = busy(after, f"{after} s")
        assert await shop.place.run(claim, payload) is Settled.THROTTLED
        assert await left(shop) == pytest.approx(max(30, after), abs=5)
    assert (await shop.of()).throttled == "60 s"
    shop.instead = None
    assert await organizations.resume(Partition.only(redis), "org_a")
    assert (await shop.of()).throttled is None
    assert await claimed(shop) == jobs
    assert not await organizations.resume(Partition.only(redis), "org_a")


async def test_nobody_waits_for_more_than_an_hour_at_once(shop: Shop) -> None:
    await throttled(shop, timedelta(days=300))
    assert await left(shop) == pytest.approx(HOUR, abs=5)


async def test_a_zombie_holds_nobody_back(redis: Redis, shop: Shop) -> None:
    await shop.place.accept(body())
    ((zombie, _),) = await shop.place.claim(lease=0.001)
    while not await shop.place.claim():  # until its lease is over
        await asyncio.sleep(0.001)
    settlement = Settlement(zombie, "throttle", (30_000, "429"))
    assert await shop.place.transitions.settle([settlement]) == [Settled.LOST]
    assert await redis.exists(keys.DUE, keys.THROTTLED) == 0


async def test_whoever_the_breaker_tries_leaves_the_try_to_another(
    redis: Redis, shop: Shop
) -> None:
    await shop.fail(IN_A_ROW)
    await shop.cooled_off()
    await throttled(shop)
    assert (await shop.of()).breaker == "trying"
    assert await claimed(shop) == []
    await over(redis)
    assert await shop.place.handle_next() is Settled.DONE
    assert (await shop.of()).breaker is None


async def test_a_pause_outlasts_a_hold_and_resume_ends_both(redis: Redis, shop: Shop) -> None:
    await throttled(shop)
    assert await organizations.pause(Partition.only(redis), "org_a", "stocktaking")
    await over(redis)
    assert await claimed(shop) == []
    assert (await shop.of()).throttled is None
    assert await organizations.resume(Partition.only(redis), "org_a")
    assert await shop.place.handle_next() is Settled.DONE
    await throttled(shop)
    assert await organizations.pause(Partition.only(redis), "org_a", "stocktaking")
    assert await organizations.resume(Partition.only(redis), "org_a")
    assert len(await claimed(shop)) == 1


async def test_one_at_a_time_it_keeps_its_place(redis: Redis, shop: Shop) -> None:
    await shop.place.transitions.publish([Profile("org_a", 1, 1.0)])
    first = await throttled(shop)
    await shop.place.accept(body())
    await over(redis)
    assert await claimed(shop) == [first]


async def test_how_often_is_kept_with_the_job_until_it_ends(redis: Redis, shop: Shop) -> None:
    job = await throttled(shop)
    shop.instead = busy()
    for number in (2, 3):
        await over(redis)
        assert await shop.place.handle_next() is Settled.THROTTLED
        assert await redis.hget(keys.THROTTLED, job) == b"%d" % number
    shop.instead = None
    await over(redis)
    assert await shop.place.handle_next() is Settled.DONE
    assert await redis.hlen(keys.THROTTLED) == 0


async def test_what_a_later_version_has_end_is_left_to_it(redis: Redis, shop: Shop) -> None:
    await throttled(shop)
    await over(redis)
    await redis.zadd(keys.DUE, {"later:org_b": 0, "ramp:org_b": 9e15})
    assert len(await claimed(shop)) == 1
    assert await redis.zrange(keys.DUE, 0, -1) == [b"later:org_b", b"ramp:org_b"]


async def test_no_hold_is_shorter_than_a_second(shop: Shop) -> None:
    """Nothing is spent: a moment that is past by our clock would have it run without end."""
    await throttled(shop, 0)
    assert await claimed(shop) == []
    assert await left(shop) == pytest.approx(1, abs=0.5)
    (line,) = shop.place.lines.of("event_throttled")
    assert line["after"] == 1.0


async def test_a_hold_that_a_clock_set_back_has_made_longer_counts_for_nothing(
    redis: Redis, shop: Shop
) -> None:
    await throttled(shop)
    far = round(time.time() * 1000) + 5 * 3_600_000
    await redis.hset(keys.ORGANIZATIONS, keys.HOLD + "org_a", f"{far}:429")
    await redis.zadd(keys.DUE, {keys.HOLD + "org_a": far})
    assert len(await claimed(shop)) == 1


async def test_a_hold_whose_end_is_gone_ends_all_the_same(redis: Redis, shop: Shop) -> None:
    await throttled(shop)
    await redis.delete(keys.DUE)
    await redis.hset(keys.ORGANIZATIONS, keys.HOLD + "org_a", "1795000000000:429")
    assert len(await claimed(shop)) == 1


@pytest.mark.parametrize("name", [keys.DUE, keys.THROTTLED])
async def test_what_cannot_be_written_holds_nobody_back(
    redis: Redis, shop: Shop, name: str
) -> None:
    await shop.place.accept(body())
    ((claim, _),) = await shop.place.claim()
    await redis.set(name, "somebody's")
    settlement = Settlement(claim, "throttle", (30_000, "429"))
    (answer,) = await shop.place.transitions.settle([settlement])
    assert isinstance(answer, Refused)
    assert await redis.hexists(keys.ORGANIZATIONS, keys.HOLD + "org_a") is False


async def test_a_stock_worker_has_it_again_only_when_the_hold_is_over(
    redis: Redis, shop: Shop
) -> None:
    (job,) = await shop.place.accept(body())
    claim = await shop.place.transitions.adopt(job, lease=30)
    assert claim is not None
    shop.instead = busy()
    delivery = decode(await redis.get(keys.payload(job)))
    assert await shop.place.pipeline.run(claim, delivery) is Settled.THROTTLED
    due = await redis.zscore(keys.QUEUE, job)
    assert due / 1000 - time.time() == pytest.approx(30, abs=5)


async def test_why_may_be_any_text_and_is_that_of_the_longest(shop: Shop) -> None:
    (job,) = await shop.place.accept(body())

    def both() -> None:
        raise ExceptionGroup("both", [Throttled(5, "short"), Throttled(50, "long \udcff")])

    shop.instead = both
    assert await shop.place.handle_next() is Settled.THROTTLED
    assert (await shop.of()).throttled == "long \\udcff"
    found = await lookup.find(Partition.only(shop.redis), job)
    assert found is not None
    assert found.throttled == 1


async def test_what_an_older_version_leaves_of_it_goes(redis: Redis, shop: Shop) -> None:
    await redis.hset(keys.THROTTLED, "org_a:gone", "3")
    await shop.place.transitions.renew("w1", [], description=b"{}", slots=1, lease=30)
    assert await redis.exists(keys.THROTTLED) == 0
