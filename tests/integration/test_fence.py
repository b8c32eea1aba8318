"""A claim that is over, and one that has never been, change nothing of anybody's event."""

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from tests.integration.by_hand import Hand
from tests.integration.jobs import NOTHING, account, counters, delivery, enqueued
from worker.pipeline.transitions import Claim, Mark, Settled


@pytest.fixture
async def hand(redis: Redis) -> Hand:
    hand = Hand(redis)
    await hand.cap(1)
    return hand


async def test_in_order_a_retry_that_is_sent_again_does_not_cost_two_attempts(
    redis: Redis, hand: Hand
) -> None:
    """The first one's reply was lost: in order, too, the slot is kept and the claim is over."""
    (job,) = await enqueued(redis, delivery())
    claim = await hand.claim_only(job)
    assert await hand.retry(claim) is Settled.RETRIED
    assert await hand.retry(claim) is Settled.LOST
    assert (await account(redis)).running == {"org_a": 1}
    await hand.come_due(job)
    assert (await hand.claim_only(job)).attempts == 1
    counted = await counters(redis)
    assert counted["retried"] == 1
    assert "lease_expired" not in counted


async def test_in_order_an_event_that_waits_for_its_retry_is_not_committed_behind_its_back(
    redis: Redis, hand: Hand
) -> None:
    """Nor is it kept waiting, by who had it and doesn't know yet that it is gone."""
    (job,) = await enqueued(redis, delivery())
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.retry(claim) is Settled.RETRIED
    due = await redis.zscore(keys.QUEUE, job)
    renewed = await hand.transitions.renew("w1", [claim], description=b"{}", slots=1, lease=9e5)
    assert renewed.lost == [claim]
    assert await redis.zscore(keys.QUEUE, job) == due
    assert await hand.done(claim) is Settled.LOST
    assert await hand.applied() == 0


async def test_an_event_that_nobody_holds_is_not_finished_buried_or_put_off(
    redis: Redis, hand: Hand
) -> None:
    """A claim without a token is nobody's, as is an event that waits, and they don't fit."""
    (job,) = await enqueued(redis, delivery())
    assert await hand.release(await hand.claim_only(job)) is Settled.RELEASED
    before, nobodys = await account(redis), Claim(job, token="")
    assert await hand.mark(nobodys) is Mark.LOST
    for settle in (hand.done, hand.retry, hand.dead, hand.duplicate, hand.hold, hand.release):
        assert await settle(nobodys) is Settled.LOST
    renewed = await hand.transitions.renew("w1", [nobodys], description=b"{}", slots=1, lease=30)
    assert renewed.lost == [nobodys]
    assert await account(redis) == before
    await hand.finish([await hand.claim_only(job)])
    assert await account(redis) == NOTHING


async def test_an_event_that_nobody_holds_is_no_suspect_that_others_run_beside(
    redis: Redis, hand: Hand
) -> None:
    """As a claim names the suspect that its worker has: not by its name alone."""
    (suspect,) = await enqueued(redis, delivery())
    for _ in range(3):
        await hand.claim_only(suspect)
        await hand.come_due(suspect)
    await hand.promote()
    (other,) = await enqueued(redis, delivery(organization="org_b"))
    known = await redis.hget(keys.SUSPECTS, suspect)
    assert known is not None
    nobodys = Claim(suspect, token="")
    claimed = await hand.transitions.claim("w2", most=1, lease=30, holding=1, no_more_alone=nobodys)
    assert [claim.job for claim, _ in claimed.jobs] == [other]
    assert await redis.hget(keys.SUSPECTS, suspect) == known
