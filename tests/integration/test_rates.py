"""How often an organization's handlers start, over all workers: never more often than it says."""

from collections.abc import Awaitable, Callable

import msgspec
import pytest
from redis.asyncio import Redis

from shared.endpoints.endpoint import Rate
from shared.queue import keys
from tests.integration.by_hand import LATER, RETENTION, Hand
from tests.integration.jobs import account, bodies, delivery, enqueued
from worker.pipeline.transitions import (
    Claim,
    Mark,
    MarkRequest,
    Profile,
    Refused,
    Settled,
    Settlement,
)

MINUTE = 60_000
"""Milliseconds between two starts: no test lasts so long."""

Leave = Callable[[Hand, Claim], Awaitable[object]]


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis, has_turns=True)


async def at_a_rate(hand: Hand, text: str = "60/h", burst: int = 1, cap: int | None = None) -> None:
    rate = Rate.parse(text, burst) if text else None
    await hand.transitions.publish([Profile("org_a", cap, rate=rate)])


async def minutes_pass(redis: Redis, minutes: float) -> None:
    """So many starts become due; a claim that has been told to look again does so."""
    await redis.hincrbyfloat(keys.RATES, "next:org_a", -minutes * MINUTE)
    await redis.zadd(keys.DUE, {"rate:org_a": 1}, xx=True)


async def accepted(redis: Redis, number: int, organization: str = "org_a") -> list[str]:
    return await enqueued(redis, *(delivery(each, organization) for each in bodies(number)))


async def test_no_more_start_than_are_due_and_the_others_keep_their_order(
    redis: Redis, hand: Hand
) -> None:
    await at_a_rate(hand)
    jobs = await accepted(redis, 5)
    (first,) = await hand.claim()
    assert first.job == jobs[0]
    assert (await account(redis)).parked == set(jobs[1:])
    assert await hand.claim(worker="w2") == []
    for job in jobs[1:]:
        await minutes_pass(redis, 1)
        assert [claim.job for claim in await hand.claim(worker="w2")] == [job]
        assert await hand.claim() == []


async def test_a_claim_says_when_the_next_start_is_due(redis: Redis, hand: Hand) -> None:
    await at_a_rate(hand)
    await accepted(redis, 2)
    claimed = await hand.transitions.claim("w1", most=5, lease=30, holding=0)
    assert len(claimed.jobs) == 1
    assert claimed.next_due is not None
    assert 29 < claimed.next_due <= 60


async def test_others_pass_and_weights_are_as_ever(redis: Redis, hand: Hand) -> None:
    await at_a_rate(hand)
    await accepted(redis, 3)
    others = await accepted(redis, 3, "org_b")
    claimed = [claim.job for claim in await hand.claim()]
    assert [job for job in claimed if job in others] == others
    assert len(claimed) == 4


async def test_starts_that_nobody_took_are_hoarded_up_to_the_burst(
    redis: Redis, hand: Hand
) -> None:
    await at_a_rate(hand, burst=3)
    await accepted(redis, 9)
    assert len(await hand.claim()) == 3
    await minutes_pass(redis, 60)
    assert len(await hand.claim()) == 3
    await minutes_pass(redis, 1)
    assert len(await hand.claim()) == 1


async def test_a_rate_that_is_changed_or_gone_holds_at_once(redis: Redis, hand: Hand) -> None:
    await at_a_rate(hand)
    await accepted(redis, 9)
    assert len(await hand.claim()) == 1
    await at_a_rate(hand, burst=3)
    await minutes_pass(redis, 9)
    assert len(await hand.claim()) == 3
    await at_a_rate(hand, "")
    assert len(await hand.claim()) == 5
    assert await redis.hget(keys.RATES, "org_a") is None


async def duplicate(hand: Hand, claim: Claim) -> None:
    await hand.redis.set(keys.event("org_a", "evt_1"), "done:org_a:other")
    assert await hand.mark(claim) in {Mark.DUPLICATE, Mark.CONFLICTING}
    assert await hand.duplicate(claim) is Settled.DUPLICATE


async def wait_for_a_turn(hand: Hand, claim: Claim) -> None:
    """Another, which was claimed before there was a rate, has the turn."""
    turn, other = f"{keys.TURN}org_a:key:k", "org_a:earlier"
    await hand.redis.zadd(keys.ACCEPTED, {other: 1})
    await hand.redis.zadd(turn, {other: 0})
    entry = msgspec.msgpack.encode((turn, "", "", False, 0, False))
    await hand.redis.execute_command("HSET", keys.TURNS, other, entry)
    assert await hand.mark(claim, key="k") is Mark.IN_LINE


async def gather(hand: Hand, claim: Claim) -> None:
    assert await hand.mark(claim, key="k", latest="h", quiet=LATER) is Mark.LATER


async def release(hand: Hand, claim: Claim) -> None:
    assert await hand.release(claim) is Settled.RELEASED
    await hand.redis.zadd(keys.QUEUE, {claim.job: 2_000_000_000_000})  # out of the way


async def die_before_a_handler(hand: Hand, claim: Claim) -> None:
    assert await hand.dead(claim, "malformed") is Settled.DEAD


async def wait_for_another_version(hand: Hand, claim: Claim) -> None:
    details = ("no_handler", LATER)
    assert await settle(hand, claim, "wait", details) is Settled.WAITING


async def be_ignored(hand: Hand, claim: Claim) -> None:
    await hand.mark(claim)
    assert await settle(hand, claim, "done", (RETENTION, (), (), False)) is Settled.DONE


async def be_refused_at_its_mark(hand: Hand, claim: Claim) -> None:
    await hand.redis.lpush(keys.event("org_a", "evt_1"), "somebody's")
    (refused,) = await hand.transitions.mark([MarkRequest(claim, "evt_1")])
    assert isinstance(refused, Refused)
    assert await hand.retry(claim) is Settled.RETRIED


async def settle(hand: Hand, claim: Claim, verb: str, details: tuple[object, ...]) -> object:
    (settled,) = await hand.transitions.settle([Settlement(claim, verb, details)])
    return settled


@pytest.mark.parametrize(
    "leave",
    [
        duplicate,
        wait_for_a_turn,
        gather,
        release,
        die_before_a_handler,
        wait_for_another_version,
        be_ignored,
        be_refused_at_its_mark,
    ],
)
async def test_who_leaves_before_a_handler_has_begun_gives_its_start_back(
    redis: Redis, hand: Hand, leave: Leave
) -> None:
    """Without that a burst of events of one key would run at half of the rate (T24)."""
    await at_a_rate(hand)
    await accepted(redis, 3)
    (claim,) = await hand.claim()
    assert await hand.claim() == []
    await leave(hand, claim)
    await redis.zadd(keys.DUE, {"rate:org_a": 1})
    assert len(await hand.claim()) == 1
    assert await hand.claim() == []


async def retry(hand: Hand, claim: Claim) -> None:
    assert await hand.retry(claim) is Settled.RETRIED


async def reject(hand: Hand, claim: Claim) -> None:
    assert await hand.dead(claim, "rejected") is Settled.DEAD


async def handle(hand: Hand, claim: Claim) -> None:
    await hand.mark(claim)
    assert await settle(hand, claim, "done", (RETENTION, (), (), True, 0)) is Settled.DONE


async def be_cut_off(hand: Hand, claim: Claim) -> None:
    """A deploy ends a handler that has begun."""
    assert await settle(hand, claim, "release", (True,)) is Settled.RELEASED
    await hand.redis.zadd(keys.QUEUE, {claim.job: 2_000_000_000_000})  # out of the way


async def leave_it_to_another(hand: Hand, claim: Claim) -> None:
    """Its mark has changed hands while its handler ran."""
    await hand.mark(claim)
    await hand.redis.set(keys.event("org_a", "evt_1"), "done:org_a:other")
    assert await settle(hand, claim, "duplicate", (True,)) is Settled.DUPLICATE


async def fail_as_a_duplicate(hand: Hand, claim: Claim) -> None:
    await hand.mark(claim)
    await hand.redis.set(keys.event("org_a", "evt_1"), "done:org_a:other")
    assert await hand.dead(claim) is Settled.DUPLICATE


async def lose_the_lease(hand: Hand, claim: Claim) -> None:
    """T25: the handler may well have begun."""
    await hand.come_due(claim.job)
    await hand.promote()


@pytest.mark.parametrize(
    "leave",
    [
        retry,
        reject,
        handle,
        be_cut_off,
        leave_it_to_another,
        fail_as_a_duplicate,
        lose_the_lease,
    ],
)
async def test_a_handler_that_has_begun_has_used_its_start(
    redis: Redis, hand: Hand, leave: Leave
) -> None:
    await at_a_rate(hand)
    await accepted(redis, 3)
    (claim,) = await hand.claim()
    await leave(hand, claim)
    await redis.zadd(keys.DUE, {"rate:org_a": 1})
    assert await hand.claim() == []
    await minutes_pass(redis, 1)
    assert len(await hand.claim()) == 1


async def test_another_round_after_a_conflict_takes_a_start_of_its_own(
    redis: Redis, hand: Hand
) -> None:
    await at_a_rate(hand)
    (job,) = await accepted(redis, 1)
    (claim,) = await hand.claim()
    await hand.mark(claim)
    stale = [("v", "a digest of what is no more")]
    assert await hand.done(claim, reads=stale) is Settled.LATER
    assert await hand.claim() == []
    await minutes_pass(redis, 1)
    again = await hand.claim_only(job)
    assert await hand.mark(again) is Mark.OWN
    assert await hand.done(again, reads=await hand.read("v")) is Settled.DONE
    found = await account(redis)
    assert (found.accepted, found.turns, found.in_turn) == (set(), {}, {})


async def test_a_clock_that_was_set_back_holds_nobody_for_longer_than_one_start(
    redis: Redis, hand: Hand
) -> None:
    await at_a_rate(hand)
    await accepted(redis, 1)
    await redis.hset(keys.RATES, "next:org_a", "9e15")
    claimed = await hand.transitions.claim("w1", most=5, lease=30, holding=0)
    assert claimed.jobs == []
    assert claimed.next_due is not None
    assert claimed.next_due <= 60
