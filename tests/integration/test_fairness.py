"""Facts about who comes when, among organizations and within one."""

from collections.abc import Iterator
from itertools import count

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from shared.queue.job import job_id, organization_of
from shared.queue.partition import Partition
from tests.integration.by_hand import Hand
from tests.integration.jobs import NOTHING, account, delivery, enqueue
from worker.operate import organizations
from worker.pipeline.transitions import Settled

_numbers = count()


@pytest.fixture(scope="module")
def redis_server() -> Iterator[EmbeddedRedis]:
    """Give a server that writes nothing to a disk, since these take many steps."""
    with EmbeddedRedis(appendfsync=None) as server:
        yield server


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis)


async def wait(redis: Redis, number: int, organization: str, weight: float = 1.0) -> list[str]:
    """Let so many events of an organization wait; their jobs, in order of acceptance."""
    sent = [delivery(b"%d" % next(_numbers), organization, weight=weight) for _ in range(number)]
    for start in range(0, number, 1_000):
        await enqueue(redis, *sent[start : start + 1_000])
    return [job_id(organization, each.body) for each in sent]


async def handled(hand: Hand, number: int, at_once: int = 1) -> list[str]:
    """Handle so many events; their jobs, in the order in which they were claimed."""
    order: list[str] = []
    while len(order) < number:
        claims = await hand.claim(min(at_once, number - len(order)))
        assert claims
        order += [claim.job for claim in claims]
        await hand.finish(claims)
    return order


def share(order: list[str], organization: str) -> int:
    """How many of these are the organization's."""
    return sum(organization_of(job) == organization for job in order)


@pytest.mark.parametrize(
    ("at_once", "weight", "part"), [(1, 4.0, 80), (100, 4.0, 80), (7, 1.0, 50), (100, 0.25, 20)]
)
async def test_weights_are_shares_while_both_have_events_waiting(
    redis: Redis, hand: Hand, at_once: int, weight: float, part: int
) -> None:
    await hand.cap(None, "org_a", weight)
    await wait(redis, 200, "org_a", weight)
    await wait(redis, 200, "org_b")
    for _ in range(2):
        order = await handled(hand, 100, at_once)
        assert abs(share(order, "org_a") - part) <= 1


async def test_a_share_that_nobody_uses_is_the_others(redis: Redis, hand: Hand) -> None:
    await wait(redis, 50, "org_a", 0.01)
    assert share(await handled(hand, 50, 10), "org_a") == 50


async def test_idleness_earns_nothing(redis: Redis, hand: Hand) -> None:
    """Who comes late has its share from then on, and none for the time before."""
    await wait(redis, 300, "org_a")
    await handled(hand, 200, 10)
    await wait(redis, 100, "org_b")
    assert abs(share(await handled(hand, 40), "org_b") - 20) <= 1


async def test_idleness_costs_nothing_either(redis: Redis, hand: Hand) -> None:
    """A burst that an idle system has taken is not held against who sent it."""
    await wait(redis, 500, "org_a")
    await handled(hand, 500, 100)
    await wait(redis, 100, "org_a")
    await wait(redis, 100, "org_b")
    assert abs(share(await handled(hand, 40), "org_a") - 20) <= 1


@pytest.mark.parametrize("before", [0, 300])
async def test_ten_thousand_of_one_do_not_delay_the_first_of_another(
    redis: Redis, hand: Hand, before: int
) -> None:
    await wait(redis, 10_000, "org_a")
    await handled(hand, before, 100)
    (first,) = await wait(redis, 1, "org_b")
    assert first in [claim.job for claim in await hand.claim(2)]


async def test_a_retry_does_not_go_behind_its_own_backlog(redis: Redis, hand: Hand) -> None:
    first, *_ = await wait(redis, 1_000, "org_a")
    assert await hand.retry((await hand.claim(1))[0]) is Settled.RETRIED
    await handled(hand, 20)
    await hand.come_due(first)
    assert first in await handled(hand, 2)


async def test_retries_do_not_go_ahead_of_others(redis: Redis, hand: Hand) -> None:
    await wait(redis, 60, "org_a")
    claims = await hand.claim(60)
    for claim in claims:
        assert await hand.retry(claim) is Settled.RETRIED
        await hand.come_due(claim.job)
    mine = await wait(redis, 20, "org_b")
    order = await handled(hand, 40)
    assert order[0] in mine or order[1] in mine
    assert abs(share(order, "org_b") - 20) <= 1


async def test_parked_jobs_keep_their_order(redis: Redis, hand: Hand) -> None:
    await hand.cap(3)
    jobs = await wait(redis, 60, "org_a")
    order: list[str] = []
    for step in range(12):
        claims = await hand.claim(10)
        order += [claim.job for claim in claims]
        if step % 4 == 1:
            await organizations.pause(Partition.only(redis), "org_a", "a test")
            assert await hand.claim(10) == []
        await hand.finish(claims)
        await organizations.resume(Partition.only(redis), "org_a")
    assert order == jobs[:36]
    found = await account(redis)
    assert found.parked | found.queued == set(jobs[36:])


async def slots(hand: Hand, worker: str, number: int) -> None:
    """A worker's sign of life, with its slots."""
    await hand.transitions.renew(worker, [], description=b"{}", slots=number, lease=30)


@pytest.mark.parametrize(("all_slots", "most"), [(10, 8), (100, 80), (2, 1), (1, 1), (7, 5)])
async def test_the_default_cap_leaves_a_fifth_of_the_live_slots(
    redis: Redis, hand: Hand, all_slots: int, most: int
) -> None:
    await slots(hand, "w1", all_slots)
    await wait(redis, 120, "org_a")
    assert len(await hand.claim(all_slots)) == most
    (other,) = await wait(redis, 1, "org_b")
    await hand.claim_only(other)


async def test_the_default_cap_follows_the_workers_that_live(redis: Redis, hand: Hand) -> None:
    await wait(redis, 40, "org_a")
    await slots(hand, "w1", 10)
    claims = await hand.claim(40)
    assert len(claims) == 8
    await slots(hand, "w2", 5)
    assert len(await hand.claim(40)) == 4
    await hand.transitions.leave("w2")
    await hand.finish(claims[:4])
    assert await hand.claim(40) == []
    await hand.finish(claims[4:])
    assert len(await hand.claim(40)) == 4


async def test_a_worker_without_a_sign_of_life_counts_no_more(redis: Redis, hand: Hand) -> None:
    await slots(hand, "w1", 10)
    await slots(hand, "w2", 10)
    await redis.zadd(keys.WORKERS_SEEN, {"w2": keys.DEFERRED_FROM})
    await slots(hand, "w1", 10)
    assert await redis.get(keys.SLOTS) == b"10"
    await wait(redis, 40, "org_a")
    assert len(await hand.claim(40)) == 8


async def test_a_backlog_that_was_paused_leaves_the_others_their_slots(
    redis: Redis, hand: Hand
) -> None:
    """Its places are of long ago; its cap holds all the same."""
    await slots(hand, "w1", 10)
    await wait(redis, 500, "org_a")
    await organizations.pause(Partition.only(redis), "org_a", "a test")
    await wait(redis, 200, "org_b")
    await handled(hand, 190, 5)
    await organizations.resume(Partition.only(redis), "org_a")
    for _ in range(3):
        claims = await hand.claim(10)
        order = [claim.job for claim in claims]
        assert (share(order, "org_a"), share(order, "org_b")) == (8, 2)
        await hand.finish(claims)


async def test_the_systems_time_does_not_go_back_with_what_waited_long(
    redis: Redis, hand: Hand
) -> None:
    """Or else whoever comes next would be ahead of all who wait."""
    (old,) = await wait(redis, 1, "org_a")
    await organizations.pause(Partition.only(redis), "org_a", "a test")
    await wait(redis, 100, "org_b")
    await handled(hand, 50)
    await organizations.resume(Partition.only(redis), "org_a")
    await hand.finish([(await hand.claim(1))[0]])
    assert not await redis.zscore(keys.ACCEPTED, old)
    (next_one,) = await wait(redis, 1, "org_c")
    assert await redis.zscore(keys.QUEUE, next_one) == 51


async def test_one_at_a_time_is_in_order_of_acceptance_whatever_happens(
    redis: Redis, hand: Hand
) -> None:
    """A retry keeps the slot until it is due; a crash, a release and a pause change nothing."""
    await hand.cap(1)
    first, second, third, fourth = await wait(redis, 4, "org_a")
    assert await hand.retry(await hand.claim_only(first)) is Settled.RETRIED
    assert await hand.claim(10) == []
    assert (await account(redis)).running == {"org_a": 1}
    await hand.come_due(first)
    await hand.finish([await hand.claim_only(first)])

    await hand.claim_only(second)
    await hand.come_due(second)  # its worker went away
    await hand.finish([await hand.claim_only(second)])

    claim = await hand.claim_only(third)
    await organizations.pause(Partition.only(redis), "org_a", "a test")
    assert await hand.release(claim) is Settled.RELEASED
    assert await hand.claim(10) == []
    await organizations.resume(Partition.only(redis), "org_a")
    await hand.finish([await hand.claim_only(third)])
    (fifth,) = await wait(redis, 1, "org_a")
    assert await handled(hand, 2) == [fourth, fifth]
    assert await account(redis) == NOTHING
