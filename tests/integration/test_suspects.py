"""Facts about suspects: who is given with whom, what counts against whom, and for how long.

A suspect is a job two of whose claims in a row have ended without an outcome.
"""

import secrets
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from tests.integration.by_hand import LATER, Hand
from tests.integration.jobs import NOTHING, account, counters, delivery, enqueued, record_of
from tests.integration.workplace import POLICY, Workplace, body
from worker import Handlers
from worker.pipeline.policy import Policy
from worker.pipeline.transitions import Claim, Claimed, Settled, Settlement

SLOTS = 100
ONE, OTHER, THIRD = (delivery(b"%d" % number) for number in range(3))


@pytest.fixture
async def hand(redis: Redis) -> Hand:
    hand = Hand(redis)
    await hand.cap(100)
    return hand


async def ask(hand: Hand, worker: str = "w1", **more: Any) -> Claimed:
    """Claim as a worker of a hundred slots that holds nothing, unless told otherwise."""
    asked = {"most": SLOTS, "lease": 30, "holding": 0, "slots": SLOTS, **more}
    return await hand.transitions.claim(worker, **asked)


async def given(hand: Hand, worker: str = "w1", **more: Any) -> list[Claim]:
    """What such a claim brings."""
    return [claim for claim, _ in (await ask(hand, worker, **more)).jobs]


async def suspects(hand: Hand, number: int, organization: str = "org_a") -> list[str]:
    """Jobs that were in flight together in two workers that went away."""
    jobs = await enqueued(
        hand.redis, *(delivery(b"suspect %d" % n, organization) for n in range(number))
    )
    for _ in range(2):
        for job in jobs:
            assert await hand.transitions.adopt(job, lease=30)  # whatever else is in line
        await over(hand, jobs)
    await hand.promote()
    return jobs


async def over(hand: Hand, jobs: list[str]) -> None:
    """Let leases be over."""
    for job in jobs:
        await hand.come_due(job)


async def settled(hand: Hand, claim: Claim, verb: str, *details: object) -> Settled | Exception:
    (answer,) = await hand.transitions.settle([Settlement(claim, verb, details)])
    return answer


async def stored(redis: Redis, job: str) -> str:
    """What is said of a job beside its claim; empty when there is nothing."""
    return (await redis.hget(keys.SUSPECTS, job) or b"").decode()


# Groups


async def test_suspects_are_given_together_and_nobody_else_with_them(hand: Hand) -> None:
    jobs = await suspects(hand, 20)
    await enqueued(hand.redis, *(delivery(b"%d" % n, "org_b") for n in range(5)))
    first = await ask(hand)
    assert first.suspects
    assert len(first.jobs) == 13  # an eighth of the slots
    assert {claim.job for claim, _ in first.jobs} < set(jobs)

    second = await ask(hand, "w2", most=5)
    assert (len(second.jobs), second.suspects) == (5, False)
    third = await ask(hand, "w3")
    assert third.suspects
    assert {claim.job for claim, _ in (*first.jobs, *third.jobs)} == set(jobs)


async def test_a_group_that_ends_without_an_outcome_comes_back_in_smaller_ones(hand: Hand) -> None:
    await suspects(hand, 13)
    group = await given(hand)
    assert len(group) == 13
    await over(hand, [claim.job for claim in group])
    for worker in range(6):
        assert [claim.claims for claim in await given(hand, f"w{worker}")] == [3, 3]
    (last,) = await given(hand, "w6")
    assert (last.claims, last.alone) == (3, False)


@pytest.mark.parametrize("first", [1, 99])
async def test_a_group_is_as_small_as_the_smallest_of_its_members(hand: Hand, first: int) -> None:
    """With one that has ended two groups there is one other; without it, all others."""
    one, _ = await suspects(hand, 2)
    await given(hand)
    await hand.come_due(one)
    await hand.promote()
    await suspects(hand, 5, "org_b")
    await hand.redis.zadd(keys.QUEUE, {one: first}, xx=True)
    claims = sorted(claim.claims for claim in await given(hand))
    assert claims == ([2, 3] if first == 1 else [2] * 5)


async def test_who_is_left_out_of_a_group_wakes_another_worker(hand: Hand) -> None:
    await suspects(hand, 1)
    await enqueued(hand.redis, OTHER)
    await hand.redis.delete(keys.WAKE)
    assert (await ask(hand)).suspects
    assert await hand.redis.llen(keys.WAKE) == 1


async def test_an_outcome_ends_the_suspicion(hand: Hand) -> None:
    (job,) = await suspects(hand, 1)
    (claim,) = await given(hand)
    assert await stored(hand.redis, job)
    assert await hand.retry(claim) is Settled.RETRIED
    assert await hand.redis.exists(keys.SUSPECTS) == 0
    await hand.come_due(job)
    again = await ask(hand)
    assert not again.suspects
    assert again.jobs[0][0].claims == 0
    await hand.finish([again.jobs[0][0]])
    assert await account(hand.redis) == NOTHING


async def test_a_group_in_order_leaves_nobody_out_who_comes_first(hand: Hand) -> None:
    """The first in line of an organization in order is no suspect: the second one waits for it."""
    await hand.cap(1, "org_b")
    first, second = await enqueued(hand.redis, delivery(b"1", "org_b"), delivery(b"2", "org_b"))
    await hand.redis.hset(keys.CLAIMS, second, ":0:2:0:")
    await suspects(hand, 2)
    line = await hand.redis.zrange(keys.QUEUE, 0, -1)
    await hand.redis.zadd(keys.QUEUE, {job: 1 for job in line if job.startswith(b"org_a")}, xx=True)
    await hand.redis.zadd(keys.QUEUE, {first: 2, second: 3}, xx=True)
    group = await ask(hand)
    assert group.suspects
    assert not {first, second} & {claim.job for claim, _ in group.jobs}


# What counts


async def test_who_was_alone_is_known_once_its_lease_is_over(hand: Hand) -> None:
    (job,) = await suspects(hand, 1)
    (claim,) = await given(hand)
    assert (claim.claims, claim.alone) == (2, False)
    await hand.come_due(job)
    (claim,) = await given(hand)
    assert (claim.claims, claim.alone) == (3, True)


async def test_who_was_in_a_group_was_not_alone_however_often(hand: Hand) -> None:
    jobs = await suspects(hand, 2)
    for claims in range(2, 7):
        group = await given(hand, slots=SLOTS**4)
        assert [(claim.claims, claim.alone) for claim in group] == [(claims, False)] * 2
        await over(hand, jobs)


async def test_an_older_version_counts_only_what_was_alone(hand: Hand) -> None:
    """It buries by that number, and knows of no groups."""
    (job, other) = await suspects(hand, 2)
    for alone in (False, False, True):
        await given(hand, slots=SLOTS**4, most=1 if alone else SLOTS)
        raw = await hand.redis.hget(keys.CLAIMS, job)
        assert raw is not None
        assert int(raw.split(b":")[2]) == (3 if alone else 2)
        await hand.come_due(job)
        if not alone:
            await hand.come_due(other)


async def test_who_was_alone_stays_alone(hand: Hand) -> None:
    """Though by its claims it might be one of many."""
    job, *_ = await suspects(hand, 3)
    (first,) = await given(hand, most=1)
    assert first.job == job
    await hand.come_due(job)
    groups = [await given(hand, f"w{n}", slots=SLOTS**4) for n in range(2)]
    assert sorted(map(len, groups)) == [1, 2]
    assert [claim.job for group in groups for claim in group if claim.alone] == [job]


async def test_beside_a_handler_that_should_have_ended_nobody_is_alone(hand: Hand) -> None:
    (job,) = await suspects(hand, 1)
    for claims in (2, 3, 4):
        (claim,) = await given(hand, tainted=True)
        assert (claim.claims, claim.alone) == (claims, False)
        await hand.come_due(job)


@pytest.mark.parametrize("number", [1, 2])
async def test_a_release_leaves_a_suspect_as_it_was(hand: Hand, number: int) -> None:
    jobs = await suspects(hand, number)
    for _ in range(3):
        group = await given(hand)
        assert [(claim.claims, claim.alone) for claim in group] == [(2, False)] * number
        for claim in group:
            assert await hand.release(claim) is Settled.RELEASED
    assert [await stored(hand.redis, job) for job in jobs] == [""] * number


@pytest.mark.parametrize("number", [1, 2])
async def test_an_abandoned_claim_counts(hand: Hand, number: int) -> None:
    await suspects(hand, number)
    for claim in await given(hand):
        assert await settled(hand, claim, "abandon") is Settled.ABANDONED
    group = await given(hand)
    assert [(claim.claims, claim.alone) for claim in group] == [(3, number == 1)] * number


async def test_what_is_abandoned_is_in_line_at_once(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, ONE)
    claim = await hand.claim_only(job)
    await redis.delete(keys.WAKE)
    assert await settled(hand, claim, "abandon") is Settled.ABANDONED
    found = await account(redis)
    assert (found.queued, found.running) == ({job}, {})
    assert await redis.llen(keys.WAKE) == 1
    assert (await hand.claim_only(job)).claims == 1


async def test_others_that_a_worker_takes_end_the_loneliness(hand: Hand) -> None:
    (job,) = await suspects(hand, 1)
    (claim,) = await given(hand)
    await given(hand, holding=1, no_more_alone=claim)  # brings nobody
    assert (await stored(hand.redis, job)).endswith(":1")
    await enqueued(hand.redis, OTHER)
    assert len(await given(hand, holding=1, no_more_alone=claim)) == 1
    await hand.come_due(job)
    (claim,) = await given(hand)
    assert (claim.claims, claim.alone) == (3, False)


# The time for which a worker is quiet


async def test_a_busy_worker_is_asked_to_be_quiet_for_longer_each_time(hand: Hand) -> None:
    (job,) = await suspects(hand, 1)
    for times, worker in enumerate(("w1", "w2", "w1")):
        asked = await ask(hand, worker, holding=1)
        assert (asked.jobs, asked.quiet, asked.patience) == ([], True, times)
        given_up = await ask(hand, worker, holding=1, waits_for_none=True)
        assert (given_up.jobs, given_up.quiet) == ([], False)
        assert await hand.redis.exists(keys.DUTY) == 0
    (claim,) = await given(hand, "w3")
    assert claim.job == job
    await hand.come_due(job)
    assert (await ask(hand, holding=1)).patience == 0


async def test_a_worker_that_has_given_up_takes_whatever_else_there_is(hand: Hand) -> None:
    (suspect,) = await suspects(hand, 1)
    (job,) = await enqueued(hand.redis, delivery(b"b", "org_b"))
    await hand.redis.zadd(keys.QUEUE, {suspect: 1})
    answer = await ask(hand, holding=1, waits_for_none=True)
    assert [claim.job for claim, _ in answer.jobs] == [job]
    assert not answer.quiet
    assert await stored(hand.redis, suspect) == ""  # it was never on duty


async def test_who_is_not_on_duty_gives_up_nobody_elses(hand: Hand) -> None:
    (job,) = await suspects(hand, 1)
    assert (await ask(hand, holding=1)).quiet
    assert not (await ask(hand, "w2", holding=1, waits_for_none=True)).quiet
    assert await hand.redis.get(keys.DUTY) == f"w1\n{job}".encode()
    assert await stored(hand.redis, job) == ""


async def test_a_suspect_that_ended_meanwhile_is_not_waited_for_any_longer(hand: Hand) -> None:
    await suspects(hand, 1)
    assert (await ask(hand, holding=1)).quiet
    await hand.finish(await given(hand, "w2"))
    await ask(hand, holding=1, waits_for_none=True)
    assert await hand.redis.exists(keys.DUTY, keys.SUSPECTS) == 0


async def test_the_longer_a_suspect_is_one_the_longer_nothing_runs_beside_it(hand: Hand) -> None:
    (job,) = await suspects(hand, 1)
    for patience in range(4):
        assert (await ask(hand)).patience == patience
        await hand.come_due(job)


# A handler that blocks its worker's loop


async def block(hand: Hand, claim: Claim) -> Settled | Exception:
    has_blocked = True
    return await settled(hand, claim, "retry", LATER, None, has_blocked)


async def test_who_has_blocked_its_worker_has_failed_and_is_a_suspect(hand: Hand) -> None:
    (job,) = await enqueued(hand.redis, ONE)
    assert await block(hand, await hand.claim_only(job)) is Settled.RETRIED
    await hand.come_due(job)
    answer = await ask(hand)
    ((claim, _),) = answer.jobs
    assert answer.suspects
    assert claim == Claim(job, claim.token, attempts=1, claims=2, blocked=1, size=claim.size)


async def test_that_it_has_blocked_is_known_until_the_job_goes(hand: Hand) -> None:
    (job,) = await enqueued(hand.redis, ONE)
    claim = await hand.claim_only(job)
    for blocked, attempts in ((1, 1), (2, 3)):
        assert await block(hand, claim) is Settled.RETRIED
        await hand.come_due(job)
        (claim,) = await given(hand)
        assert (claim.attempts, claim.blocked) == (attempts, blocked)
        assert await hand.retry(claim) is Settled.RETRIED
        await hand.come_due(job)
        (claim,) = await given(hand)
        assert (claim.claims, claim.blocked) == (0, blocked)
    await hand.finish([claim])
    assert await hand.redis.exists(keys.SUSPECTS) == 0


async def test_in_order_a_blocker_keeps_its_slot_which_is_no_lease(hand: Hand) -> None:
    await hand.cap(1)
    first, second = await enqueued(hand.redis, ONE, OTHER)
    assert await block(hand, await hand.claim_only(first)) is Settled.RETRIED
    assert await given(hand) == []
    await hand.come_due(first)
    (claim,) = await given(hand)
    assert (claim.job, claim.claims) == (first, 2)
    assert "lease_expired" not in await counters(hand.redis)
    await hand.finish([claim])
    await hand.finish([await hand.claim_only(second)])


# Claims whose answer nobody has read


async def test_what_nobody_has_read_comes_back_uncounted(hand: Hand) -> None:
    jobs = await enqueued(hand.redis, ONE, OTHER)
    for _ in range(5):
        base = secrets.token_hex(8)
        assert len(await given(hand, base=base)) == 2
        await hand.transitions.disown(base, lease=30)
        await over(hand, jobs)
    answer = await ask(hand)
    assert [claim.claims for claim, _ in answer.jobs] == [0, 0]
    assert not answer.suspects


@pytest.mark.parametrize("number", [1, 2])
async def test_suspects_that_nobody_has_read_of_are_as_they_were(hand: Hand, number: int) -> None:
    jobs = await suspects(hand, number)
    base = secrets.token_hex(8)
    await given(hand, base=base)
    await hand.transitions.disown(base, lease=30)
    await over(hand, jobs)
    group = await given(hand)
    assert [(claim.claims, claim.alone) for claim in group] == [(2, False)] * number


async def test_a_claim_that_reaches_redis_too_late_takes_nothing(hand: Hand) -> None:
    (job,) = await enqueued(hand.redis, ONE)
    base = secrets.token_hex(8)
    await hand.transitions.disown(base, lease=30)
    assert await given(hand, base=base) == []
    assert (await account(hand.redis)).queued == {job}
    ttl = await hand.redis.pttl(keys.UNREAD + base)
    assert 30_000 < ttl <= 300_000


async def test_whose_claim_somebody_has_by_now_counts_what_that_one_does(hand: Hand) -> None:
    """The lease was over before anybody was told: then it counts, and nothing else changes."""
    (job,) = await enqueued(hand.redis, ONE)
    base = secrets.token_hex(8)
    await given(hand, base=base)
    await hand.come_due(job)
    (holder,) = await given(hand)
    await hand.transitions.disown(base, lease=30)
    assert holder.claims == 1
    await hand.come_due(job)
    assert [claim.claims for claim in await given(hand)] == [2]


# Who comes too late


async def test_who_lost_the_lease_abandons_nothing(hand: Hand) -> None:
    (job,) = await enqueued(hand.redis, ONE)
    late = await hand.claim_only(job)
    await hand.come_due(job)
    holder = await hand.claim_only(job)
    assert await settled(hand, late, "abandon") is Settled.LOST
    assert (await account(hand.redis)).leased_or_deferred == {job}
    await hand.finish([holder])


async def test_who_lost_the_lease_has_not_blocked(hand: Hand) -> None:
    (job,) = await enqueued(hand.redis, ONE)
    late = await hand.claim_only(job)
    await hand.come_due(job)
    holder = await hand.claim_only(job)
    assert await block(hand, late) is Settled.LOST
    assert await hand.redis.exists(keys.SUSPECTS) == 0
    await hand.finish([holder])


async def test_who_lost_the_lease_ends_nobodys_loneliness(hand: Hand) -> None:
    """The suspect is alone in another worker by then, whatever runs in the first one."""
    (job,) = await suspects(hand, 1)
    (late,) = await given(hand)
    await hand.come_due(job)
    await given(hand, "w2")
    before = await stored(hand.redis, job)
    await enqueued(hand.redis, delivery(b"b", "org_b"))
    assert len(await given(hand, holding=1, no_more_alone=late)) == 1
    assert await stored(hand.redis, job) == before
    await hand.come_due(job)
    (claim,) = await given(hand, "w3")
    assert (claim.claims, claim.alone) == (4, True)


async def test_who_lost_the_lease_takes_no_claim_out_of_the_count(hand: Hand) -> None:
    (job,) = await suspects(hand, 1)
    (late,) = await given(hand)
    await hand.come_due(job)
    await given(hand, "w2")
    assert await hand.release(late) is Settled.LOST
    await hand.come_due(job)
    (claim,) = await given(hand, "w3")
    assert (claim.claims, claim.alone) == (4, True)


async def test_a_settlement_that_comes_before_the_next_holder_is_the_outcome(hand: Hand) -> None:
    """The lease is over, but nobody has noticed: alone or not, it says nothing any more."""
    (job,) = await suspects(hand, 1)
    (claim,) = await given(hand)
    await hand.come_due(job)
    assert await hand.retry(claim) is Settled.RETRIED
    await hand.come_due(job)
    (claim,) = await given(hand)
    assert (claim.claims, claim.alone) == (0, False)


# Beside scripts of an older version


async def older(redis: Redis, job: str, claims: int, attempts: int = 0, token: str = "") -> None:
    """Write a claim as they do, which know of nothing else."""
    await redis.hset(keys.CLAIMS, job, f"{token}:{attempts}:{claims}:1:")


async def test_a_claim_of_an_older_version_says_nothing_of_the_one_before(hand: Hand) -> None:
    """Others may run beside what it has claimed, so that nobody was alone at last."""
    (job,) = await suspects(hand, 1)
    await given(hand)
    await hand.come_due(job)
    await older(hand.redis, job, claims=4)
    (claim,) = await given(hand)
    assert (claim.claims, claim.alone) == (4, False)


async def test_an_outcome_of_an_older_version_ends_the_suspicion(hand: Hand) -> None:
    jobs = await suspects(hand, 2)
    await given(hand)
    await over(hand, jobs)
    for job in jobs:
        await older(hand.redis, job, claims=0, attempts=1)
    for claims in (0, 1):
        answer = await ask(hand)
        assert not answer.suspects
        assert [(claim.claims, claim.alone) for claim, _ in answer.jobs] == [(claims, False)] * 2
        await over(hand, jobs)


async def test_what_an_older_version_leaves_of_suspects_goes_and_nothing_else(hand: Hand) -> None:
    jobs = await suspects(hand, 2)
    await given(hand)
    gone = {f"org_a:{number}": "0:2:1:0:0:0" for number in range(30)}
    await hand.redis.hset(keys.SUSPECTS, mapping=gone)
    for _ in range(100):
        await hand.transitions.renew("w1", [], description=b"{}", slots=1, lease=30)
    assert {job.decode() for job in await hand.redis.hkeys(keys.SUSPECTS)} == set(jobs)


# What the pipeline makes of it


def place(redis: Redis, most: int) -> Workplace:
    fields = {name: getattr(POLICY, name) for name in Policy.__slots__}
    handlers = Handlers()
    handlers.ignore("order.updated")
    return Workplace(redis, handlers, Policy(**{**fields, "max_claims": most}))


@pytest.mark.parametrize("most", [1, 2, 3, 6])
async def test_only_one_that_was_alone_is_buried(redis: Redis, hand: Hand, most: int) -> None:
    """Whatever is allowed, there is one claim alone before; and that one says so."""
    there = place(redis, most)
    (job,) = await there.accept(body())
    from_when = min(2, most)
    claims = 0
    while True:
        answer = await ask(hand, suspect_from=from_when)
        ((claim, payload),) = answer.jobs
        assert claim.claims == claims
        assert answer.suspects is (claims >= from_when)
        assert claim.alone is (claims > from_when)
        if claims >= most and claim.alone:
            break
        await hand.come_due(job)
        claims += 1
    assert claims == max(most, from_when + 1)
    assert await there.run(claim, payload) is Settled.DEAD
    record = await record_of(redis, job)
    assert record["error"] == (
        f"{claims} claims ended without an outcome: its worker stopped renewing the lease, or ended"
    )
    assert await redis.exists(keys.SUSPECTS) == 0


async def test_one_that_was_never_alone_is_handled(redis: Redis, hand: Hand) -> None:
    there = place(redis, 3)
    jobs = await there.accept(body(), body())
    for _ in range(5):
        await given(hand, slots=SLOTS**4)
        await over(hand, jobs)
    answer = await ask(hand, slots=SLOTS**4)
    for claim, payload in answer.jobs:
        assert claim.claims == 5
        assert await there.run(claim, payload) is Settled.DONE
    assert await account(redis) == NOTHING
