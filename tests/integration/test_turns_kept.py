"""Facts about turns beside their races: names, order, batches, and what somebody's hand does.

J comes before P, P before R, in order of acceptance, all of one key.
"""

from hashlib import sha1

import msgspec
import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from shared.queue.writer import Accepted
from tests.integration.books import Books
from tests.integration.by_hand import Hand
from tests.integration.in_turns import (
    KEY,
    LINE,
    OF_X,
    all_handled,
    ask,
    commit,
    doubt_is_over,
    handle,
    has_x,
    started,
    whole,
)
from tests.integration.jobs import RECEIVED_AT, account, counters, delivery, enqueue, enqueued
from worker.operate import upkeep
from worker.pipeline.transitions import Claim, Mark, Marked, MarkRequest, Refused, Settled
from worker.turns import Turn

J, P, R = delivery(b"J"), delivery(b"P, later"), delivery(b"R, the last")
K, X = delivery(b"K, the same event as J"), delivery(b"X, without a key")


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis, has_turns=True)


async def renew(hand: Hand) -> None:
    """Let a worker show that it lives."""
    await hand.transitions.renew("w1", [], description=b"{}", slots=5, lease=30)


async def in_one_call(hand: Hand, *claims: Claim, key: str = KEY) -> list[Mark]:
    """Ask for several at once."""
    requests = [MarkRequest(each, each.job, turn=Turn(key)) for each in claims]
    answers = await hand.transitions.mark(requests)
    return [answer.mark for answer in answers if isinstance(answer, Marked)]


async def test_a_long_name_is_shortened(redis: Redis, hand: Hand) -> None:
    """A sender may put anything into an order's id."""
    digest = sha1(b"key:" + b"k" * 125, usedforsecurity=False).hexdigest()
    for length, name in {124: "key:" + "k" * 124, 125: digest}.items():
        j, p = await enqueued(redis, delivery(b"%d" % length), delivery(b"%d, later" % length))
        first, second = await hand.claim(2)
        marks = await in_one_call(hand, first, second, key="k" * length)
        assert marks == [Mark.FRESH, Mark.IN_LINE]
        assert (await account(redis)).turns == {f"org_a:{name}": [f"*{j}", p]}
        await whole(redis)
        assert await commit(hand, first) is Settled.DONE
        await handle(hand, p, "k" * length)
        await all_handled(redis, hand, j, p)


async def test_order_rises_though_the_moments_of_receipt_do_not(redis: Redis) -> None:
    """Several come in one millisecond, and another ingress's clock may be behind."""
    moments = [0, 0, 0, -5000, 1, 1]
    jobs = []
    for number, moment in enumerate(moments):  # the first three in one batch, as it were
        jobs += await enqueued(redis, delivery(b"%d" % number, received_at=RECEIVED_AT + moment))
    jobs += await enqueued(redis, *(delivery(b"batch %d" % number) for number in range(3)))
    other = await enqueued(redis, delivery(b"{}", "org_b", received_at=RECEIVED_AT - 9000))
    orders = [await redis.zscore(keys.ACCEPTED, job) for job in jobs]
    assert orders == sorted(set(orders))
    assert orders[0] == RECEIVED_AT
    assert orders[-1] < RECEIVED_AT + 2
    assert await redis.zscore(keys.ACCEPTED, other[0]) == RECEIVED_AT - 9000


async def test_in_one_call_the_earlier_one_asks_first(redis: Redis, hand: Hand) -> None:
    """Whatever their order in the call."""
    j, p, r = await enqueued(redis, J, P, R)
    claims = await hand.claim(3)
    assert await in_one_call(hand, *reversed(claims)) == [Mark.IN_LINE, Mark.IN_LINE, Mark.FRESH]
    assert (await account(redis)).turns == {LINE: [f"*{j}", p, r]}
    await whole(redis)
    assert await commit(hand, claims[0]) is Settled.DONE
    await handle(hand, p)
    await handle(hand, r)
    await all_handled(redis, hand, j, p, r)


async def test_one_that_is_twice_in_a_call_waits_once(redis: Redis, hand: Hand) -> None:
    """The second time it is held no more."""
    j, p = await enqueued(redis, J, P)
    first, second = await hand.claim(2)
    assert await ask(hand, first) is Mark.FRESH
    assert await in_one_call(hand, second, second) == [Mark.IN_LINE, Mark.LOST]
    found = await account(redis)
    assert (found.running, found.in_turn) == ({"org_a": 1}, {"org_a": 1})
    await whole(redis)
    assert await commit(hand, first) is Settled.DONE
    await handle(hand, p)
    await all_handled(redis, hand, j, p)


async def test_one_that_is_taken_over_in_the_same_call_asks_for_nothing(
    redis: Redis, hand: Hand
) -> None:
    """J's payload is deleted while it runs, and K, which is in one call with J, has its event."""
    p, j, k = await enqueued(redis, P, J, K)
    last, first, late = await hand.claim(3)
    assert await ask(hand, last, "another") is Mark.FRESH
    assert await ask(hand, first) is Mark.FRESH
    await redis.delete(keys.payload(j))
    requests = [MarkRequest(each, j, turn=Turn("another")) for each in (first, late)]
    answers = await hand.transitions.mark(requests)
    assert [each.mark for each in answers if isinstance(each, Marked)] == [Mark.LOST, Mark.IN_LINE]
    found = await account(redis)
    assert found.accepted == {k, p}
    assert (found.running, found.turns) == ({"org_a": 1}, {"org_a:key:another": [f"*{p}", k]})
    await whole(redis, robbed=j)
    assert await commit(hand, last) is Settled.DONE
    claim = await hand.claim_only(k)
    assert await ask(hand, claim, "another", event=j) is Mark.OWN
    assert await commit(hand, claim, event=j) is Settled.DONE
    await all_handled(redis, hand, j, p, robbed=j)


async def test_an_event_that_gets_a_key_while_it_waits_for_a_value_gives_that_up(
    redis: Redis, hand: Hand
) -> None:
    """A deploy brings the key: J waits for P, which has it, and P for nothing that J has."""
    q, j = await enqueued(redis, X, J)
    first, second = await started(hand, q, j)
    before = await hand.read("x")
    await has_x(hand, first)
    assert await commit(hand, second, reads=before) is Settled.IN_LINE
    (p,) = await enqueued(redis, P)
    third = await hand.claim_only(p)
    assert await ask(hand, third) is Mark.FRESH
    assert await commit(hand, first, reads=await hand.read("x"), writes=["x"]) is Settled.DONE
    assert await ask(hand, await hand.claim_only(j)) is Mark.IN_LINE
    assert (await account(redis)).turns == {LINE: [f"*{p}", j]}
    await whole(redis)
    assert await commit(hand, third, reads=before, writes=["x"]) is Settled.CONFLICT
    assert await ask(hand, third) is Mark.OWN
    assert await commit(hand, third, reads=await hand.read("x")) is Settled.DONE
    await handle(hand, j)
    await all_handled(redis, hand, q, j, p)


async def test_an_event_that_has_no_key_any_more_waits_for_nobody(redis: Redis, hand: Hand) -> None:
    """A deploy has taken it away: J leaves the turn at its next mark, and P is woken."""
    j, p = await enqueued(redis, J, P)
    first, second = await hand.claim(2)
    assert await in_one_call(hand, first, second) == [Mark.FRESH, Mark.IN_LINE]
    assert await ask(hand, first, None) is Mark.OWN
    assert (await account(redis)).turns == {LINE: [p]}
    await whole(redis)
    assert await commit(hand, first) is Settled.DONE
    await handle(hand, p)
    await all_handled(redis, hand, j, p)


@pytest.mark.parametrize("claimed", [False, True])
async def test_who_waits_and_gets_a_place_from_an_older_version_has_one_in_the_end(
    redis: Redis,
    hand: Hand,
    claimed: bool,  # noqa: FBT001  # a case of one test
) -> None:
    """An older version knows nothing of turns, and puts P back in line."""
    j, p = await enqueued(redis, J, P)
    first, second = await hand.claim(2)
    assert await in_one_call(hand, first, second) == [Mark.FRESH, Mark.IN_LINE]
    await redis.zadd(keys.QUEUE, {p: 5})
    if claimed:
        again = await hand.claim_only(p)
        assert await commit(hand, first) is Settled.DONE
        assert (await account(redis)).leased_or_deferred == {p}
        await whole(redis)
        assert await ask(hand, again) is Mark.OWN
        assert await commit(hand, again) is Settled.DONE
    else:
        assert await ask(hand, await hand.claim_only(p)) is Mark.IN_LINE
        await whole(redis)
        assert await commit(hand, first) is Settled.DONE
        await handle(hand, p)
    await all_handled(redis, hand, j, p)


async def test_an_ingress_without_a_right_to_turns_accepts_all_the_same(
    redis: Redis, hand: Hand
) -> None:
    """Its rights are of an earlier version; the second place that it gives to P is taken away."""
    j, p = await enqueued(redis, J, P)
    first, second = await hand.claim(2)
    assert await in_one_call(hand, first, second) == [Mark.FRESH, Mark.IN_LINE]
    names = ["queue", "accepted", "waiting", "flows", "bytes", "counters", "wake", "parked:*"]
    rights = ["on", "nopass", "+@all", "~arq:*", *(f"~sellfern:{name}" for name in names)]
    await redis.execute_command("ACL", "SETUSER", "earlier", "reset", *rights)
    pool = redis.connection_pool.connection_kwargs
    async with Redis(host=pool["host"], port=pool["port"], username="earlier", password="-") as own:
        assert await enqueue(own, P) == [Accepted.NEW]
    await redis.execute_command("ACL", "DELUSER", "earlier")
    assert await ask(hand, await hand.claim_only(p)) is Mark.IN_LINE
    await whole(redis)
    assert await commit(hand, first) is Settled.DONE
    await handle(hand, p)
    await all_handled(redis, hand, j, p)


async def test_in_order_who_is_woken_goes_back_to_its_place(redis: Redis, hand: Hand) -> None:
    """Though retries of its organization have gone far ahead of it: P comes before R."""
    await hand.cap(1)
    j, p, r = await enqueued(redis, J, P, R)
    await redis.hset(keys.FLOWS, "retry:org_a", "50")
    first = (await hand.claim(1))[0]
    assert await ask(hand, first) is Mark.FRESH
    await hand.cap(2)
    (second,) = await hand.claim(1)
    assert await ask(hand, second) is Mark.IN_LINE
    await hand.cap(1)
    assert await commit(hand, first) is Settled.DONE
    (claim,) = await hand.claim(1)
    assert claim.job == p
    assert await ask(hand, claim) is Mark.OWN
    assert await commit(hand, claim) is Settled.DONE
    await handle(hand, r, found=Mark.FRESH)
    await all_handled(redis, hand, j, p, r)


async def test_an_event_that_was_received_at_no_time_waits_like_any_other(
    redis: Redis, hand: Hand
) -> None:
    """0 in a turn is for who has it."""
    p, r = await enqueued(redis, P, R)
    first = (await hand.claim(1))[0]
    assert await ask(hand, first) is Mark.FRESH
    await redis.zadd(keys.ACCEPTED, {r: 0})
    assert await ask(hand, await hand.claim_only(r)) is Mark.IN_LINE
    assert (await account(redis)).turns == {LINE: [f"*{p}", r]}
    assert await commit(hand, first) is Settled.DONE
    await handle(hand, r)
    await all_handled(redis, hand, p, r)


@pytest.mark.parametrize("end", ["dies", "is adopted", "retries", "is released", "is lost"])
async def test_nobody_waits_for_who_is_not_decoded_any_more(
    redis: Redis, hand: Hand, end: str
) -> None:
    """Whatever becomes of J, nobody thinks that it is just being decoded."""
    await hand.cap(1)
    (j,) = await enqueued(redis, J)
    claim = await hand.claim_only(j)
    if end == "dies":  # for the second time, of the first of which its event is known
        assert await ask(hand, claim) is Mark.FRESH
        assert await hand.dead(claim) is Settled.DEAD
        assert await hand.replay(j) == "queued"
        claim = await hand.claim_only(j)
        assert (await account(redis)).undecided == {"org_a": [j]}
        assert await hand.dead(claim, "undecodable") is Settled.DEAD
    elif end == "is adopted":
        await hand.transitions.adopt(j, lease=30)
    elif end == "retries":
        assert await hand.retry(claim) is Settled.RETRIED
    elif end == "is released":
        assert await hand.release(claim) is Settled.RELEASED
    else:
        await hand.come_due(j)
        await hand.promote()
    assert (await account(redis)).undecided == {}


async def test_who_asks_again_in_a_moment_wakes_a_worker_that_sleeps(
    redis: Redis, hand: Hand
) -> None:
    """It would look only a second later."""
    await enqueued(redis, J, P)
    _, second = await hand.claim(2)
    await redis.delete(keys.WAKE)
    assert await ask(hand, second) is Mark.LATER
    assert await redis.llen(keys.WAKE) == 1


async def test_two_that_are_put_off_come_in_order(redis: Redis, hand: Hand) -> None:
    """P and R are put off for J's sake, which doesn't come."""
    j, p, r = await enqueued(redis, J, P, R)
    _, second, third = await hand.claim(3)
    assert await in_one_call(hand, third, second) == [Mark.IN_LINE, Mark.LATER]
    await whole(redis)
    await doubt_is_over(redis, p)
    await hand.come_due(p)
    await handle(hand, p)
    await handle(hand, r)
    await hand.come_due(j)
    await handle(hand, j, found=Mark.FRESH)
    await all_handled(redis, hand, j, p, r)


FOREIGN = {
    "turns": keys.TURNS,
    "latest": keys.LATEST,
    "in-turn": keys.IN_TURN,
    "undecided": f"{keys.UNDECIDED}org_a",
}


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_foreign_value_costs_the_order_and_no_event(
    redis: Redis, hand: Hand, name: str
) -> None:
    """Somebody has put a string where turns are kept."""
    await redis.set(FOREIGN[name], "foreign")
    jobs = await enqueued(redis, J, P, R)
    for _ in range(4):
        await renew(hand)
        for claim in await hand.claim():
            mark = await ask(hand, claim, latest=name == "latest")
            if mark in {Mark.FRESH, Mark.OWN}:
                assert await commit(hand, claim) is Settled.DONE
        _ = [job async for job in upkeep.restored(Partition.only(redis), lease=30)]
    await redis.delete(FOREIGN[name])
    jobs += await enqueued(redis, X)  # it sweeps what the turn still holds
    await handle(hand, jobs[-1], found=Mark.FRESH)
    await all_handled(redis, hand, *jobs)


async def test_a_foreign_value_in_the_place_of_a_turn_is_a_failed_attempt(
    redis: Redis, hand: Hand
) -> None:
    """It goes on when that is gone; and who waited in the turn that it has replaced is woken."""
    j, p, r = await enqueued(redis, J, P, R)
    first, second = await hand.claim(2)
    assert await in_one_call(hand, first, second) == [Mark.FRESH, Mark.IN_LINE]
    await redis.set(keys.TURN + LINE, "foreign")
    (answer,) = await hand.transitions.mark(
        [MarkRequest(await hand.claim_only(r), r, turn=Turn(KEY))]
    )
    assert isinstance(answer, Refused)
    assert "WRONGTYPE" in str(answer)
    await Books.read(redis)
    assert await commit(hand, first) is Settled.DONE
    await renew(hand)
    assert (await counters(redis))["turns_mended"] == 1
    await redis.delete(keys.TURN + LINE)
    await handle(hand, p)
    await hand.come_due(r)
    await handle(hand, r)
    await all_handled(redis, hand, j, p, r)


async def test_who_waits_in_a_turn_that_somebody_deletes_is_woken(redis: Redis, hand: Hand) -> None:
    """A worker's next sign of life finds it."""
    j, p = await enqueued(redis, J, P)
    first, second = await hand.claim(2)
    assert await in_one_call(hand, first, second) == [Mark.FRESH, Mark.IN_LINE]
    await redis.delete(keys.TURN + LINE)
    assert await commit(hand, first) is Settled.DONE
    await renew(hand)
    await handle(hand, p)
    await all_handled(redis, hand, j, p)


async def test_who_waits_behind_one_that_somebody_takes_out_of_the_turn_is_woken(
    redis: Redis, hand: Hand
) -> None:
    """The same."""
    j, p = await enqueued(redis, J, P)
    first, second = await hand.claim(2)
    assert await in_one_call(hand, first, second) == [Mark.FRESH, Mark.IN_LINE]
    await redis.zrem(keys.TURN + LINE, j)
    await renew(hand)
    await handle(hand, p)
    assert await commit(hand, first) is Settled.DONE
    await all_handled(redis, hand, j, p)


async def test_who_is_in_a_turn_and_in_no_books_has_no_business_there(
    redis: Redis, hand: Hand
) -> None:
    """A stale member holds up nobody."""
    (j,) = await enqueued(redis, J)
    await redis.zadd(keys.TURN + LINE, {"org_a:gone": 0})
    await redis.hset(keys.TURNS, mapping={"org_a:odd": msgspec.msgpack.encode([1, 2])})
    await handle(hand, j, found=Mark.FRESH)
    await renew(hand)
    await all_handled(redis, hand, j)


async def test_replay_restores_the_order_among_values_too(redis: Redis, hand: Hand) -> None:
    """Q has x and dies; replayed, it comes before P, which was accepted later."""
    q, p = await enqueued(redis, X, P)
    order = await redis.zscore(keys.ACCEPTED, q)
    first, second = await started(hand, q, p)
    before = await hand.read("x")
    await has_x(hand, first)
    assert await hand.dead(first) is Settled.DEAD
    assert await hand.replay(q) == "queued"
    assert await redis.zscore(keys.ACCEPTED, q) == order
    assert await commit(hand, second, reads=before) is Settled.CONFLICT
    again = await hand.claim_only(q)
    assert await ask(hand, again, None) is Mark.REVIVED
    assert await commit(hand, again, reads=before) is Settled.IN_LINE
    assert (await account(redis)).turns == {OF_X: [f"*{p}", q]}
    assert await commit(hand, second, reads=await hand.read("x"), writes=["x"]) is Settled.DONE
    await handle(hand, q, None)
    await all_handled(redis, hand, q, p)
