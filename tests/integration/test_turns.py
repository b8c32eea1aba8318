"""The races of turns, each as the one order of steps that shows it.

J before P before R in order of acceptance, all of one key; K is J's event in other bytes, X has
another key. t1 and t2 are tokens.
"""

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from shared.queue.writer import Accepted
from tests.integration.by_hand import Hand
from tests.integration.in_turns import (
    KEY,
    LINE,
    all_handled,
    ask,
    commit,
    doubt_is_over,
    handle,
    whole,
)
from tests.integration.jobs import account, counters, delivery, enqueue, enqueued, mark_of
from worker.operate import organizations
from worker.pipeline.transitions import Claim, Mark, Settled

J, P, R = delivery(b"J"), delivery(b"P, later"), delivery(b"R, the last")
K, X = delivery(b"K, the same event"), delivery(b"X, another key")


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis, has_turns=True)


async def one_has_it(hand: Hand, *waiting: str) -> Claim:
    """Let the first in line take the turn, and the others, in their order, wait for it."""
    first = (await hand.claim(1))[0]
    assert await ask(hand, first) is Mark.FRESH
    for job in waiting:
        claim = (await hand.claim(1))[0]
        assert claim.job == job
        assert await ask(hand, claim) is Mark.IN_LINE
    await whole(hand.redis)
    return first


async def test_t1_who_asks_before_an_earlier_one_has_been_decoded_asks_again(
    redis: Redis, hand: Hand
) -> None:
    """P is put off for a moment, and comes after J."""
    j, p = await enqueued(redis, J, P)
    first, second = (await hand.claim(1))[0], (await hand.claim(1))[0]
    assert (await account(redis)).undecided == {"org_a": [j, p]}
    assert await ask(hand, second) is Mark.LATER
    seconds, microseconds = await redis.time()
    due = await redis.zscore(keys.QUEUE, p)
    assert keys.DEFERRED_FROM < due <= seconds * 1000 + microseconds / 1000 + 20
    found = await account(redis)
    assert found.turns == {LINE: [p]}
    assert (found.undecided, found.running, found.in_turn) == ({"org_a": [j]}, {"org_a": 1}, {})
    await whole(redis)

    assert await ask(hand, first) is Mark.FRESH
    await hand.come_due(p)
    assert await ask(hand, await hand.claim_only(p)) is Mark.IN_LINE
    assert (await account(redis)).turns == {LINE: [f"*{j}", p]}
    await whole(redis)
    assert await commit(hand, first) is Settled.DONE
    await handle(hand, p)
    await all_handled(redis, hand, j, p)


async def test_t2_a_worker_that_dies_before_it_has_decoded_costs_a_second_once(
    redis: Redis, hand: Hand
) -> None:
    """P goes on after that second, others at once; J gets in line when it is back."""
    j, p, x, r = await enqueued(redis, J, P, X, R)
    dead, second = (await hand.claim(1))[0], (await hand.claim(1))[0]
    assert (dead.job, second.job) == (j, p)
    assert await ask(hand, second) is Mark.LATER
    await doubt_is_over(redis, p)
    await hand.come_due(p)
    claims = {each.job: each for each in await hand.claim(3)}
    assert await ask(hand, claims[p]) is Mark.OWN
    assert (await counters(redis))["overtaken"] == 1
    assert await ask(hand, claims[x], "another") is Mark.FRESH
    assert await commit(hand, claims[x]) is Settled.DONE
    assert await ask(hand, claims[r]) is Mark.IN_LINE
    await whole(redis)

    await hand.come_due(j)
    assert await ask(hand, await hand.claim_only(j)) is Mark.IN_LINE
    assert (await account(redis)).turns == {LINE: [f"*{p}", j, r]}
    assert await commit(hand, claims[p]) is Settled.DONE
    await handle(hand, j)
    await handle(hand, r)
    await all_handled(redis, hand, j, p, r, x)


async def test_t3_an_expired_lease_loses_no_turn(redis: Redis, hand: Hand) -> None:
    """Who had the lease commits nothing; J has the turn still, and P comes after it."""
    j, p = await enqueued(redis, J, P)
    t1 = await one_has_it(hand, p)
    await hand.come_due(j)
    t3 = await hand.claim_only(j)
    assert await commit(hand, t1) is Settled.LOST
    assert (await account(redis)).turns == {LINE: [f"*{j}", p]}
    assert await ask(hand, t3) is Mark.OWN
    await whole(redis)
    assert await commit(hand, t3) is Settled.DONE
    await handle(hand, p)
    await all_handled(redis, hand, j, p)


async def test_t4_a_retrying_one_keeps_its_turn_and_holds_up_no_other_key(
    redis: Redis, hand: Hand
) -> None:
    """P waits without a slot until J is done; X runs meanwhile."""
    await hand.cap(2)
    j, p, x = await enqueued(redis, J, P, X)
    first = await one_has_it(hand, p)
    assert await hand.retry(first) is Settled.RETRIED
    assert (await account(redis)).running == {}
    await handle(hand, x, "another", found=Mark.FRESH)
    assert await hand.claim() == []
    assert (await account(redis)).turns == {LINE: [f"*{j}", p]}

    await hand.come_due(j)
    await handle(hand, j)
    second = await hand.claim_only(p)
    assert (second.attempts, second.claims) == (0, 0)
    assert await ask(hand, second) is Mark.OWN
    assert await commit(hand, second) is Settled.DONE
    await all_handled(redis, hand, j, p, x)


async def test_t5_who_waits_and_asks_again_since_the_reply_was_lost_waits_once(
    redis: Redis, hand: Hand
) -> None:
    """The second one is lost, and changes nothing."""
    j, p = await enqueued(redis, J, P)
    first = await one_has_it(hand)
    second = await hand.claim_only(p)
    assert await ask(hand, second) is Mark.IN_LINE
    before = await whole(redis)
    assert await ask(hand, second) is Mark.LOST
    assert (await whole(redis)).values == before.values
    assert (await account(redis)).in_turn == {"org_a": 1}
    assert await commit(hand, first) is Settled.DONE
    await handle(hand, p)
    await all_handled(redis, hand, j, p)


async def test_t6_who_has_it_and_asks_again_since_the_reply_was_lost_has_it(
    redis: Redis, hand: Hand
) -> None:
    """It changes nothing."""
    (j,) = await enqueued(redis, J)
    claim = await hand.claim_only(j)
    assert await ask(hand, claim) is Mark.FRESH
    before = await whole(redis)
    assert await ask(hand, claim) is Mark.OWN
    assert (await whole(redis)).values == before.values
    assert await commit(hand, claim) is Settled.DONE
    await all_handled(redis, hand, j)


@pytest.mark.parametrize("how", ["redelivered", "replayed", "resumed"])
async def test_t7_who_waits_has_a_place(redis: Redis, hand: Hand, how: str) -> None:
    """Whatever brings it again leaves it in its turn, and nowhere else."""
    j, p = await enqueued(redis, J, P)
    first = await one_has_it(hand, p)
    before = await account(redis)
    if how == "redelivered":
        assert await enqueue(redis, P) == [Accepted.KNOWN]
    elif how == "replayed":  # from a letter that somebody's hand has brought back
        await redis.hset(keys.dead_letter(p), mapping={"payload": "P", "received_at": "1"})
        assert await hand.replay(p) == "known"
        await redis.delete(keys.dead_letter(p))
    else:
        await organizations.pause(Partition.only(redis), "org_a", "a test")
        await organizations.resume(Partition.only(redis), "org_a")
    assert await account(redis) == before
    await whole(redis)
    assert await commit(hand, first) is Settled.DONE
    await handle(hand, p)
    await all_handled(redis, hand, j, p)


async def test_t8_other_bytes_of_an_event_that_waits_leave(redis: Redis, hand: Hand) -> None:
    """J's place and mark stand."""
    q, j = await enqueued(redis, X, J)
    first = await one_has_it(hand, j)
    (k,) = await enqueued(redis, K)
    late = await hand.claim_only(k)
    assert await ask(hand, late, event=j) is Mark.CONFLICTING
    assert await hand.duplicate(late) is Settled.DUPLICATE
    assert (await account(redis)).turns == {LINE: [f"*{q}", j]}
    assert await mark_of(redis, j) == f"pending:{j}"
    assert await commit(hand, first) is Settled.DONE
    await handle(hand, j)
    await all_handled(redis, hand, q, j)


@pytest.mark.parametrize("has_it", [True, False])
async def test_t9_an_event_that_other_bytes_take_over_leaves_its_turn(
    redis: Redis,
    hand: Hand,
    has_it: bool,  # noqa: FBT001  # a case of one test
) -> None:
    """J's payload is deleted, and K comes with another key: who waited for J is woken."""
    if has_it:
        j, p = await enqueued(redis, J, P)
        first = await one_has_it(hand, p)
        assert await hand.retry(first) is Settled.RETRIED
    else:
        _, j, p = await enqueued(redis, X, J, P)
        first = await one_has_it(hand, j, p)
    await redis.delete(keys.payload(j))
    (k,) = await enqueued(redis, K)
    late = await hand.claim_only(k)
    assert await ask(hand, late, "a third", event=j) is Mark.TAKEN_OVER
    assert await commit(hand, late, event=j) is Settled.DONE
    if not has_it:
        assert (await account(redis)).turns == {LINE: [f"*{first.job}", p]}
        assert await commit(hand, first) is Settled.DONE
    await handle(hand, p)
    await all_handled(redis, hand, j, p, robbed=j)


async def test_t9_an_event_that_claim_drops_leaves_its_turn(redis: Redis, hand: Hand) -> None:
    """Somebody's hand has taken away J with its acceptance."""
    j, p = await enqueued(redis, J, P)
    first = await one_has_it(hand, p)
    assert await hand.release(first) is Settled.RELEASED
    await redis.delete(keys.payload(j))
    await redis.zrem(keys.ACCEPTED, j)
    await redis.hincrby(keys.WAITING, "org_a", -1)
    await handle(hand, p)  # claimed by the look that drops J
    assert (await counters(redis))["dropped"] == 1
    await all_handled(redis, hand, p, robbed=j)


async def test_t9_an_event_that_waits_and_has_lost_its_payload_is_buried_in_its_turn(
    redis: Redis, hand: Hand
) -> None:
    """It is woken like any other, and who waits behind it comes next."""
    q, j, p = await enqueued(redis, X, J, P)
    first = await one_has_it(hand, j, p)
    await redis.delete(keys.payload(j))
    assert await commit(hand, first) is Settled.DONE
    assert await hand.dead(await hand.claim_only(j), "payload_lost") is Settled.DEAD
    await handle(hand, p)
    await all_handled(redis, hand, q, p, robbed=j)


async def test_t10_a_replayed_event_goes_before_one_that_was_woken(
    redis: Redis, hand: Hand
) -> None:
    """J has the order that it had; P waits again, in one place."""
    (x,) = await enqueued(redis, X)
    await handle(hand, x, found=Mark.FRESH)
    j, p = await enqueued(redis, J, P)
    order = await redis.zscore(keys.ACCEPTED, j)
    first = await one_has_it(hand, p)
    assert await hand.dead(first) is Settled.DEAD
    assert (await account(redis)).queued == {p}
    assert await hand.replay(j) == "queued"
    assert await redis.zscore(keys.ACCEPTED, j) == order
    claims = {each.job: each for each in await hand.claim(2)}
    assert await ask(hand, claims[j]) is Mark.REVIVED
    assert await ask(hand, claims[p]) is Mark.IN_LINE
    assert (await account(redis)).turns == {LINE: [f"*{j}", p]}
    await whole(redis)
    assert await commit(hand, claims[j]) is Settled.DONE
    await handle(hand, p)
    await all_handled(redis, hand, j, p)


async def test_t11_who_is_woken_parks_while_its_organization_is_paused(
    redis: Redis, hand: Hand
) -> None:
    """P is parked once, then runs, and R doesn't run meanwhile."""
    j, p, r = await enqueued(redis, J, P, R)
    first = await one_has_it(hand, p)
    last = await hand.claim_only(r)
    assert await commit(hand, first) is Settled.DONE
    await organizations.pause(Partition.only(redis), "org_a", "a test")
    assert await hand.claim() == []
    assert await ask(hand, last) is Mark.IN_LINE
    found = await account(redis)
    assert (found.parked, found.queued, found.turns) == ({p}, set(), {LINE: [p, r]})
    await whole(redis)
    await organizations.resume(Partition.only(redis), "org_a")
    await handle(hand, p)
    await handle(hand, r)
    await all_handled(redis, hand, j, p, r)


async def test_t11_who_is_woken_parks_at_the_cap(redis: Redis, hand: Hand) -> None:
    """P is parked while X has the slot."""
    await hand.cap(2)
    j, p, x = await enqueued(redis, J, P, X)
    first = await one_has_it(hand, p)
    other = await hand.claim_only(x)
    assert await ask(hand, other, "another") is Mark.FRESH
    await hand.cap(1)
    assert await commit(hand, first) is Settled.DONE
    assert await hand.claim() == []
    assert (await account(redis)).parked == {p}
    await whole(redis)
    assert await commit(hand, other) is Settled.DONE
    await handle(hand, p)
    await all_handled(redis, hand, j, p, x)


async def test_t12_one_at_a_time_who_waits_frees_the_slot_for_whom_it_waits(
    redis: Redis, hand: Hand
) -> None:
    """J's lease is over while P has the only slot; J comes first, then P, then R."""
    await hand.cap(2)
    j, p, r = await enqueued(redis, J, P, R)
    first, second = await hand.claim(2)
    assert await ask(hand, first) is Mark.FRESH
    await hand.cap(1)
    await hand.come_due(j)
    await hand.promote()
    assert await hand.claim() == []
    found = await account(redis)
    assert (found.parked, found.running) == ({j, r}, {"org_a": 1})
    assert await ask(hand, second) is Mark.IN_LINE
    assert (await account(redis)).running == {}
    await whole(redis)

    await handle(hand, j)
    (claim,) = await hand.claim(1)
    assert claim.job == p  # in order of acceptance, though R has stood in line all the time
    assert await ask(hand, claim) is Mark.OWN
    assert await commit(hand, claim) is Settled.DONE
    await handle(hand, r, found=Mark.FRESH)
    await all_handled(redis, hand, j, p, r)


async def test_t13_an_event_that_a_breaker_lets_through_and_that_must_wait_tries_nothing(
    redis: Redis, hand: Hand
) -> None:
    """Another may try, and the breaker has learned nothing."""
    j, p, x = await enqueued(redis, J, P, X)
    first = await one_has_it(hand)
    assert await hand.retry(first) is Settled.RETRIED
    breaker = (keys.ORGANIZATIONS, f"{keys.BREAKER}org_a")
    await redis.hset(*breaker, "trying:")
    second = await hand.claim_only(p)
    assert await redis.hget(*breaker) == f"trying:{p}".encode()
    assert await ask(hand, second) is Mark.IN_LINE
    assert await redis.hget(*breaker) == b"trying:"
    await whole(redis)
    await handle(hand, x, "another", found=Mark.FRESH)
    await hand.come_due(j)
    await handle(hand, j)
    await handle(hand, p)
    await all_handled(redis, hand, j, p, x)


@pytest.mark.parametrize("waits", [True, False])
async def test_t23_who_was_ended_by_an_older_version_is_found(
    redis: Redis,
    hand: Hand,
    waits: bool,  # noqa: FBT001  # a case of one test
) -> None:
    """It ends J and passes nothing on; a later sign of life does, and counts it."""
    j, p, r = await enqueued(redis, J, P, R)
    first = await one_has_it(hand, p, r)
    gone = p if waits else j
    await redis.delete(keys.payload(gone))
    await redis.hdel(keys.CLAIMS, gone)
    await redis.zrem(keys.ACCEPTED, gone)
    await redis.zrem(keys.QUEUE, gone)
    await redis.hincrby(keys.WAITING, "org_a", -1)
    if not waits:
        await redis.hdel(keys.RUNNING, "org_a")
    await hand.transitions.renew("w1", [], description=b"{}", slots=5, lease=30)
    assert (await counters(redis))["turns_mended"] == 1
    if waits:
        assert (await account(redis)).turns == {LINE: [f"*{j}", r]}
        assert await commit(hand, first) is Settled.DONE
    else:
        await handle(hand, p)
    await handle(hand, r)
    await all_handled(redis, hand, r, robbed=gone)


async def test_an_event_of_another_organization_with_the_same_key_is_not_held(
    redis: Redis, hand: Hand
) -> None:
    """Each organization has its own turns."""
    j, p = await enqueued(redis, J, delivery(b"P", "org_b"))
    first = await one_has_it(hand)
    second = await hand.claim_only(p)
    assert await ask(hand, second) is Mark.FRESH
    found = await account(redis)
    assert found.turns == {LINE: [f"*{j}"], f"org_b:key:{KEY}": [f"*{p}"]}
    assert await commit(hand, second) is Settled.DONE
    assert await commit(hand, first) is Settled.DONE
    await whole(redis)
