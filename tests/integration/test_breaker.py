"""Facts about an organization's breaker."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.jobs import NOTHING, account, counters
from tests.integration.workplace import POLICY, Workplace, body
from worker import Event, Handlers, Organization, Reject, Retry
from worker.operate import organizations
from worker.operate.overview import OrganizationOverview, read_overview
from worker.pipeline.policy import Breaker
from worker.pipeline.transitions import Profile, Settled

IN_A_ROW = 3
POLICY_OF_THREE = replace(
    POLICY, breaker=Breaker(failures=IN_A_ROW, cool_off=3600), max_attempts=100
)


class Shop:
    """A handler that works, or does what it is told to instead."""

    def __init__(self, redis: Redis, breaker: Breaker = POLICY_OF_THREE.breaker) -> None:
        self.redis = redis
        self.instead: Callable[[], Any] | None = None
        self.seen: list[str] = []
        handlers = Handlers()

        @handlers.on("order.updated")
        async def act(event: Event[Any], _: Organization) -> Any:
            self.seen.append(event.id)
            return None if self.instead is None else self.instead()

        handlers.ignore("order.created")
        self.place = Workplace(redis, handlers, replace(POLICY_OF_THREE, breaker=breaker))

    async def fail(self, times: int) -> None:
        """Let so many events fail; they come back an hour later, not before."""
        self.instead = broken
        for _ in range(times):
            (job,) = await self.place.accept(body())
            assert await self.place.handle_next() is Settled.RETRIED
            await self.redis.zincrby(keys.QUEUE, 3_600_000, job)
        self.instead = None

    async def cooled_off(self) -> None:
        """Let the breaker's time be over."""
        assert await self.redis.zadd(keys.BREAKERS, {"org_a": 1}, xx=True, ch=True) == 1

    async def of(self, organization: str = "org_a") -> OrganizationOverview:
        """What the overview says of an organization."""
        found = (await read_overview(Partition.only(self.redis))).organizations
        return next(each for each in found if each.organization == organization)


def broken() -> None:
    raise ConnectionError("their ERP is away")


@pytest.fixture
def shop(redis: Redis) -> Shop:
    return Shop(redis)


async def claimed(shop: Shop, most: int = 10) -> list[str]:
    """Jobs that a worker gets now."""
    return [claim.job for claim, _ in await shop.place.claim(most)]


async def test_failures_in_a_row_make_the_events_wait_and_spend_none_of_their_attempts(
    redis: Redis, shop: Shop
) -> None:
    await shop.fail(IN_A_ROW)
    (job,) = await shop.place.accept(body("evt_waits"))
    assert await claimed(shop) == []
    assert await redis.zrange(keys.parked("org_a"), 0, -1) == [job.encode()]
    assert await redis.hget(keys.CLAIMS, job) is None
    overview = await shop.of()
    assert overview.breaker == "open"
    assert overview.breaker_seconds == pytest.approx(3600, abs=60)
    assert (await counters(redis))["breaker_opened"] == 1


async def test_one_failure_fewer_does_not_open_it(shop: Shop) -> None:
    await shop.fail(IN_A_ROW - 1)
    await shop.place.accept(body())
    assert len(await claimed(shop)) == 1


async def test_a_retry_that_comes_due_while_it_is_open_waits_too(redis: Redis, shop: Shop) -> None:
    await shop.fail(IN_A_ROW)
    deferred = await redis.zrange(keys.QUEUE, 0, -1)
    await redis.zadd(keys.QUEUE, dict.fromkeys(deferred, keys.DEFERRED_FROM))
    assert await claimed(shop) == []
    assert await redis.zcard(keys.parked("org_a")) == IN_A_ROW


async def test_others_do_not_notice(shop: Shop) -> None:
    await shop.fail(IN_A_ROW)
    assert await shop.place.handle(body("", "org_b"), organization="org_b") is Settled.DONE
    assert shop.seen[-1] != shop.seen[0]


async def test_after_the_cool_off_one_is_let_through_and_when_it_works_all_are(
    redis: Redis, shop: Shop
) -> None:
    await shop.fail(IN_A_ROW)
    jobs = await shop.place.accept(*(body(f"evt_{n}") for n in range(5)))
    assert await claimed(shop) == []
    await shop.cooled_off()

    ((claim, payload),) = await shop.place.claim(10)
    assert claim.job == jobs[0]
    assert (await shop.of()).breaker == "trying"
    assert await claimed(shop) == []
    (late,) = await shop.place.accept(body("evt_late"))
    assert await claimed(shop) == []

    assert await shop.place.run(claim, payload) is Settled.DONE
    assert (await shop.of()).breaker is None
    assert sorted(await claimed(shop)) == sorted([*jobs[1:], late])
    assert (await counters(redis))["breaker_closed"] == 1
    assert await redis.zcard(keys.BREAKERS) == 0


async def test_when_the_one_fails_it_opens_again(redis: Redis, shop: Shop) -> None:
    await shop.fail(IN_A_ROW)
    await shop.place.accept(body("evt_1"), body("evt_2"))
    assert await claimed(shop) == []
    await shop.cooled_off()
    shop.instead = broken
    assert await shop.place.handle_next() is Settled.RETRIED
    assert (await shop.of()).breaker == "open"
    assert await claimed(shop) == []
    assert (await counters(redis))["breaker_opened"] == 2


@pytest.mark.parametrize("instead", [lambda: Reject("no"), lambda: Retry(after=3600)])
async def test_when_the_one_says_nothing_about_the_organization_another_is_tried(
    shop: Shop, instead: Callable[[], Any]
) -> None:
    await shop.fail(IN_A_ROW)
    await shop.place.accept(body("evt_1"), body("evt_2"), body("evt_3"))
    assert await claimed(shop) == []
    await shop.cooled_off()
    shop.instead = instead
    await shop.place.handle_next()
    assert (await shop.of()).breaker == "trying"
    shop.instead = None
    assert await shop.place.handle_next() is Settled.DONE
    assert (await shop.of()).breaker is None


async def test_when_the_ones_worker_goes_away_another_is_tried(redis: Redis, shop: Shop) -> None:
    await shop.fail(IN_A_ROW)
    (job, _) = await shop.place.accept(body("evt_1"), body("evt_2"))
    assert await claimed(shop) == []
    await shop.cooled_off()
    assert await claimed(shop) == [job]
    await redis.zadd(keys.QUEUE, {job: keys.DEFERRED_FROM})  # its lease is over
    assert len(await claimed(shop)) == 1
    assert (await shop.of()).running == 1


async def test_an_event_that_is_ignored_does_not_close_it(shop: Shop) -> None:
    await shop.fail(IN_A_ROW)
    await shop.place.accept(body("evt_1", type="order.created"))
    assert await claimed(shop) == []
    await shop.cooled_off()
    assert await shop.place.handle_next() is Settled.DONE
    assert (await shop.of()).breaker == "trying"


async def test_what_was_running_when_it_opened_neither_closes_nor_prolongs_it(shop: Shop) -> None:
    await shop.place.accept(body("evt_good"), body("evt_bad"))
    good, bad = await shop.place.claim(2)
    await shop.fail(IN_A_ROW)
    before = (await shop.of()).breaker_seconds
    assert await shop.place.run(*good) is Settled.DONE
    shop.instead = broken
    assert await shop.place.run(*bad) is Settled.RETRIED
    after = await shop.of()
    assert after.breaker == "open"
    assert after.breaker_seconds is not None
    assert before is not None
    assert after.breaker_seconds <= before


async def test_a_time_out_counts_and_a_retry_or_a_reject_does_not(redis: Redis) -> None:
    shop = Shop(redis, Breaker(failures=1, cool_off=3600))
    for asked in (lambda: Reject("no"), lambda: Retry(after=3600)):
        shop.instead = asked
        await shop.place.handle(body())
    assert await redis.hexists(keys.ORGANIZATIONS, keys.BREAKER + "org_a") is False

    def too_late() -> None:
        raise TimeoutError

    shop.instead = too_late
    await shop.place.handle(body())
    assert (await shop.of()).breaker == "open"


async def test_a_share_of_failures_opens_it_once_there_are_enough_ends(redis: Redis) -> None:
    shop = Shop(redis, Breaker(failures=0, share=0.5, sample=6, cool_off=3600))
    for _ in range(3):
        await shop.fail(1)
        assert (await shop.of()).breaker is None
        assert await shop.place.handle(body()) is Settled.DONE
    await shop.fail(1)
    assert (await shop.of()).breaker == "open"


async def test_many_that_work_make_the_few_failures_forgotten(redis: Redis, shop: Shop) -> None:
    await shop.fail(1)
    for _ in range(99):
        await shop.place.handle(body())
    assert await redis.hexists(keys.ORGANIZATIONS, keys.BREAKER + "org_a")
    await shop.place.handle(body())
    assert not await redis.hexists(keys.ORGANIZATIONS, keys.BREAKER + "org_a")


async def test_old_ends_fade(redis: Redis) -> None:
    """Half of the failures long ago don't open it beside one failure of today."""
    shop = Shop(redis, Breaker(failures=0, share=0.9, sample=2, cool_off=3600))
    for _ in range(20):
        await shop.fail(1)
        await shop.place.handle(body())
    raw = await redis.hget(keys.ORGANIZATIONS, keys.BREAKER + "org_a")
    assert raw is not None
    _, _, handled, failed = raw.decode().split(":")
    assert int(handled) + int(failed) <= 5


async def test_zero_switches_it_off(redis: Redis) -> None:
    shop = Shop(redis, Breaker(failures=0, share=0.0))
    await shop.fail(100)
    assert (await shop.of()).breaker is None


@pytest.mark.parametrize("cooled", [False, True])
async def test_an_operator_may_close_it(shop: Shop, cooled: bool) -> None:  # noqa: FBT001
    await shop.fail(IN_A_ROW)
    await shop.place.accept(body("evt_1"), body("evt_2"))
    assert await claimed(shop) == []
    if cooled:
        await shop.cooled_off()
        assert len(await claimed(shop)) == 1
    assert await organizations.resume(Partition.only(shop.redis), "org_a")
    assert len(await claimed(shop)) == 2 - cooled


async def test_an_organization_in_order_retries_the_same_event_after_the_cool_off(
    redis: Redis, shop: Shop
) -> None:
    await shop.place.transitions.publish([Profile("org_a", 1, 1.0)])
    first, *_ = await shop.place.accept(body("evt_1"), body("evt_2"))
    shop.instead = broken
    for _ in range(IN_A_ROW):
        assert await shop.place.handle_next() is Settled.RETRIED
        await redis.zadd(keys.QUEUE, {first: keys.DEFERRED_FROM}, xx=True)
    assert await claimed(shop) == []
    await shop.cooled_off()
    shop.instead = None
    seen = len(shop.seen)
    assert await shop.place.handle_next() is Settled.DONE
    assert await shop.place.handle_next() is Settled.DONE
    assert shop.seen[seen:] == ["evt_1", "evt_2"]
    assert await account(redis) == NOTHING


async def test_a_worker_sleeps_no_longer_than_until_a_breaker_is_due(redis: Redis) -> None:
    shop = Shop(redis, Breaker(failures=1, cool_off=60))
    await shop.fail(1)
    idle = await shop.place.transitions.claim("w", most=1, lease=30, holding=0)
    assert idle.next_due is not None
    assert 30 < idle.next_due <= 60  # its deferred retry is due in an hour
