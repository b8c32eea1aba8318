"""The races of turns of values, each as the one order of steps that shows it.

Q comes before J, J before P, in order of acceptance. x and y are values of the organization.
"""

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from tests.integration.by_hand import Hand
from tests.integration.in_turns import (
    KEY,
    LINE,
    OF_X,
    OF_Y,
    all_handled,
    ask,
    commit,
    handle,
    has_x,
    started,
    whole,
    write,
)
from tests.integration.jobs import account, counters, delivery, enqueued
from worker.pipeline.transitions import Claim, Mark, Settled

Q, J, P = delivery(b"Q"), delivery(b"J, later"), delivery(b"P, the last")
W = delivery(b"W, who writes and reads nothing")


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis, has_turns=True)


async def again(hand: Hand, claim: Claim, key: str | None = None) -> None:
    """Let its handler run again, with what it reads then, and commit."""
    assert await ask(hand, claim, key) is Mark.OWN
    assert await commit(hand, claim, reads=await hand.read("x"), writes=["x"]) is Settled.DONE


async def test_who_loses_a_commit_has_the_turn_of_the_value_and_keeps_slot_and_attempts(
    redis: Redis, hand: Hand
) -> None:
    """It runs again at once, and commits."""
    (q,) = await enqueued(redis, Q)
    (claim,) = await started(hand, q)
    await has_x(hand, claim)
    found = await account(redis)
    assert (found.turns, found.running) == ({OF_X: [f"*{q}"]}, {"org_a": 1})
    await again(hand, claim)
    await all_handled(redis, hand, q)


async def test_who_loses_a_commit_to_a_value_that_another_has_the_turn_of_waits(
    redis: Redis, hand: Hand
) -> None:
    """Without a slot, and without an attempt or a claim spent."""
    q, j = await enqueued(redis, Q, J)
    first, second = await started(hand, q, j)
    before = await hand.read("x")
    await has_x(hand, first)
    assert await commit(hand, second, reads=before) is Settled.IN_LINE
    found = await account(redis)
    assert found.turns == {OF_X: [f"*{q}", j]}
    assert (found.running, found.in_turn) == ({"org_a": 1}, {"org_a": 1})
    await whole(redis)
    await again(hand, first)
    woken = await hand.claim_only(j)
    assert (woken.attempts, woken.claims) == (0, 0)
    await again(hand, woken)
    await all_handled(redis, hand, q, j)


async def test_t14_two_who_read_two_values_never_wait_while_they_have_one(
    redis: Redis, hand: Hand
) -> None:
    """A has x and B has y, and others write both blindly: each failure is somebody's commit."""
    a, b = await enqueued(redis, Q, J)
    of_a, of_b = await started(hand, a, b)
    reads_a, reads_b = await hand.read("x"), await hand.read("y")
    await write(hand, "x", "y")
    assert await commit(hand, of_a, reads=reads_a) is Settled.CONFLICT
    assert await commit(hand, of_b, reads=reads_b) is Settled.CONFLICT
    assert (await account(redis)).turns == {OF_X: [f"*{a}"], OF_Y: [f"*{b}"]}

    both = await hand.read("y", "x")
    await write(hand, "x", "y")
    assert await commit(hand, of_a, reads=both) is Settled.CONFLICT  # it has x, the first of these
    both_again = await hand.read("y", "x")
    await write(hand, "y")
    assert await commit(hand, of_b, reads=both) is Settled.IN_LINE  # so it gives back y
    assert (await account(redis)).turns == {OF_X: [f"*{a}", b]}
    await whole(redis)
    assert await commit(hand, of_a, reads=both_again) is Settled.CONFLICT  # gives x back, has y
    assert (await account(redis)).turns == {OF_X: [b], OF_Y: [f"*{a}"]}
    await whole(redis)
    assert await commit(hand, of_a, reads=await hand.read("x", "y"), writes=["x"]) is Settled.DONE
    await again(hand, await hand.claim_only(b))
    await all_handled(redis, hand, a, b)


async def test_t15_who_waits_for_a_value_keeps_the_turn_of_its_key(
    redis: Redis, hand: Hand
) -> None:
    """Q has x, J of a key waits for it, P for J's key: Q, then J, then P."""
    q, j = await enqueued(redis, Q, J)
    (first,) = await started(hand, q)
    (second,) = await started(hand, j, key=KEY)
    before = await hand.read("x")
    await has_x(hand, first)
    assert await commit(hand, second, reads=before) is Settled.IN_LINE
    (p,) = await enqueued(redis, P)
    assert await ask(hand, await hand.claim_only(p)) is Mark.IN_LINE
    found = await account(redis)
    assert found.turns == {LINE: [f"*{j}", p], OF_X: [f"*{q}", j]}
    assert found.in_turn == {"org_a": 2}
    await whole(redis)
    await again(hand, first)
    assert (await account(redis)).queued == {j}
    await again(hand, await hand.claim_only(j), KEY)
    await handle(hand, p)
    await all_handled(redis, hand, q, j, p)


@pytest.mark.parametrize("end", ["retries", "dies", "is released", "loses its lease"])
async def test_t16_a_value_is_held_by_nobody_who_does_not_run(
    redis: Redis, hand: Hand, end: str
) -> None:
    """Q has x and goes away: x passes on at once."""
    q, j = await enqueued(redis, Q, J)
    first, second = await started(hand, q, j)
    before = await hand.read("x")
    await has_x(hand, first)
    assert await commit(hand, second, reads=before) is Settled.IN_LINE
    if end == "retries":
        assert await hand.retry(first) is Settled.RETRIED
    elif end == "dies":
        assert await hand.dead(first) is Settled.DEAD
    elif end == "is released":
        assert await hand.release(first) is Settled.RELEASED
    else:
        await hand.come_due(q)
        await hand.promote()
    found = await account(redis)
    assert j in found.queued
    assert (found.turns, found.in_turn) == ({OF_X: [j]}, {})
    await whole(redis)
    if end == "dies":
        assert await hand.replay(q) == "queued"
    elif end == "retries":
        await hand.come_due(q)
    claims = {each.job: each for each in await hand.claim(2)}
    await again(hand, claims[j])
    revived = end == "dies"
    assert await ask(hand, claims[q], None) is (Mark.REVIVED if revived else Mark.OWN)
    assert await commit(hand, claims[q], reads=await hand.read("x")) is Settled.DONE
    await all_handled(redis, hand, q, j)


async def test_t17_a_newcomer_waits_for_whom_its_commit_would_make_run_again(
    redis: Redis, hand: Hand
) -> None:
    """What it has read is unchanged; it runs twice, and so does Q."""
    q, j = await enqueued(redis, Q, J)
    first, second = await started(hand, q, j)
    await has_x(hand, first)
    unchanged = await hand.read("x")
    assert await commit(hand, second, reads=unchanged, writes=["x"]) is Settled.IN_LINE
    assert (await account(redis)).turns == {OF_X: [f"*{q}", j]}
    await whole(redis)
    await again(hand, first)
    await again(hand, await hand.claim_only(j))
    assert int(await redis.get(keys.state("org_a", "x"))) == 3  # the writer's, too
    await all_handled(redis, hand, q, j)


async def test_a_newcomer_that_reads_another_value_waits_for_nobody(
    redis: Redis, hand: Hand
) -> None:
    """Only what it has read counts, not what it writes."""
    q, j = await enqueued(redis, Q, J)
    first, second = await started(hand, q, j)
    await has_x(hand, first)
    assert await commit(hand, second, reads=await hand.read("y"), writes=["x"]) is Settled.DONE
    await again(hand, first)
    await all_handled(redis, hand, q, j)


async def test_in_line_for_a_value_an_earlier_event_goes_first(redis: Redis, hand: Hand) -> None:
    """By acceptance, whoever lost its commit first."""
    q, j, p = await enqueued(redis, Q, J, P)
    first, second, third = await started(hand, q, j, p)
    before = await hand.read("x")
    await has_x(hand, first)
    assert await commit(hand, third, reads=before) is Settled.IN_LINE
    assert await commit(hand, second, reads=before) is Settled.IN_LINE
    assert (await account(redis)).turns == {OF_X: [f"*{q}", j, p]}
    await again(hand, first)
    await again(hand, await hand.claim_only(j))
    await again(hand, await hand.claim_only(p))
    await all_handled(redis, hand, q, j, p)


async def test_a_key_that_looks_like_a_value_has_a_turn_of_its_own(
    redis: Redis, hand: Hand
) -> None:
    """Keys are made of what comes from outside."""
    (q,) = await enqueued(redis, Q)
    (claim,) = await started(hand, q, key="state:x")
    await has_x(hand, claim)
    assert (await account(redis)).turns == {"org_a:key:state:x": [f"*{q}"], OF_X: [f"*{q}"]}
    assert await hand.retry(claim) is Settled.RETRIED
    assert (await account(redis)).turns == {"org_a:key:state:x": [f"*{q}"]}
    await hand.come_due(q)
    await handle(hand, q, "state:x")
    await all_handled(redis, hand, q)


async def test_conflicts_are_counted(redis: Redis, hand: Hand) -> None:
    """Each run in vain is one, whether it runs again at once or waits."""
    q, j = await enqueued(redis, Q, J)
    first, second = await started(hand, q, j)
    before = await hand.read("x")
    await has_x(hand, first)
    assert await commit(hand, second, reads=before) is Settled.IN_LINE
    assert (await counters(redis))["state_conflicts"] == 2
