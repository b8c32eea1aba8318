"""The races of events of which only the newest runs, each as the one order of steps that shows it.

J before P before R in order of acceptance, all of one key and one handler; C is another handler's.
"""

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.writer import Accepted
from tests.integration.by_hand import Hand
from tests.integration.in_turns import (
    KEY,
    LINE,
    all_handled,
    ask,
    commit,
    handle,
    has_x,
    started,
    whole,
)
from tests.integration.jobs import account, counters, delivery, enqueue, enqueued, mark_of
from worker.pipeline.transitions import Claim, Mark, Settled

C, J, P, R = (delivery(each) for each in (b"C", b"J", b"P", b"R"))
K = delivery(b"K, the same event as J")
KIND = f"{keys.TURN}{LINE}\nhandler"
QUIET = 60_000


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis, has_turns=True)


async def newest(hand: Hand, claim: Claim, *, quiet: int = 0) -> Mark:
    """Ask as one of those of which only the newest runs."""
    return await ask(hand, claim, latest=True, quiet=quiet)


async def next_one(hand: Hand, job: str) -> Claim:
    """Claim the next in line, which is this one."""
    (claim,) = await hand.claim(1)
    assert claim.job == job
    return claim


async def c_has_it(hand: Hand, job: str) -> Claim:
    """Let a plain event have the turn."""
    claim = await next_one(hand, job)
    assert await ask(hand, claim) is Mark.FRESH
    return claim


async def superseded(redis: Redis, *jobs: str) -> None:
    """These ended since newer ones stood for them: done, and nothing of them is left."""
    found = await account(redis)
    for job in jobs:
        assert await mark_of(redis, job) == f"done:{job}"
        assert 0 < await redis.pttl(keys.event("org_a", job)) <= 7 * 86_400_000
        assert job not in found.accepted | found.payloads | found.claims | found.in_turns
    assert (await counters(redis))["superseded"] == len(jobs)
    await whole(redis)


async def test_t18_who_waits_ends_when_a_newer_one_gets_in_line(redis: Redis, hand: Hand) -> None:
    """J is done; redeliveries of it, in whatever bytes, are duplicates; P stands for it."""
    c, j, p = await enqueued(redis, C, J, P)
    first = await c_has_it(hand, c)
    assert await newest(hand, await next_one(hand, j)) is Mark.IN_LINE
    second = await next_one(hand, p)
    marked = await hand.marked(second, p, key=KEY, latest="handler")
    assert (marked.mark, marked.superseded) == (Mark.IN_LINE, (j,))
    await superseded(redis, j)
    found = await account(redis)
    assert found.turns == {LINE: [f"*{c}", p]}
    assert (found.latest, found.superseded) == ({KIND: p}, {p: [j]})
    assert (found.waiting, found.running, found.in_turn) == (
        {"org_a": 2},
        {"org_a": 1},
        {"org_a": 1},
    )

    assert await enqueue(redis, J, K) == [Accepted.NEW] * 2
    for expected in (Mark.DUPLICATE, Mark.CONFLICTING):
        (claim,) = await hand.claim(1)
        assert await ask(hand, claim, event=j, latest=True) is expected
        assert await hand.duplicate(claim) is Settled.DUPLICATE
    assert await commit(hand, first) is Settled.DONE
    claim = await hand.claim_only(p)
    marked = await hand.marked(claim, p, key=KEY, latest="handler")
    assert (marked.mark, marked.superseded) == (Mark.OWN, (j,))
    assert await commit(hand, claim) is Settled.DONE
    await all_handled(redis, hand, c, p)
    assert await hand.applied(j) == 0


async def test_t19_who_asks_while_a_newer_one_has_the_turn_ends(redis: Redis, hand: Hand) -> None:
    """J, whose worker died before it had asked, is superseded by P, which runs."""
    j, p = await enqueued(redis, J, P)
    old = await next_one(hand, j)
    await redis.delete(f"{keys.UNDECIDED}org_a")  # the second of doubt is over
    second = await next_one(hand, p)
    assert await newest(hand, second) is Mark.FRESH
    assert await newest(hand, old) is Mark.SUPERSEDED
    await superseded(redis, j)
    assert (await account(redis)).running == {"org_a": 1}
    assert await newest(hand, old) is Mark.LOST
    assert await commit(hand, second) is Settled.DONE
    await all_handled(redis, hand, p)


async def test_t20_those_that_are_gathered_end_and_the_newest_starts_at_once(
    redis: Redis, hand: Hand
) -> None:
    """Though yet newer ones come all the time."""
    j, p, r = await enqueued(redis, J, P, R)
    assert await newest(hand, await next_one(hand, j), quiet=QUIET) is Mark.LATER
    found = await account(redis)
    assert (found.turns, found.running) == ({LINE: [f"*{j}"]}, {})
    seconds, _ = await redis.time()
    due = await redis.zscore(keys.QUEUE, j)
    assert seconds * 1000 < due <= seconds * 1000 + 1000 + QUIET
    assert await newest(hand, await next_one(hand, p), quiet=QUIET) is Mark.IN_LINE
    assert await newest(hand, await next_one(hand, r), quiet=QUIET) is Mark.IN_LINE
    await superseded(redis, p)
    await hand.come_due(j)
    assert await newest(hand, await next_one(hand, j), quiet=QUIET) is Mark.SUPERSEDED
    await superseded(redis, p, j)
    assert (await account(redis)).turns == {LINE: [f"*{r}"]}

    s, t = await enqueued(redis, delivery(b"S"), delivery(b"T"))
    claims = {each.job: each for each in await hand.claim()}
    for job in (s, t):
        assert await newest(hand, claims[job], quiet=QUIET) is Mark.IN_LINE
    marked = await hand.marked(claims[r], r, key=KEY, latest="handler", quiet=QUIET)
    assert (marked.mark, marked.superseded) == (Mark.OWN, (p, j))
    await superseded(redis, p, j, s)
    assert await commit(hand, claims[r]) is Settled.DONE
    claim = await hand.claim_only(t)
    assert await newest(hand, claim) is Mark.OWN
    assert await commit(hand, claim) is Settled.DONE
    await all_handled(redis, hand, r, t)


async def test_t21_a_retrying_one_whose_newer_waits_ends_at_its_next_mark(
    redis: Redis, hand: Hand
) -> None:
    """P has the turn then, and starts."""
    j, p = await enqueued(redis, J, P)
    first = await next_one(hand, j)
    assert await newest(hand, first) is Mark.FRESH
    assert await hand.retry(first) is Settled.RETRIED
    assert await newest(hand, await next_one(hand, p)) is Mark.IN_LINE
    await hand.come_due(j)
    assert await newest(hand, await next_one(hand, j)) is Mark.SUPERSEDED
    await superseded(redis, j)
    assert (await account(redis)).turns == {LINE: [f"*{p}"]}
    claim = await hand.claim_only(p)
    assert await newest(hand, claim) is Mark.OWN
    assert await commit(hand, claim) is Settled.DONE
    await all_handled(redis, hand, p)


async def test_t22_another_handlers_event_is_neither_superseded_nor_overtaken(
    redis: Redis, hand: Hand
) -> None:
    """U1 ends, and U2 comes after C."""
    c0, u1, c, u2 = await enqueued(redis, delivery(b"C0"), J, C, P)
    first = await c_has_it(hand, c0)
    assert await newest(hand, await next_one(hand, u1)) is Mark.IN_LINE
    assert await ask(hand, await next_one(hand, c)) is Mark.IN_LINE
    assert await newest(hand, await next_one(hand, u2)) is Mark.IN_LINE
    await superseded(redis, u1)
    assert (await account(redis)).turns == {LINE: [f"*{c0}", c, u2]}
    assert await commit(hand, first) is Settled.DONE
    await handle(hand, c)
    claim = await hand.claim_only(u2)
    assert await newest(hand, claim) is Mark.OWN
    assert await commit(hand, claim) is Settled.DONE
    await all_handled(redis, hand, c0, c, u2)


async def test_who_waits_for_a_value_is_not_the_newest_that_waits_for_its_key(
    redis: Redis, hand: Hand
) -> None:
    """J has run, and waits to do so again: P waits behind it, and R supersedes P, not J."""
    c, j = await enqueued(redis, C, J)
    (other,) = await started(hand, c)
    before = await hand.read("x")
    first = await hand.claim_only(j)
    assert await newest(hand, first) is Mark.FRESH
    await has_x(hand, other)
    (p,) = await enqueued(redis, P)
    assert await newest(hand, await hand.claim_only(p)) is Mark.IN_LINE
    assert await commit(hand, first, reads=before) is Settled.IN_LINE
    assert (await account(redis)).latest == {KIND: p}
    await whole(redis)
    (r,) = await enqueued(redis, R)
    assert await newest(hand, await hand.claim_only(r)) is Mark.IN_LINE
    await superseded(redis, p)
    assert (await account(redis)).turns[LINE] == [f"*{j}", r]

    assert await commit(hand, other, reads=await hand.read("x")) is Settled.DONE
    woken = await hand.claim_only(j)
    assert await newest(hand, woken) is Mark.OWN  # else none might ever end under a stream
    assert await commit(hand, woken) is Settled.DONE
    last = await hand.claim_only(r)
    assert await newest(hand, last) is Mark.OWN
    assert await commit(hand, last) is Settled.DONE
    assert await hand.applied(p) == 0
    await all_handled(redis, hand, c, j, r)


async def test_the_newest_that_has_no_key_any_more_leaves_nothing_behind(
    redis: Redis, hand: Hand
) -> None:
    """A deploy takes the key away while P, which stands for J, is on its way."""
    c, j, p = await enqueued(redis, C, J, P)
    first = await c_has_it(hand, c)
    for job in (j, p):
        assert await newest(hand, await next_one(hand, job)) is Mark.IN_LINE
    assert await commit(hand, first) is Settled.DONE
    await handle(hand, p, None)
    await all_handled(redis, hand, c, p)


async def test_a_superseded_event_whose_mark_has_changed_hands_is_not_said_to_be_done(
    redis: Redis, hand: Hand
) -> None:
    """Somebody has deleted J's mark, and K, which is J's event, has supersedes J: K is to run."""
    c, j = await enqueued(redis, C, J)
    first = await c_has_it(hand, c)
    assert await newest(hand, await next_one(hand, j)) is Mark.IN_LINE
    await redis.delete(keys.event("org_a", j))
    (k,) = await enqueued(redis, K)
    assert await ask(hand, await next_one(hand, k), event=j, latest=True) is Mark.IN_LINE
    assert await mark_of(redis, j) == f"pending:{k}"
    await redis.delete(keys.BYTES)
    assert await commit(hand, first) is Settled.DONE
    claim = await hand.claim_only(k)
    assert await ask(hand, claim, event=j, latest=True) is Mark.OWN
    assert await commit(hand, claim, event=j) is Settled.DONE
    assert await hand.applied(j) == 1
