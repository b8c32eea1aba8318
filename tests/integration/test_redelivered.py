"""Facts about redeliveries of a dead event, each race as the one order of steps that shows it.

J and K are two byte-variants of one event. A redelivery that is held leaves its dead letter as it
is, under whichever job that stands.
"""

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.job import Delivery, job_id
from shared.queue.partition import Partition
from tests.integration.by_hand import RETENTION, Hand
from tests.integration.jobs import NOTHING, account, counters, enqueued, mark_of, record_of
from tests.integration.test_races import J, K, dead_letters, handled_once, unfinished
from worker.operate import revival
from worker.pipeline.transitions import RETENTION as MARKS_ARE_KEPT
from worker.pipeline.transitions import Claim, Mark, Settled

MOST = 20
variants = pytest.mark.parametrize("again", [J, K], ids=["the same bytes", "other bytes"])


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis)


async def buried(hand: Hand, delivery: Delivery = J) -> str:
    """The job of an event that is dead."""
    (job,) = await enqueued(hand.redis, delivery)
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.dead(claim) is Settled.DEAD
    return job


async def redelivered(hand: Hand, delivery: Delivery = J) -> Claim:
    """The claim of one more delivery."""
    (job,) = await enqueued(hand.redis, delivery)
    return await hand.claim_only(job)


async def revive(hand: Hand, delivery: Delivery = J) -> None:
    """Redeliver the event, and let it die again."""
    claim = await redelivered(hand, delivery)
    assert await hand.mark(claim) is Mark.REVIVED
    assert await hand.dead(claim) is Settled.DEAD


async def holding(hand: Hand, delivery: Delivery = J) -> tuple[str, Claim]:
    """A dead event's job, and the claim of a redelivery that is one too many."""
    job = await buried(hand)
    await revive(hand)
    claim = await redelivered(hand, delivery)
    assert await hand.mark(claim) is (Mark.HELD if delivery is J else Mark.HELD_CONFLICTING)
    return job, claim


@variants
async def test_the_second_within_a_minute_leaves_the_letter(
    redis: Redis, hand: Hand, again: Delivery
) -> None:
    job, claim = await holding(hand, again)
    before = await record_of(redis, job)
    assert await hand.hold(claim) is Settled.HELD
    record = await record_of(redis, job)
    assert record.pop("held") == "1"
    assert int(record.pop("held_at")) >= int(before["died_at"])
    assert record == before
    assert await mark_of(redis, "evt_1") == f"dead:{job}"
    assert await dead_letters(redis) == {job}
    assert await account(redis) == NOTHING
    counted = await counters(redis)
    assert (counted["held"], counted["revived"], counted["dead"]) == (1, 1, 2)
    assert not counted.keys() & {"handled", "duplicate"}


async def test_each_that_is_held_is_counted_until_one_revives_it(redis: Redis, hand: Hand) -> None:
    job, claim = await holding(hand)
    assert await hand.hold(claim) is Settled.HELD
    other = await redelivered(hand, K)
    assert await hand.mark(other) is Mark.HELD_CONFLICTING
    assert await hand.hold(other) is Settled.HELD
    assert (await record_of(redis, job))["held"] == "2"
    await hand.wait_a_minute()
    await revive(hand)
    assert "held" not in await record_of(redis, job)


@variants
async def test_a_minute_later_it_is_revived_again_and_20_times_in_all(
    redis: Redis, hand: Hand, again: Delivery
) -> None:
    await buried(hand)
    for _ in range(MOST):
        await revive(hand, again)
        await hand.wait_a_minute()
    claim = await redelivered(hand, again)
    assert await hand.mark(claim) is Mark.HELD
    assert await hand.hold(claim) is Settled.HELD
    assert await dead_letters(redis) == {job_id("org_a", again.body)}
    assert (await counters(redis))["revived"] == MOST


async def test_an_event_that_a_redelivery_revives_has_all_its_attempts(
    redis: Redis, hand: Hand
) -> None:
    """J was put off before its mark could be read; then K brought the event, and died."""
    await hand.cap(2)
    job, _ = await enqueued(redis, J, K)
    early, other = await hand.claim(2)
    assert await hand.retry(early) is Settled.RETRIED
    assert await hand.mark(other) is Mark.FRESH
    assert await hand.dead(other) is Settled.DEAD
    await hand.come_due(job)
    claim = await hand.claim_only(job)
    assert claim.attempts == 1
    assert await hand.mark(claim) is Mark.REVIVED
    assert await hand.retry(claim) is Settled.RETRIED
    await hand.come_due(job)
    assert (await hand.claim_only(job)).attempts == 1


async def test_the_count_is_kept_as_long_as_a_mark_would_be(redis: Redis, hand: Hand) -> None:
    await holding(hand)
    left = await redis.pttl(keys.revivals("org_a", "evt_1"))
    assert 0 < left <= MARKS_ARE_KEPT * 1000
    assert left > MARKS_ARE_KEPT * 1000 - 60_000


async def test_a_clock_that_was_set_back_holds_nothing_for_long(redis: Redis, hand: Hand) -> None:
    await buried(hand)
    await redis.set(keys.revivals("org_a", "evt_1"), b"1:%d" % 2**52)
    await revive(hand)


@variants
async def test_a_replay_of_what_is_held_already_runs_all_the_same(
    redis: Redis, hand: Hand, again: Delivery
) -> None:
    """Marked as held, and not gone yet: it goes back to mark, which lets it pass."""
    job, claim = await holding(hand, again)
    assert await hand.replay(job) == ("known" if again is J else "queued")
    assert await hand.hold(claim) is Settled.AGAIN
    assert await hand.mark(claim) is Mark.REVIVED
    assert await hand.done(claim) is Settled.DONE
    if again is K:  # the job that was replayed finds the event done
        late = await hand.claim_only(job)
        assert await hand.mark(late) is Mark.CONFLICTING
        assert await hand.duplicate(late) is Settled.DUPLICATE
    await handled_once(redis, hand, claim.job)


@variants
async def test_a_replay_before_the_redelivery_is_marked_lets_it_pass(
    redis: Redis, hand: Hand, again: Delivery
) -> None:
    job = await buried(hand)
    await revive(hand)
    claim = await redelivered(hand, again)
    assert await hand.replay(job) == ("known" if again is J else "queued")
    assert await hand.mark(claim) is Mark.REVIVED
    assert await hand.done(claim) is Settled.DONE
    assert (await account(redis)).queued == ({job} if again is K else set())


async def test_a_replay_after_a_redelivery_was_held_runs_and_begins_the_count_anew(
    redis: Redis, hand: Hand
) -> None:
    job, claim = await holding(hand)
    assert await hand.hold(claim) is Settled.HELD
    assert await hand.replay(job) == "queued"
    replayed = await hand.claim_only(job)
    assert await hand.mark(replayed) is Mark.REVIVED
    assert not await redis.exists(keys.revivals("org_a", "evt_1"))
    assert await hand.dead(replayed) is Settled.DEAD
    assert (await record_of(redis, job)).keys().isdisjoint({"by_hand", "held", "held_at"})
    await revive(hand)
    assert await redis.get(keys.revivals("org_a", "evt_1")) is not None


async def test_a_replay_of_another_letter_of_that_event_is_not_held(
    redis: Redis, hand: Hand
) -> None:
    """J's workers went away before its event was known; then K brought the event, and died."""
    (job,) = await enqueued(redis, J)
    assert await hand.dead(await hand.claim_only(job), "crashed") is Settled.DEAD
    other = await buried(hand, K)
    await revive(hand, K)
    again = await redelivered(hand)
    assert await hand.mark(again) is Mark.HELD_CONFLICTING
    assert await hand.hold(again) is Settled.HELD
    assert await dead_letters(redis) == {job, other}
    assert await hand.replay(job) == "queued"
    replayed = await hand.claim_only(job)
    assert await hand.mark(replayed) is Mark.REVIVED
    assert await hand.done(replayed) is Settled.DONE
    await handled_once(redis, hand, job)


async def test_a_redelivery_while_its_replay_waits_is_not_held(redis: Redis, hand: Hand) -> None:
    """Whichever comes first carries the event; the other leaves, and no record stays."""
    job, claim = await holding(hand)
    assert await hand.hold(claim) is Settled.HELD
    assert await hand.replay(job) == "queued"
    (other,) = await enqueued(redis, K)
    claims = {each.job: each for each in await hand.claim()}
    assert await hand.mark(claims[other]) is Mark.REVIVED
    assert await hand.mark(claims[job]) is Mark.CONFLICTING
    assert await hand.done(claims[other]) is Settled.DONE
    assert await hand.duplicate(claims[job]) is Settled.DUPLICATE
    await handled_once(redis, hand, other)


async def test_a_replay_passes_once(redis: Redis, hand: Hand) -> None:
    """Buried anew without its mark (its workers went away), the letter bears no word of it."""
    job, claim = await holding(hand)
    assert await hand.replay(job) == "known"
    assert await hand.dead(claim, "crashed") is Settled.DEAD
    assert "by_hand" not in await record_of(redis, job)
    again = await redelivered(hand)
    assert await hand.mark(again) is Mark.HELD


@variants
async def test_what_is_discarded_meanwhile_ends_as_a_duplicate(
    redis: Redis, hand: Hand, again: Delivery
) -> None:
    job, claim = await holding(hand, again)
    assert await revival.discard(Partition.only(redis), job, retention=RETENTION) == "discarded"
    assert await hand.hold(claim) is Settled.AGAIN
    assert await hand.mark(claim) in (Mark.DUPLICATE, Mark.CONFLICTING)
    assert await hand.duplicate(claim) is Settled.DUPLICATE
    assert (await mark_of(redis, "evt_1") or "").startswith(f"done:{job} ")
    assert await dead_letters(redis) == set()
    assert await account(redis) == NOTHING


async def test_what_expires_meanwhile_is_judged_anew(redis: Redis, hand: Hand) -> None:
    _, claim = await holding(hand, K)
    assert await revival.expire(Partition.only(redis), "org_a", died_before=2**52) == 1
    assert await hand.hold(claim) is Settled.AGAIN
    assert await hand.mark(claim) is Mark.FRESH


async def test_a_letter_that_is_replayed_waits_for_no_expiry(redis: Redis, hand: Hand) -> None:
    """The same bytes' job keeps the record from expiring while it is there."""
    job, claim = await holding(hand)
    assert await revival.expire(Partition.only(redis), "org_a", died_before=2**52) == 0
    assert await hand.hold(claim) is Settled.HELD
    assert await dead_letters(redis) == {job}


async def test_without_its_letter_an_event_is_not_lost(redis: Redis, hand: Hand) -> None:
    """Somebody has deleted the record: what came last is all that there is."""
    job, claim = await holding(hand)
    await redis.delete(keys.dead_letter(job))
    assert await hand.hold(claim) is Settled.AGAIN
    assert await hand.mark(claim) is Mark.REVIVED
    assert await hand.done(claim) is Settled.DONE
    assert await mark_of(redis, "evt_1") == f"done:{job}"


async def test_a_crash_before_it_has_left_only_costs_time(redis: Redis, hand: Hand) -> None:
    job, claim = await holding(hand)
    await hand.come_due(job)
    again = await hand.claim_only(job)
    assert await hand.hold(claim) is Settled.LOST
    assert await hand.mark(again) is Mark.HELD
    assert await hand.hold(again) is Settled.HELD
    assert await dead_letters(redis) == {job}
    assert await account(redis) == NOTHING


async def test_who_lost_the_lease_holds_nothing_back(redis: Redis, hand: Hand) -> None:
    """Replayed and claimed by another meanwhile, the event is that one's."""
    job, late = await holding(hand)
    await hand.come_due(job)
    claim = await hand.claim_only(job)
    assert await hand.hold(late) is Settled.LOST
    assert await account(redis) == unfinished(leased=[job], running=1)
    assert await hand.replay(job) == "known"
    assert await hand.mark(claim) is Mark.REVIVED
    assert await hand.done(claim) is Settled.DONE
    await handled_once(redis, hand, job)


async def test_nothing_but_a_dead_event_is_held(redis: Redis, hand: Hand) -> None:
    """Neither one of which nothing is known, nor one that is pending or done."""
    (job,) = await enqueued(redis, J)
    claim = await hand.claim_only(job)
    assert await hand.hold(claim) is Settled.AGAIN
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.hold(claim) is Settled.AGAIN
    assert await hand.done(claim) is Settled.DONE
    again = await redelivered(hand)
    assert await hand.mark(again) is Mark.DUPLICATE
    assert await hand.hold(again) is Settled.AGAIN
