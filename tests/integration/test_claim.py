"""Facts about claim and renew: who is given what, who is brought back in line, who waits."""

import asyncio
from typing import Any

import msgspec
import pytest
from arq.connections import ArqRedis
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.partition import Partition
from shared.queue.writer import Accepted
from tests.integration.by_hand import Hand
from tests.integration.jobs import (
    NOTHING,
    account,
    bodies,
    counters,
    delivery,
    enqueue,
    enqueued,
    mark_of,
    record_of,
)
from worker.operate import organizations, revival
from worker.pipeline.transitions import Mark, Refused, Settled, Settlement

pytestmark = pytest.mark.usefixtures("also_in_a_partition")

FIRST, SECOND, THIRD = map(delivery, bodies(3))


@pytest.fixture
async def hand(redis: Redis) -> Hand:
    hand = Hand(redis)
    await hand.cap(1)
    return hand


async def places(redis: Redis, job: str) -> list[str]:
    """Everywhere that a job stands."""
    found = await account(redis)
    everywhere = {
        "queued": found.queued,
        "held": found.leased_or_deferred,
        "parked": found.parked,
    }
    return [name for name, members in everywhere.items() if job in members]


# What somebody's hand has deleted


async def without_acceptance(redis: Redis, job: str) -> None:
    """Leave the job its place, and nothing else: so stands what a stock producer let expire."""
    await redis.delete(keys.payload(job))
    await redis.zrem(keys.ACCEPTED, job)
    await redis.hincrby(keys.WAITING, "org_a", -1)


async def test_a_job_that_is_dropped_brings_the_next_one(redis: Redis, hand: Hand) -> None:
    first, second, third = await enqueued(redis, FIRST, SECOND, THIRD)
    claim = await hand.claim_only(first)
    await without_acceptance(redis, second)
    await hand.finish([claim])
    assert await hand.claim() == []
    assert (await counters(redis))["dropped"] == 1
    assert await places(redis, third) == ["queued"]
    await hand.finish([await hand.claim_only(third)])
    assert await account(redis) == NOTHING


async def test_a_job_that_is_dropped_frees_no_slot(redis: Redis, hand: Hand) -> None:
    await hand.cap(3)
    first, second = await enqueued(redis, FIRST, SECOND)
    await hand.claim(1)
    await without_acceptance(redis, second)
    assert await hand.claim() == []
    found = await account(redis)
    assert (found.leased_or_deferred, found.running) == ({first}, {"org_a": 1})


@pytest.mark.parametrize("is_replaced", [False, True], ids=["deleted", "replaced by a list"])
async def test_an_accepted_job_without_its_payload_is_given_without_it(
    redis: Redis,
    hand: Hand,
    is_replaced: bool,  # noqa: FBT001  # a case of one test
) -> None:
    first, second = await enqueued(redis, FIRST, SECOND)
    await redis.delete(keys.payload(first))
    if is_replaced:
        await redis.rpush(keys.payload(first), "what is this?")
    claimed = await hand.transitions.claim("w1", most=10, lease=30, holding=0)
    ((claim, payload),) = claimed.jobs
    assert (claim.job, payload) == (first, b"")
    assert await hand.dead(claim, "payload_lost") is Settled.DEAD
    record = await record_of(redis, first)
    assert (record["reason"], record["payload"]) == ("payload_lost", "")
    await hand.finish([await hand.claim_only(second)])
    assert await account(redis) == NOTHING


async def test_a_payload_that_a_redelivery_brings_back_meanwhile_is_not_lost(
    redis: Redis, hand: Hand
) -> None:
    (job,) = await enqueued(redis, FIRST)
    await redis.delete(keys.payload(job))
    claim = await hand.claim_only(job)
    assert await enqueue(redis, FIRST) == [Accepted.NEW]
    assert await hand.dead(claim, "payload_lost") is Settled.RELEASED
    assert await record_of(redis, job) == {}
    await hand.finish([await hand.claim_only(job)])
    assert await account(redis) == NOTHING


async def test_a_redelivery_puts_a_parked_jobs_payload_back_where_it_stands(
    redis: Redis, hand: Hand
) -> None:
    first, second = await enqueued(redis, FIRST, SECOND)
    await hand.claim_only(first)
    await redis.delete(keys.payload(second))
    assert await enqueue(redis, SECOND) == [Accepted.NEW]
    assert await places(redis, second) == ["parked"]
    assert (await account(redis)).waiting == {"org_a": 2}


async def test_a_redelivery_does_not_take_the_job_from_its_holder(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, FIRST)
    claim = await hand.claim_only(job)
    await redis.delete(keys.payload(job))
    assert await enqueue(redis, FIRST) == [Accepted.NEW]
    assert await places(redis, job) == ["held"]
    await hand.finish([claim])
    assert await account(redis) == NOTHING


async def test_who_holds_a_job_without_a_place_holds_it_no_more_once_it_is_redelivered(
    redis: Redis, hand: Hand
) -> None:
    """Or else it would wait for the very slot that nobody gives back."""
    (job,) = await enqueued(redis, FIRST)
    claim = await hand.claim_only(job)
    await redis.zrem(keys.QUEUE, job)
    assert await enqueue(redis, FIRST) == [Accepted.NEW]
    await hand.promote()
    assert (await account(redis)).running == {}
    assert await hand.mark(claim) is Mark.LOST
    await hand.finish([await hand.claim_only(job)])
    assert await account(redis) == NOTHING


async def test_a_replay_of_a_job_without_a_place_is_queued(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, FIRST)
    assert await hand.dead(await hand.claim_only(job)) is Settled.DEAD
    assert await hand.replay(job) == "queued"
    await redis.zrem(keys.QUEUE, job)
    assert await hand.replay(job) == "queued"
    await hand.promote()
    assert await places(redis, job) == ["queued"]
    assert (await account(redis)).waiting == {"org_a": 1}


async def test_a_duplicate_of_an_event_whose_carrier_was_deleted_takes_it_over(
    redis: Redis, hand: Hand
) -> None:
    await hand.cap(2)
    first, second = await enqueued(redis, FIRST, SECOND)
    carrier, other = await hand.claim(2)
    assert await hand.mark(carrier) is Mark.FRESH
    assert await hand.mark(other) is Mark.CONFLICTING
    await redis.delete(keys.payload(first))
    assert await hand.duplicate(other) is Settled.AGAIN
    assert await hand.mark(other) is Mark.TAKEN_OVER
    assert await hand.done(carrier) is Settled.LOST
    assert await hand.done(other) is Settled.DONE
    assert await mark_of(redis, "evt_1") == f"done:{second}"
    assert await account(redis) == NOTHING


async def test_a_bad_duplicate_of_an_event_whose_carrier_was_deleted_is_a_dead_letter(
    redis: Redis, hand: Hand
) -> None:
    await hand.cap(2)
    first, second = await enqueued(redis, FIRST, SECOND)
    carrier, bad = await hand.claim(2)
    assert await hand.mark(carrier) is Mark.FRESH
    assert await hand.mark(bad) is Mark.CONFLICTING
    await redis.delete(keys.payload(first))
    assert await hand.dead(bad) is Settled.DEAD
    assert await mark_of(redis, "evt_1") == f"dead:{second}"
    assert (await record_of(redis, second))["event_id"] == "evt_1"
    assert await account(redis) == NOTHING


# What a job of an earlier life has left


async def test_a_crash_in_a_later_life_does_not_forget_the_event(redis: Redis, hand: Hand) -> None:
    """Discarded then, the event stays so: its mark is known by the record."""
    (job,) = await enqueued(redis, FIRST)
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.dead(claim) is Settled.DEAD
    assert await hand.replay(job) == "queued"
    assert await hand.dead(await hand.claim_only(job), "crashed") is Settled.DEAD
    assert (await record_of(redis, job))["event_id"] == "evt_1"

    assert await revival.discard(Partition.only(redis), job, retention=60) == "discarded"
    assert str(await mark_of(redis, "evt_1")).split()[0] == f"done:{job}"
    (other,) = await enqueued(redis, SECOND)
    assert await hand.mark(await hand.claim_only(other)) is Mark.CONFLICTING


async def test_an_event_whose_mark_is_no_string_can_be_buried(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, FIRST)
    await redis.hset(keys.event("org_a", "evt_1"), "a", "b")
    claim = await hand.claim_only(job)
    with pytest.raises(AssertionError, match="WRONGTYPE"):
        await hand.mark(claim)
    assert await hand.dead(claim) is Settled.DEAD
    assert await account(redis) == NOTHING


async def test_an_event_without_its_mark_is_not_committed(redis: Redis, hand: Hand) -> None:
    """Somebody has deleted it; the worker is sent back to set it again."""
    (job,) = await enqueued(redis, FIRST)
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    await redis.delete(keys.event("org_a", "evt_1"))
    assert await hand.done(claim) is Settled.AGAIN
    assert await hand.applied() == 0
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.done(claim) is Settled.DONE
    assert await account(redis) == NOTHING


# Suspects


async def suspect(redis: Redis, hand: Hand, job: str) -> None:
    """Let two workers go away that had it."""
    for _ in range(2):
        (claim,) = await hand.claim(1)
        assert claim.job == job
        await hand.come_due(job)
    await hand.promote()
    assert await places(redis, job) == ["queued"]


async def test_who_stands_behind_a_suspect_that_waits_waits_with_it_where_order_counts(
    redis: Redis, hand: Hand
) -> None:
    first, second = await enqueued(redis, FIRST, SECOND)
    await suspect(redis, hand, first)
    (other,) = await enqueued(redis, delivery(b"b", "org_b"))
    claims = await hand.claim(10, holding=1)
    assert [claim.job for claim in claims] == [other]
    await hand.finish(claims)
    await hand.finish([await hand.claim_only(first)])
    await hand.finish([await hand.claim_only(second)])
    assert await account(redis) == NOTHING


async def test_a_suspect_is_taken_though_somebody_always_stands_ahead_of_it(
    redis: Redis, hand: Hand
) -> None:
    """A worker that became idle for it takes it first; its signs of life keep it on duty."""
    await hand.cap(100)
    (job,) = await enqueued(redis, FIRST)
    await suspect(redis, hand, job)
    virtual = await redis.zscore(keys.QUEUE, job)
    (ahead,) = await enqueued(redis, delivery(b"b", "org_b"))
    await redis.zadd(keys.QUEUE, {ahead: virtual - 0.5})
    claimed = await hand.transitions.claim("w1", most=10, lease=0.05, holding=0)
    assert [claim.job for claim, _ in claimed.jobs] == [ahead]
    assert claimed.quiet

    await hand.transitions.renew("w1", [], description=b"{}", slots=10, lease=30)
    assert await redis.pttl(keys.DUTY) > 50
    assert not (await hand.transitions.claim("w2", most=10, lease=30, holding=1)).quiet
    (further,) = await enqueued(redis, delivery(b"c", "org_c"))
    await redis.zadd(keys.QUEUE, {further: virtual - 0.25})
    claim = await hand.claim_only(job)
    assert claim.claims == 2
    assert await redis.exists(keys.DUTY) == 0


async def test_a_worker_that_leaves_is_on_duty_no_more(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, FIRST)
    await suspect(redis, hand, job)
    assert await hand.claim(holding=1, worker="w1") == []
    await hand.transitions.leave("w2")
    assert await redis.exists(keys.DUTY) == 1
    await hand.transitions.leave("w1")
    assert await redis.exists(keys.DUTY) == 0


# Caps and places


async def slots(hand: Hand, number: int) -> None:
    """Let the only worker say how many it has."""
    await hand.transitions.renew("w1", [], description=b"{}", slots=number, lease=30)


async def test_another_worker_brings_parked_jobs_of_a_default_cap_back(
    redis: Redis, hand: Hand
) -> None:
    await hand.cap(None)
    await slots(hand, 2)
    first, second, third = await enqueued(redis, FIRST, SECOND, THIRD)
    await hand.claim_only(first)
    assert (await account(redis)).parked == {second, third}
    await hand.transitions.renew("w2", [], description=b"{}", slots=1, lease=30)
    assert await places(redis, second) == ["queued"]
    assert await places(redis, third) == ["parked"]


async def test_a_default_cap_of_one_makes_nobody_wait_for_a_retry(redis: Redis, hand: Hand) -> None:
    await hand.cap(None)
    await slots(hand, 1)
    first, second = await enqueued(redis, FIRST, SECOND)
    assert await hand.retry(await hand.claim_only(first)) is Settled.RETRIED
    assert (await account(redis)).running == {}
    await hand.claim_only(second)


@pytest.mark.parametrize("cap", [1, 2, None])
async def test_a_slot_that_a_retry_keeps_is_free_once_it_is_due_whatever_the_cap_is_then(
    redis: Redis, hand: Hand, cap: int | None
) -> None:
    first, second, third = await enqueued(redis, FIRST, SECOND, THIRD)
    assert await hand.retry(await hand.claim_only(first)) is Settled.RETRIED
    assert await hand.claim() == []
    await hand.cap(cap)
    assert (await account(redis)).running == {"org_a": 1}
    claimed = await hand.claim()
    assert len(claimed) == {1: 0, 2: 1, None: 2}[cap]
    await hand.come_due(first)
    await hand.promote()
    assert (await account(redis)).running.get("org_a", 0) == len(claimed)
    while claimed or (claimed := await hand.claim()):
        await hand.finish(claimed)
        claimed = []
    assert await account(redis) == NOTHING
    assert (await counters(redis))["handled"] == len((first, second, third))


async def test_retries_that_keep_more_slots_than_the_cap_now_allows_end_one_by_one(
    redis: Redis, hand: Hand
) -> None:
    await hand.cap(2)
    first, second, third = await enqueued(redis, FIRST, SECOND, THIRD)
    one, two = await hand.claim(2)
    await hand.cap(1)
    assert await hand.retry(one) is Settled.RETRIED
    assert await hand.retry(two) is Settled.RETRIED
    assert (await account(redis)).running == {"org_a": 2}
    await hand.come_due(first)
    assert await hand.claim() == []
    await hand.come_due(second)
    for job in (first, second, third):
        await hand.finish([await hand.claim_only(job)])
    assert await account(redis) == NOTHING


async def test_a_release_after_the_lease_counts_unless_somebody_has_noticed(
    redis: Redis, hand: Hand
) -> None:
    (job,) = await enqueued(redis, FIRST)
    claim = await hand.claim_only(job)
    await hand.come_due(job)
    assert await hand.release(claim) is Settled.RELEASED
    claim = await hand.claim_only(job)
    assert claim.claims == 0
    await hand.come_due(job)
    await hand.promote()
    assert await hand.release(claim) is Settled.LOST
    assert (await account(redis)).queued == {job}


async def test_a_release_goes_back_ahead_of_those_that_came_later(redis: Redis, hand: Hand) -> None:
    """Also where its place is less than one, since it weighs so much."""
    await hand.cap(1, weight=4.0)
    heavy = [delivery(body, weight=4.0) for body in bodies(3)]
    first, *_ = await enqueued(redis, *heavy)
    assert await hand.release(await hand.claim_only(first)) is Settled.RELEASED
    await hand.claim_only(first)


async def test_what_is_due_while_paused_is_parked_and_keeps_its_place(
    redis: Redis, hand: Hand
) -> None:
    first, second = await enqueued(redis, FIRST, SECOND)
    assert await hand.retry(await hand.claim_only(first)) is Settled.RETRIED
    await organizations.pause(Partition.only(redis), "org_a", "a test")
    await hand.come_due(first)
    assert await hand.claim() == []
    found = await account(redis)
    assert (found.parked, found.running) == ({first, second}, {})
    await organizations.resume(Partition.only(redis), "org_a")
    await hand.claim_only(first)


# What arq has made


async def made_by_arq(redis: Redis, name: str = "org_a:made-by-arq") -> str:
    """A job that a stock producer enqueued, with the expiry that arq gives it."""
    producer = ArqRedis(
        connection_pool=redis.connection_pool,
        job_serializer=jobs.serialize,
        job_deserializer=jobs.deserialize,
        default_queue_name=keys.QUEUE,
    )
    job = await producer.enqueue_job("handle_event", _job_id=name)
    assert job is not None
    assert await redis.pttl(keys.payload(job.job_id)) > 0
    await asyncio.sleep(0.001)  # arq rounds, by half a millisecond, when it is due: it may be later
    return job.job_id


@pytest.mark.parametrize("how", ["claimed", "adopted", "parked"])
async def test_a_job_that_arq_made_counts_and_stays_like_ours(
    redis: Redis, hand: Hand, how: str
) -> None:
    job = await made_by_arq(redis)
    if how == "parked":
        await organizations.pause(Partition.only(redis), "org_a", "a test")
        assert await hand.claim() == []
    elif how == "claimed":
        await hand.claim_only(job)
    else:
        assert await hand.transitions.adopt(job, lease=30)
    assert await redis.pttl(keys.payload(job)) == -1
    found = await account(redis)
    assert (found.accepted, found.waiting) == ({job}, {"org_a": 1})


@pytest.mark.parametrize("job", ["org_a:made-by-arq", "cron:tick:1700000000000"])
async def test_a_job_that_arq_made_and_let_expire_was_never_accepted(
    redis: Redis, hand: Hand, job: str
) -> None:
    assert await made_by_arq(redis, job) == job
    await redis.pexpire(keys.payload(job), 0)
    assert await hand.claim() == []
    assert (await counters(redis))["dropped"] == 1
    assert await account(redis) == NOTHING


async def test_who_adopts_a_job_that_was_parked_meanwhile_has_its_only_place(
    redis: Redis, hand: Hand
) -> None:
    (job,) = await enqueued(redis, FIRST)
    await organizations.pause(Partition.only(redis), "org_a", "a test")
    assert await hand.claim() == []
    claim = await hand.transitions.adopt(job, lease=30)
    assert claim is not None
    assert await places(redis, job) == ["held"]
    await hand.finish([claim])
    assert await account(redis) == NOTHING


async def test_an_answer_of_one_job_is_no_other_jobs_trouble(redis: Redis, hand: Hand) -> None:
    await hand.cap(2)
    await enqueued(redis, FIRST, SECOND)
    first, second = await hand.claim(2)
    refused, released = await hand.transitions.settle(
        [Settlement(first, "no such verb"), Settlement(second, "release")]
    )
    assert isinstance(refused, Refused)
    assert released is Settled.RELEASED


# Who comes too late


async def test_who_lost_the_lease_asks_for_no_retry(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, FIRST)
    late = await hand.claim_only(job)
    await hand.come_due(job)
    holder = await hand.claim_only(job)
    assert await hand.retry(late) is Settled.LOST
    await hand.come_due(job)
    assert (await hand.claim_only(job)).attempts == holder.attempts == 0


async def test_who_lost_the_lease_marks_nothing(redis: Redis, hand: Hand) -> None:
    """A mark by who judges no more would outlive the job that settles without one."""
    (job,) = await enqueued(redis, FIRST)
    late = await hand.claim_only(job)
    await hand.come_due(job)
    holder = await hand.claim_only(job)
    assert await hand.mark(late) is Mark.LOST
    assert await mark_of(redis, "evt_1") is None
    assert await hand.dead(holder, "malformed") is Settled.DEAD
    assert (await record_of(redis, job))["event_id"] == ""


async def test_who_lost_the_lease_renews_nothing(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, FIRST)
    late = await hand.claim_only(job)
    await hand.come_due(job)
    await hand.promote()
    renewed = await hand.transitions.renew("w1", [late], description=b"{}", slots=1, lease=30)
    assert renewed.lost == [late]
    assert await places(redis, job) == ["queued"]


# Large payloads


async def payloads_read(redis: Redis, hand: Hand, most_bytes: int) -> tuple[int, int]:
    """How many payloads a claim gives, and how many Redis reads for it."""
    async with redis.monitor() as monitor:
        given = len(
            (
                await hand.transitions.claim(
                    "w1", most=25, lease=30, holding=0, most_bytes=most_bytes
                )
            ).jobs
        )
        await redis.echo("end")
        read = 0
        while (command := (await monitor.next_command())["command"]) != "ECHO end":
            read += command.count(keys.JOB) if command.startswith(("MGET", "GET")) else 0
    return given, read


LARGE, SMALL = 100_000, 300


@pytest.mark.parametrize(
    ("sizes", "given", "most_read"),
    [
        ([LARGE] * 25, 3, 4),
        ([LARGE * 5] * 25, 1, 2),  # one that has no room comes alone
        ([SMALL] * 25, 25, 25),
        ([SMALL, *[LARGE] * 24], 4, 6),
        ([*[SMALL] * 3, *[LARGE] * 22], 6, 10),  # four are read before any is known to be large
        ([*[SMALL, LARGE] * 12], 7, 8),
    ],
)
async def test_few_payloads_are_read_that_are_not_given(
    redis: Redis, hand: Hand, sizes: list[int], given: int, most_read: int
) -> None:
    await hand.cap(100)
    await enqueued(
        redis,
        *(delivery(msgspec.json.encode({"n": n}).ljust(size)) for n, size in enumerate(sizes)),
    )
    found, read = await payloads_read(redis, hand, most_bytes=3 * LARGE + 10_000)
    assert found == given
    assert given <= read <= most_read


async def test_a_large_payload_is_read_beside_the_script(redis: Redis, hand: Hand) -> None:
    await hand.cap(100)
    bodies = [msgspec.json.encode({"n": n}).ljust(LARGE) for n in range(6)]
    await enqueued(redis, *(delivery(body) for body in bodies))
    given: list[bytes] = []
    reads = []
    for _ in range(2):
        async with redis.monitor() as monitor:
            claimed = await hand.transitions.claim(
                "w1", most=3, lease=30, holding=0, most_bytes=5 * LARGE
            )
            await redis.echo("end")
            words = list[str]()
            while (command := (await monitor.next_command())["command"]) != "ECHO end":
                words += [command.split()[0]] if keys.JOB in command else []
        reads.append(words.count("MGET"))
        given += [jobs.decode(payload).body for _, payload in claimed.jobs]
        assert all(claim.size == len(payload) > LARGE for claim, payload in claimed.jobs)
    assert given == bodies
    # One of the script's; where the last claim brought a large one, the next expects one.
    assert reads == [1 + 3, 3]


async def test_a_large_payload_that_is_taken_away_by_hand_is_gone(
    redis: Redis, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hand.cap(100)
    one, other = await enqueued(redis, delivery(b"1" * LARGE), delivery(b"2" * LARGE))
    send = hand.transitions._claims.execute_commands

    async def take_away_before(*commands: Any) -> Any:
        if commands[0][0] == "MGET":
            await redis.delete(keys.payload(one))
            await redis.delete(keys.payload(other))
            await redis.lpush(keys.payload(other), "no text")
        return await send(*commands)

    monkeypatch.setattr(hand.transitions._claims, "execute_commands", take_away_before)
    claimed = await hand.transitions.claim("w1", most=3, lease=30, holding=0)
    assert [(claim.job, payload) for claim, payload in claimed.jobs] == [(one, b""), (other, b"")]


async def test_a_large_payload_that_redis_refuses_to_read_is_nothing_that_is_gone(
    redis: Redis, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would be ended as an event of which nothing is left."""
    await hand.cap(100)
    await enqueued(redis, delivery(b"1" * LARGE))
    send = hand.transitions._claims.execute_commands

    async def refused(*commands: Any) -> Any:
        if commands[0][0] == "MGET":
            return [ResponseError("NOPERM") for _ in commands]
        return await send(*commands)

    monkeypatch.setattr(hand.transitions._claims, "execute_commands", refused)
    with pytest.raises(ResponseError):
        await hand.transitions.claim("w1", most=3, lease=30, holding=0)


async def test_a_large_job_of_a_stock_producer_may_have_any_bytes_for_a_name(
    redis: Redis, hand: Hand
) -> None:
    name, payload = b"stock-\xff", b"x" * LARGE
    await redis.set(keys.JOB.encode() + name, payload)
    await redis.zadd(keys.QUEUE, {name: 1})
    ((claim, found),) = (await hand.transitions.claim("w1", most=3, lease=30, holding=0)).jobs
    assert claim.job.encode(errors="surrogateescape") == name
    assert found == payload
