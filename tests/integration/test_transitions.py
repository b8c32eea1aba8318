"""Facts about adopt, mark and settle, on a real Redis."""

from typing import Any

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.jobs import (
    NOTHING,
    account,
    counters,
    delivery,
    enqueued,
    mark_of,
    record_of,
)
from worker.pipeline.transitions import (
    Claim,
    Mark,
    Marked,
    MarkRequest,
    Refused,
    Settled,
    Settlement,
    Transitions,
)

pytestmark = pytest.mark.usefixtures("also_in_a_partition")

RETENTION = 60_000
DONE: tuple[Any, ...] = (RETENTION, (), ())


@pytest.fixture
def transitions(redis: Redis) -> Transitions:
    return Transitions(Partition.only(redis))


async def adopted(transitions: Transitions, job: str) -> Claim:
    claim = await transitions.adopt(job, lease=30)
    assert claim is not None
    return claim


async def marked(transitions: Transitions, claim: Claim, event_id: str) -> Mark:
    (result,) = await transitions.mark([MarkRequest(claim, event_id)])
    assert isinstance(result, Marked)
    return result.mark


async def settled(
    transitions: Transitions, claim: Claim, verb: str, details: tuple[Any, ...] = ()
) -> Settled | Exception:
    (result,) = await transitions.settle([Settlement(claim, verb, details)])
    return result


def burial(reason: str = "rejected") -> tuple[Any, ...]:
    return (reason, "why", "order.updated", "acme", 1, True)


async def test_adopting_takes_a_slot_and_a_lease(redis: Redis, transitions: Transitions) -> None:
    (job,) = await enqueued(redis, delivery())
    claim = await adopted(transitions, job)

    assert (claim.attempts, claim.claims) == (0, 0)
    now = await account(redis)
    assert now.leased_or_deferred == {job}
    assert now.running == {"org_a": 1}


async def test_a_job_without_its_payload_is_gone(redis: Redis, transitions: Transitions) -> None:
    (job,) = await enqueued(redis, delivery())
    await redis.delete(keys.payload(job))
    assert await transitions.adopt(job, lease=30) is None


async def test_done_leaves_the_mark_and_nothing_else(
    redis: Redis, transitions: Transitions
) -> None:
    (job,) = await enqueued(redis, delivery())
    claim = await adopted(transitions, job)
    assert await marked(transitions, claim, "evt_1") is Mark.FRESH
    assert await mark_of(redis, "evt_1") == f"pending:{job}"

    assert await settled(transitions, claim, "done", DONE) is Settled.DONE
    assert await account(redis) == NOTHING
    assert await mark_of(redis, "evt_1") == f"done:{job}"
    assert 0 < await redis.pttl(keys.event("org_a", "evt_1")) <= RETENTION


async def test_who_does_not_hold_the_token_changes_nothing(
    redis: Redis, transitions: Transitions
) -> None:
    (job,) = await enqueued(redis, delivery())
    late = await adopted(transitions, job)
    holder = await adopted(transitions, job)
    assert (await account(redis)).running == {"org_a": 1}

    assert await marked(transitions, late, "evt_1") is Mark.LOST
    for verb, details in (
        ("done", DONE),
        ("retry", (1000,)),
        ("dead", burial()),
        ("duplicate", ()),
        ("release", ()),
    ):
        assert await settled(transitions, late, verb, details) is Settled.LOST
    assert await mark_of(redis, "evt_1") is None
    assert await marked(transitions, holder, "evt_1") is Mark.FRESH
    assert await settled(transitions, holder, "done", DONE) is Settled.DONE
    assert (await counters(redis))["handled"] == 1


async def test_a_settle_sent_again_is_lost_and_does_nothing(
    redis: Redis, transitions: Transitions
) -> None:
    (job,) = await enqueued(redis, delivery())
    claim = await adopted(transitions, job)
    await marked(transitions, claim, "evt_1")
    assert await settled(transitions, claim, "done", DONE) is Settled.DONE
    assert await settled(transitions, claim, "done", DONE) is Settled.LOST
    assert await account(redis) == NOTHING


async def test_retry_counts_the_attempt_and_frees_the_slot(
    redis: Redis, transitions: Transitions
) -> None:
    (job,) = await enqueued(redis, delivery())
    claim = await adopted(transitions, job)
    assert await settled(transitions, claim, "retry", (60_000,)) is Settled.RETRIED

    now = await account(redis)
    assert now.running == {}
    assert now.leased_or_deferred == {job}
    again = await adopted(transitions, job)
    assert (again.attempts, again.claims) == (1, 0)


async def test_release_gives_the_claim_and_its_place_back(
    redis: Redis, transitions: Transitions
) -> None:
    first, second = await enqueued(redis, delivery(b"1"), delivery(b"2"))
    claim = await adopted(transitions, first)
    assert await settled(transitions, claim, "release") is Settled.RELEASED

    assert await redis.zrange(keys.QUEUE, 0, -1) == [first.encode(), second.encode()]
    assert (await account(redis)).running == {}
    again = await adopted(transitions, first)
    assert (again.attempts, again.claims) == (0, 0)


async def test_other_bytes_of_a_pending_event_are_conflicting(
    redis: Redis, transitions: Transitions
) -> None:
    one, other = await enqueued(redis, delivery(b"1"), delivery(b"2"))
    claims = [await adopted(transitions, job) for job in (one, other)]
    assert await marked(transitions, claims[0], "evt_1") is Mark.FRESH
    assert await marked(transitions, claims[1], "evt_1") is Mark.CONFLICTING

    assert await settled(transitions, claims[1], "duplicate") is Settled.DUPLICATE
    assert (await account(redis)).payloads == {one}


async def test_a_redelivery_of_a_done_event_is_a_duplicate(
    redis: Redis, transitions: Transitions
) -> None:
    (job,) = await enqueued(redis, delivery())
    claim = await adopted(transitions, job)
    await marked(transitions, claim, "evt_1")
    await settled(transitions, claim, "done", DONE)

    await enqueued(redis, delivery())
    again = await adopted(transitions, job)
    assert await marked(transitions, again, "evt_1") is Mark.DUPLICATE
    assert await settled(transitions, again, "duplicate") is Settled.DUPLICATE
    assert await account(redis) == NOTHING


async def test_own_pending_mark_goes_on_after_a_crash(
    redis: Redis, transitions: Transitions
) -> None:
    (job,) = await enqueued(redis, delivery())
    await marked(transitions, await adopted(transitions, job), "evt_1")
    again = await adopted(transitions, job)
    assert again.claims == 1
    assert await marked(transitions, again, "evt_1") is Mark.OWN


async def test_a_mark_whose_job_is_gone_is_taken_over(
    redis: Redis, transitions: Transitions
) -> None:
    one, other = await enqueued(redis, delivery(b"1"), delivery(b"2"))
    first = await adopted(transitions, one)
    await marked(transitions, first, "evt_1")
    await redis.delete(keys.payload(one))

    second = await adopted(transitions, other)
    assert await marked(transitions, second, "evt_1") is Mark.TAKEN_OVER
    # Whoever had it before must not apply it as well.
    assert await settled(transitions, first, "done", DONE) is Settled.LOST
    assert await settled(transitions, second, "done", DONE) is Settled.DONE


async def test_a_dead_letter_stands_by_itself(redis: Redis, transitions: Transitions) -> None:
    (job,) = await enqueued(redis, delivery(b"body"))
    payload = await redis.get(keys.payload(job))
    claim = await adopted(transitions, job)
    await marked(transitions, claim, "evt_1")
    assert await settled(transitions, claim, "dead", burial()) is Settled.DEAD

    assert await account(redis) == NOTHING
    assert await redis.hget(keys.dead_letter(job), "payload") == payload
    record = await record_of(redis, job)
    assert record["reason"] == "rejected"
    assert record["event_id"] == "evt_1"
    assert record["attempts"] == "1"
    assert await redis.zrange(keys.dead("org_a"), 0, -1) == [job.encode()]
    assert await redis.hgetall(keys.BURIED) == {b"org_a": b"1"}
    assert await mark_of(redis, "evt_1") == f"dead:{job}"
    assert await redis.ttl(keys.event("org_a", "evt_1")) == -1


async def test_a_redelivery_of_a_dead_event_revives_it(
    redis: Redis, transitions: Transitions
) -> None:
    one, other = await enqueued(redis, delivery(b"1"), delivery(b"2"))
    claim = await adopted(transitions, one)
    await marked(transitions, claim, "evt_1")
    await settled(transitions, claim, "dead", burial())

    revived = await adopted(transitions, other)
    assert await marked(transitions, revived, "evt_1") is Mark.REVIVED
    assert await record_of(redis, one) == {}
    assert await redis.exists(keys.dead("org_a"), keys.BURIED) == 0
    assert await mark_of(redis, "evt_1") == f"pending:{other}"


async def test_who_would_bury_an_event_that_another_carries_leaves_as_a_duplicate(
    redis: Redis, transitions: Transitions
) -> None:
    one, other = await enqueued(redis, delivery(b"1"), delivery(b"2"))
    carrier = await adopted(transitions, one)
    await marked(transitions, carrier, "evt_1")
    late = await adopted(transitions, other)
    await marked(transitions, late, "evt_1")

    assert await settled(transitions, late, "dead", burial()) is Settled.DUPLICATE
    assert await record_of(redis, other) == {}
    assert await settled(transitions, carrier, "done", DONE) is Settled.DONE


async def test_a_duplicate_whose_carrier_died_meanwhile_goes_back_to_mark(
    redis: Redis, transitions: Transitions
) -> None:
    one, other = await enqueued(redis, delivery(b"1"), delivery(b"2"))
    carrier = await adopted(transitions, one)
    await marked(transitions, carrier, "evt_1")
    waiter = await adopted(transitions, other)
    assert await marked(transitions, waiter, "evt_1") is Mark.CONFLICTING
    await settled(transitions, carrier, "dead", burial())

    assert await settled(transitions, waiter, "duplicate") is Settled.AGAIN
    assert await marked(transitions, waiter, "evt_1") is Mark.REVIVED


async def test_a_dead_letter_without_an_event_id_has_no_mark(
    redis: Redis, transitions: Transitions
) -> None:
    (job,) = await enqueued(redis, delivery())
    claim = await adopted(transitions, job)
    assert await settled(transitions, claim, "dead", burial("malformed")) is Settled.DEAD
    assert await redis.keys("sellfern:event:*") == []
    assert (await record_of(redis, job))["event_id"] == ""


async def test_an_event_id_may_be_any_text(redis: Redis, transitions: Transitions) -> None:
    (job,) = await enqueued(redis, delivery())
    event_id = "evt:1:\n\x00:dead:é漢"
    await marked(transitions, await adopted(transitions, job), event_id)
    again = await adopted(transitions, job)
    await settled(transitions, again, "dead", burial())
    assert (await record_of(redis, job))["event_id"] == event_id


async def test_a_foreign_value_under_a_mark_troubles_only_its_own_job(
    redis: Redis, transitions: Transitions
) -> None:
    one, other = await enqueued(redis, delivery(b"1"), delivery(b"2"))
    await redis.hset(keys.event("org_a", "evt_1"), "a", "b")
    first, second = [await adopted(transitions, job) for job in (one, other)]

    answers = await transitions.mark([MarkRequest(first, "evt_1"), MarkRequest(second, "evt_2")])
    assert isinstance(answers[0], Refused)
    assert isinstance(answers[1], Marked)


async def test_a_job_of_no_organization_can_be_adopted_and_buried(
    redis: Redis, transitions: Transitions
) -> None:
    await redis.set(keys.payload("no colon here"), b"whatever")
    await redis.zadd(keys.QUEUE, {"no colon here": 5})
    claim = await adopted(transitions, "no colon here")
    assert (await account(redis)).running == {"?": 1}
    assert await settled(transitions, claim, "dead", burial("undecodable")) is Settled.DEAD
    assert await account(redis) == NOTHING
