"""The races that the transitions survive, each as the one order of steps that shows it.

J and K are two byte-variants of one event, P is another event of the same organization, t1 and t2
are tokens. An organization's cap is 1 unless a test says otherwise.
"""

import asyncio
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.errors import Unavailable
from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.job import job_id
from shared.queue.partition import Partition
from shared.queue.writer import Accepted, Queue
from shared.redis.durability import Durability, Mode
from shared.sellfern import envelope
from tests.conftest import StartRedis
from tests.integration.by_hand import Hand
from tests.integration.jobs import (
    NOTHING,
    Account,
    account,
    bodies,
    counters,
    delivery,
    enqueue,
    enqueued,
    mark_of,
    record_of,
)
from tests.integration.workplace import POLICY, Workplace, body, now
from worker import Event, Handlers, Organization
from worker.operate import organizations
from worker.pipeline.transitions import Mark, Marked, MarkRequest, Settled

pytestmark = pytest.mark.usefixtures("also_in_a_partition")

J, K, P = delivery(b"J"), delivery(b"K, the same event"), delivery(b"P, another event")


@pytest.fixture
async def hand(redis: Redis) -> Hand:
    hand = Hand(redis)
    await hand.cap(1)
    return hand


def unfinished(
    *,
    queued: Collection[str] = (),
    leased: Collection[str] = (),
    parked: Collection[str] = (),
    known: Collection[str] = (),
    running: int = 0,
) -> Account:
    """What must be there, and nothing else; ``known`` are those that were claimed before."""
    everything = {*queued, *leased, *parked}
    return Account(
        payloads=everything,
        queued=set(queued),
        leased_or_deferred=set(leased),
        parked=set(parked),
        claims={*leased, *known},
        accepted=everything,
        waiting={"org_a": len(everything)},
        running={"org_a": running} if running else {},
    )


async def dead_letters(redis: Redis) -> set[str]:
    """The jobs that have a record, wherever it is kept."""
    listed = {job.decode() for job in await redis.zrange(keys.dead("org_a"), 0, -1)}
    records = {
        name.decode().removeprefix(keys.DEAD_LETTER)
        for name in await redis.keys(f"{keys.DEAD_LETTER}*")
    }
    assert listed == records
    assert int(await redis.hget(keys.BURIED, "org_a") or 0) == len(records)
    return records


async def handled_once(redis: Redis, hand: Hand, job: str) -> None:
    """The end of every race in which the event is handled."""
    assert await account(redis) == NOTHING
    assert await mark_of(redis, "evt_1") == f"done:{job}"
    assert await hand.applied() == 1
    assert await dead_letters(redis) == set()


async def test_1_who_lost_the_lease_cannot_bury_what_another_has(redis: Redis, hand: Hand) -> None:
    """The late burial does nothing; when the second holder crashes, too, the event runs again."""
    (job,) = await enqueued(redis, J)
    t1 = await hand.claim_only(job)
    await hand.come_due(job)
    t2 = await hand.claim_only(job)
    assert await hand.dead(t1) is Settled.LOST
    assert await dead_letters(redis) == set()
    assert await account(redis) == unfinished(leased=[job], running=1)
    assert await hand.mark(t2) is Mark.FRESH

    await hand.come_due(job)
    t3 = await hand.claim_only(job)
    assert await hand.mark(t3) is Mark.OWN
    assert await hand.done(t3) is Settled.DONE
    await handled_once(redis, hand, job)


async def test_2_a_slot_that_the_expiry_freed_is_not_freed_again(redis: Redis, hand: Hand) -> None:
    """The late commit is lost, and the organization runs 0 events then, not -1."""
    (job,) = await enqueued(redis, J)
    t1 = await hand.claim_only(job)
    assert await hand.mark(t1) is Mark.FRESH
    await hand.come_due(job)
    await hand.promote()
    assert await account(redis) == unfinished(queued=[job], known=[job])

    assert await hand.done(t1) is Settled.LOST
    assert await hand.applied() == 0
    assert await account(redis) == unfinished(queued=[job], known=[job])
    t2 = await hand.claim_only(job)
    assert await account(redis) == unfinished(leased=[job], running=1)
    assert await hand.mark(t2) is Mark.OWN
    assert await hand.done(t2) is Settled.DONE
    await handled_once(redis, hand, job)


@pytest.mark.parametrize("noticed", [False, True])
async def test_3_a_freed_slot_brings_the_next_though_nobody_else_acts(
    redis: Redis,
    hand: Hand,
    noticed: bool,  # noqa: FBT001  # a case of one test
) -> None:
    """P can be claimed, whether the expiry was noticed before the old holder's commit or not."""
    job, parked = await enqueued(redis, J, P)
    t1 = await hand.claim_only(job)
    assert await hand.mark(t1) is Mark.FRESH
    assert await account(redis) == unfinished(leased=[job], parked=[parked], running=1)
    await hand.come_due(job)
    if noticed:
        await hand.promote()
        assert await hand.done(t1) is Settled.LOST
        assert await account(redis) == unfinished(queued=[job, parked], known=[job])
        t1 = await hand.claim_only(job)
        assert await hand.mark(t1) is Mark.OWN
    assert await hand.done(t1) is Settled.DONE
    assert await account(redis) == unfinished(queued=[parked])

    second = await hand.claim_only(parked)
    assert await hand.mark(second, "evt_2") is Mark.FRESH
    assert await hand.done(second, "evt_2") is Settled.DONE
    await handled_once(redis, hand, job)


async def test_4_a_parked_event_has_one_place_at_each_step(redis: Redis, hand: Hand) -> None:
    """Redelivered, resumed, claimed and done: never two places, and no stale id at the end."""
    (job,) = await enqueued(redis, P)
    await organizations.pause(Partition.only(redis), "org_a", "a test")
    assert await hand.claim() == []
    assert await account(redis) == unfinished(parked=[job])
    assert await enqueue(redis, P) == [Accepted.KNOWN]
    assert await account(redis) == unfinished(parked=[job])
    await organizations.resume(Partition.only(redis), "org_a")
    assert await account(redis) == unfinished(queued=[job])
    claim = await hand.claim_only(job)
    assert await account(redis) == unfinished(leased=[job], running=1)
    assert await enqueue(redis, P) == [Accepted.KNOWN]
    assert await account(redis) == unfinished(leased=[job], running=1)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.done(claim) is Settled.DONE
    await handled_once(redis, hand, job)


async def test_5_a_bad_variant_does_not_bury_the_event_of_a_good_one(
    redis: Redis, hand: Hand
) -> None:
    """K leaves as a duplicate; J's mark stands, and J commits when its retry is due."""
    await hand.cap(2)  # with 1, J would keep the slot while it waits
    job, other = await enqueued(redis, J, K)
    first, bad = await hand.claim(2)
    assert await hand.mark(first) is Mark.FRESH
    assert await hand.retry(first) is Settled.RETRIED
    assert await hand.mark(bad) is Mark.CONFLICTING
    assert await hand.dead(bad, "organization_mismatch") is Settled.DUPLICATE
    assert bad.job == other
    assert await mark_of(redis, "evt_1") == f"pending:{job}"
    assert await account(redis) == unfinished(leased=[job])

    await hand.come_due(job)
    again = await hand.claim_only(job)
    assert await hand.mark(again) is Mark.OWN
    assert await hand.done(again) is Settled.DONE
    await handled_once(redis, hand, job)


@pytest.mark.parametrize("how", ["replay", "redelivery"])
async def test_6_a_burial_sent_again_does_not_touch_the_next_life(
    redis: Redis, hand: Hand, how: str
) -> None:
    """Its reply was lost; meanwhile the event was revived, so the second one is lost itself."""
    (job,) = await enqueued(redis, J)
    t1 = await hand.claim_only(job)
    assert await hand.mark(t1) is Mark.FRESH
    assert await hand.dead(t1) is Settled.DEAD
    if how == "replay":
        assert await hand.replay(job) == "queued"
    else:
        assert await enqueue(redis, J) == [Accepted.NEW]
    assert await hand.dead(t1) is Settled.LOST
    assert await account(redis) == unfinished(queued=[job])

    t2 = await hand.claim_only(job)
    assert await hand.mark(t2) is Mark.REVIVED
    assert await dead_letters(redis) == set()
    assert await hand.dead(t1) is Settled.LOST
    assert await account(redis) == unfinished(leased=[job], running=1)
    assert await hand.done(t2) is Settled.DONE
    await handled_once(redis, hand, job)


async def test_7_a_duplicate_that_was_revived_is_not_removed_by_its_first_holder(
    redis: Redis, hand: Hand
) -> None:
    """Judged a duplicate of K, J lost its lease; K died; J's second holder revived the event."""
    await hand.cap(2)
    other, job = await enqueued(redis, K, J)
    carrier, t1 = await hand.claim(2)
    assert await hand.mark(carrier) is Mark.FRESH
    assert await hand.mark(t1) is Mark.CONFLICTING
    await hand.come_due(job)
    assert await hand.dead(carrier) is Settled.DEAD
    assert await dead_letters(redis) == {other}
    t2 = await hand.claim_only(job)
    assert await hand.mark(t2) is Mark.REVIVED
    assert await hand.duplicate(t1) is Settled.LOST
    assert await account(redis) == unfinished(leased=[job], running=1)
    assert await hand.done(t2) is Settled.DONE
    await handled_once(redis, hand, job)


async def test_8_a_duplicate_whose_carrier_died_takes_the_event_up(
    redis: Redis, hand: Hand
) -> None:
    """It is sent back to mark, and revives what the other has buried."""
    await hand.cap(2)
    other, job = await enqueued(redis, K, J)
    carrier, waiter = await hand.claim(2)
    assert await hand.mark(carrier) is Mark.FRESH
    assert await hand.mark(waiter) is Mark.CONFLICTING
    assert await hand.dead(carrier) is Settled.DEAD
    assert await hand.duplicate(waiter) is Settled.AGAIN
    assert await dead_letters(redis) == {other}
    assert await account(redis) == unfinished(leased=[job], running=1)
    assert await hand.mark(waiter) is Mark.REVIVED
    assert await hand.done(waiter) is Settled.DONE
    await handled_once(redis, hand, job)


async def test_9_who_lost_the_lease_gives_nothing_back(redis: Redis, hand: Hand) -> None:
    """The late release does nothing: the event keeps its one place, and its payload."""
    (job,) = await enqueued(redis, J)
    t1 = await hand.claim_only(job)
    await hand.come_due(job)
    t2 = await hand.claim_only(job)
    assert await hand.release(t1) is Settled.LOST
    assert await account(redis) == unfinished(leased=[job], running=1)
    assert await hand.mark(t2) is Mark.FRESH
    assert await hand.done(t2) is Settled.DONE
    await handled_once(redis, hand, job)


async def crashed(hand: Hand, job: str, *, learned: bool) -> None:
    """Let three workers go away, and the fourth bury the event."""
    for crash in range(3):
        claim = await hand.claim_only(job)
        assert claim.claims == crash
        if learned:
            assert await hand.mark(claim) is (Mark.OWN if crash else Mark.FRESH)
        await hand.come_due(job)
    claim = await hand.claim_only(job)
    assert claim.claims == 3
    assert await hand.dead(claim, "crashed") is Settled.DEAD


async def test_10_a_crashed_event_that_was_marked_is_revived_by_its_variant(
    redis: Redis, hand: Hand
) -> None:
    """The record has its mark; K takes both over, and is handled once."""
    (job,) = await enqueued(redis, J)
    await crashed(hand, job, learned=True)
    assert await account(redis) == NOTHING
    assert (await record_of(redis, job))["event_id"] == "evt_1"
    assert await mark_of(redis, "evt_1") == f"dead:{job}"

    (other,) = await enqueued(redis, K)
    claim = await hand.claim_only(other)
    assert await hand.mark(claim) is Mark.REVIVED
    assert await hand.done(claim) is Settled.DONE
    await handled_once(redis, hand, other)


async def test_10_a_crashed_event_that_was_never_marked_is_not_handled_beside_its_variant(
    redis: Redis, hand: Hand
) -> None:
    """The record has no mark; K is handled once, and a replay of J leaves nothing behind."""
    (job,) = await enqueued(redis, J)
    await crashed(hand, job, learned=False)
    assert await account(redis) == NOTHING
    assert (await record_of(redis, job))["event_id"] == ""
    assert await mark_of(redis, "evt_1") is None

    (other,) = await enqueued(redis, K)
    claim = await hand.claim_only(other)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.done(claim) is Settled.DONE
    assert await hand.replay(job) == "queued"
    again = await hand.claim_only(job)
    assert await hand.mark(again) is Mark.CONFLICTING
    assert await hand.duplicate(again) is Settled.DUPLICATE
    await handled_once(redis, hand, other)


class OldEvent:
    """A variant of an event that has been handled, and whose mark is gone since."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.seen: list[Event[Any]] = []
        handlers = Handlers()

        @handlers.on("order.updated")
        async def see(event: Event[Any], _: Organization) -> None:
            self.seen.append(event)

        self.place = Workplace(redis, handlers)
        self.hand = Hand(redis)

    async def accept(self) -> tuple[str, str]:
        """Receive both a day after the event was created, and let the retention pass."""
        created = now() - timedelta(days=7)
        received = round((created + timedelta(days=1)).timestamp() * 1000)
        variants = (body("evt_1", created_at=created), body("evt_1", created_at=created, again=1))
        first, other = await self.place.accept(*variants, received_at=received)
        claim = await self.hand.claim_only(first, 1)
        assert await self.hand.mark(claim) is Mark.FRESH
        assert await self.hand.done(claim) is Settled.DONE
        await organizations.pause(Partition.only(self.redis), "org_a", "a test")
        assert await self.hand.claim() == []
        assert await account(self.redis) == unfinished(parked=[other])
        assert await self.redis.pexpire(keys.event("org_a", "evt_1"), 0)
        await organizations.resume(Partition.only(self.redis), "org_a")
        return first, other


async def test_11_a_variant_that_waited_past_the_retention_is_not_applied(redis: Redis) -> None:
    """Without the mark nobody can tell whether it was handled, so it is buried as unprovable."""
    old = OldEvent(redis)
    _, other = await old.accept()
    assert await old.place.handle_next() is Settled.DEAD
    assert (await record_of(redis, other))["reason"] == "unprovable"
    assert await dead_letters(redis) == {other}
    assert await mark_of(redis, "evt_1") == f"dead:{other}"
    assert old.seen == []
    assert await old.hand.applied() == 1
    assert await account(redis) == NOTHING


async def test_11_neither_a_crash_nor_a_lost_reply_makes_it_provable(redis: Redis) -> None:
    """Marked before the crash, the event would be its own afterwards, and so be applied again."""
    old = OldEvent(redis)
    _, other = await old.accept()
    ((claim, payload),) = await old.place.claim()
    limits = POLICY.limits
    created = envelope.decode(jobs.decode(payload).body).created_at.timestamp()
    until = round((created + limits.dedupe_retention - limits.clock_skew) * 1000)
    for _ in range(2):  # the second time, since the first reply was lost
        (answer,) = await old.hand.transitions.mark([MarkRequest(claim, "evt_1", until)])
        assert isinstance(answer, Marked)
        assert answer.mark is Mark.UNPROVABLE
        assert await mark_of(redis, "evt_1") is None
    await old.hand.come_due(other)

    assert await old.place.handle_next() is Settled.DEAD
    assert (await record_of(redis, other))["reason"] == "unprovable"
    assert old.seen == []
    assert await old.hand.applied() == 1
    assert await account(redis) == NOTHING


async def test_12_a_late_variant_of_a_dead_event_revives_it_in_one_step(
    redis: Redis, hand: Hand
) -> None:
    """One call: the mark is pending by K, and J's record is gone."""
    (job,) = await enqueued(redis, J)
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.dead(claim) is Settled.DEAD
    (other,) = await enqueued(redis, K)
    late = await hand.claim_only(other)
    assert await dead_letters(redis) == {job}
    assert await mark_of(redis, "evt_1") == f"dead:{job}"

    assert await hand.mark(late) is Mark.REVIVED
    assert await mark_of(redis, "evt_1") == f"pending:{other}"
    assert await dead_letters(redis) == set()
    assert await account(redis) == unfinished(leased=[other], running=1)
    assert await hand.done(late) is Settled.DONE
    await handled_once(redis, hand, other)


@pytest.mark.parametrize("first", ["the replayed", "the redelivered"])
async def test_13_a_replay_and_a_redelivery_at_once_are_handled_once(
    redis: Redis, hand: Hand, first: str
) -> None:
    """Whichever is marked first carries the event; the other leaves, and no record stays."""
    await hand.cap(2)
    (job,) = await enqueued(redis, J)
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.dead(claim) is Settled.DEAD
    assert await hand.replay(job) == "queued"
    (other,) = await enqueued(redis, K)
    assert await account(redis) == unfinished(queued=[job, other])

    claims = {each.job: each for each in await hand.claim(2)}
    carrier, late = (job, other) if first == "the replayed" else (other, job)
    assert await hand.mark(claims[carrier]) is Mark.REVIVED
    assert await dead_letters(redis) == set()
    assert await hand.mark(claims[late]) is Mark.CONFLICTING
    assert await hand.done(claims[carrier]) is Settled.DONE
    assert await hand.duplicate(claims[late]) is Settled.DUPLICATE
    await handled_once(redis, hand, carrier)


async def test_13_a_replay_of_bytes_that_were_redelivered_is_known(
    redis: Redis, hand: Hand
) -> None:
    """The same bytes are the same job, whoever brings them back first."""
    (job,) = await enqueued(redis, J)
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.dead(claim) is Settled.DEAD
    assert await enqueue(redis, J) == [Accepted.NEW]
    assert await hand.replay(job) == "known"
    assert await account(redis) == unfinished(queued=[job])
    again = await hand.claim_only(job)
    assert await hand.mark(again) is Mark.REVIVED
    assert await hand.done(again) is Settled.DONE
    await handled_once(redis, hand, job)


async def test_14_a_commit_sent_again_does_not_touch_a_redelivery_of_its_bytes(
    redis: Redis, hand: Hand
) -> None:
    """The second commit is lost, and the redelivery ends as a duplicate."""
    (job,) = await enqueued(redis, J)
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.done(claim) is Settled.DONE
    assert await enqueue(redis, J) == [Accepted.NEW]
    assert await hand.done(claim) is Settled.LOST
    assert await account(redis) == unfinished(queued=[job])

    again = await hand.claim_only(job)
    assert await hand.mark(again) is Mark.DUPLICATE
    assert await hand.duplicate(again) is Settled.DUPLICATE
    await handled_once(redis, hand, job)


@pytest.mark.parametrize("place_too", [False, True])
async def test_15_a_mark_whose_job_is_gone_is_taken_over(
    redis: Redis,
    hand: Hand,
    place_too: bool,  # noqa: FBT001  # a case of one test
) -> None:
    """An operator deleted J's payload, or arq finished it: K goes on, and nothing of J stays."""
    await hand.cap(2)
    (job,) = await enqueued(redis, J)
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.retry(claim) is Settled.RETRIED
    await redis.delete(keys.payload(job))
    if place_too:
        await redis.zrem(keys.QUEUE, job)

    (other,) = await enqueued(redis, K)
    late = await hand.claim_only(other)
    assert await hand.mark(late) is Mark.TAKEN_OVER
    assert await mark_of(redis, "evt_1") == f"pending:{other}"
    assert await hand.done(late) is Settled.DONE
    await handled_once(redis, hand, other)


async def test_16_a_paused_flood_stands_in_nobodys_way(fresh_redis_server: StartRedis) -> None:
    """Others' events are claimed by one call, again and again; then the flood keeps its order."""
    server = fresh_redis_server(appendfsync=None)
    async with Redis.from_url(server.url) as redis:
        hand = Hand(redis)
        flood = [delivery(each) for each in bodies(100_000)]
        for start in range(0, len(flood), 5_000):
            await enqueue(redis, *flood[start : start + 5_000])
        accepted = [job_id("org_a", each.body) for each in flood]
        await organizations.pause(Partition.only(redis), "org_a", "a test")
        for number in range(20):
            (job,) = await enqueued(redis, delivery(b"%d" % number, "org_b"))
            await hand.finish([await hand.claim_only(job)])

        await hand.cap(100)
        await organizations.resume(Partition.only(redis), "org_a", starts=1e6)
        started: list[str] = []
        for _ in range(10):
            claims = await hand.claim(100)
            started += [each.job for each in claims]
            await hand.finish(claims)
        assert started == accepted[:1_000]
        left = set(accepted[1_000:])
        found = await account(redis)
        assert found == unfinished(queued=found.queued, parked=left - found.queued)
        assert found.accepted == left


async def filled(redis: Redis) -> list[str]:
    """Enqueue until Redis is full; the jobs that were accepted."""
    accepted: list[str] = []
    code = ""
    try:
        while True:
            accepted += await enqueued(redis, delivery(b"%d" % len(accepted) + b"." * 20_000))
    except Unavailable as refusal:
        code = refusal.code
    assert code == "redis_out_of_memory"
    return accepted


async def test_17_a_full_redis_drains_and_accepts_again(fresh_redis_server: StartRedis) -> None:
    """While it is full nothing is accepted and everything is handled; then all is as before."""
    server = fresh_redis_server(appendfsync=None, maxmemory="6mb")
    async with Redis.from_url(server.url) as redis:
        hand = Hand(redis)
        accepted = await filled(redis)
        assert await account(redis) == unfinished(queued=accepted)

        claims = await hand.claim(10)
        assert [claim.job for claim in claims] == accepted[:10]
        with pytest.raises(Unavailable):
            await enqueue(redis, J)
        while claims:
            for claim in claims:
                assert await hand.mark(claim, claim.job) is Mark.FRESH
                assert await hand.done(claim, claim.job) is Settled.DONE
            claims = await hand.claim(10)
        assert await account(redis) == NOTHING
        assert [await hand.applied(job) for job in accepted] == [1] * len(accepted)
        assert await enqueue(redis, J) == [Accepted.NEW]


async def refused(queue: Queue, code: str) -> None:
    """Known as it is, the event isn't acknowledged: it could still be gone after a crash."""
    with pytest.raises(Unavailable) as caught:
        await queue.enqueue([J])
    assert caught.value.code == code


async def test_18_a_known_event_is_not_acknowledged_before_the_replica_has_it(
    fresh_redis_server: StartRedis,
) -> None:
    """Also the second delivery is answered 503 for as long as the first one isn't replicated."""
    primary = fresh_redis_server(appendfsync=None)
    replica = fresh_redis_server(appendfsync=None, replicaof=("127.0.0.1", primary.port))
    async with Redis.from_url(primary.url) as redis:
        queue = Queue(Partition.only(redis), Durability(Mode.REPLICA, replicas=1, timeout=0.1))
        patient = Queue(Partition.only(redis), Durability(Mode.REPLICA, replicas=1, timeout=20))
        async with asyncio.timeout(20):
            while not await redis.wait(1, 100):
                pass
        replica.freeze()
        await refused(queue, "not_replicated")
        (job,) = (await account(redis)).accepted
        await refused(queue, "not_replicated")
        assert await counters(redis) == {"accepted": 1, "known": 1}
        replica.thaw()
        assert await patient.enqueue([J]) == [Accepted.KNOWN]
        assert await account(redis) == unfinished(queued=[job])


async def test_18_a_known_event_is_not_acknowledged_before_it_is_on_disk(
    fresh_redis_server: StartRedis,
) -> None:
    """Also the second delivery is answered 503 for as long as the first one isn't synced."""
    server = fresh_redis_server(appendfsync="no")
    async with Redis.from_url(server.url) as redis:
        queue = Queue(Partition.only(redis), Durability(Mode.FSYNC, timeout=0.1))
        await refused(queue, "not_synced")
        (job,) = (await account(redis)).accepted
        await refused(queue, "not_synced")
        assert await counters(redis) == {"accepted": 1, "known": 1}
        await redis.config_set("appendfsync", "always")
        assert await queue.enqueue([J]) == [Accepted.KNOWN]
        assert await account(redis) == unfinished(queued=[job])
