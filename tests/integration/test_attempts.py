"""Facts about what is kept of an event's attempts, with its job and with its dead letter."""

import math
import random
import string

import msgspec
import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.keys import Names
from shared.queue.partition import TAGS, Partition
from tests.integration.books import Books
from tests.integration.by_hand import Hand
from tests.integration.jobs import NOTHING, account, delivery, enqueued
from tests.integration.shop import HANDLER, EndingShop
from tests.integration.workplace import body
from worker import Reject, Retry
from worker.operate import dead_letters, lookup, revival, upkeep
from worker.operate.past import Past
from worker.pipeline.transitions import Settled


class Shop(EndingShop):
    """The same, and what is kept of an event of it."""

    async def past(self, job: str) -> Past:
        return (await self.found(job)).past


@pytest.fixture
def shop(redis: Redis) -> Shop:
    return Shop(redis)


def outcomes(past: Past) -> list[tuple[str, int, str]]:
    return [(each.outcome, each.number, each.said) for each in past.happenings]


async def test_each_attempt_is_kept_with_who_made_it_and_what_came_of_it(
    redis: Redis, shop: Shop
) -> None:
    (job,) = await shop.place.accept(body("evt_1"))
    await shop.run(ValueError("one"), Retry(after=0, why="two"))
    past = await shop.past(job)
    assert outcomes(past) == [("failed", 1, "ValueError: one"), ("asked_again", 2, "two")]
    first, second = past.happenings
    assert first.worker == second.worker == "web-1-ab12cd"
    assert first.handler == second.handler == HANDLER
    assert first.at <= second.at
    # Nobody raised anything the last time.
    assert past.traceback == ""
    assert await shop.run(None) == [Settled.DONE]
    assert await redis.exists(keys.FAILURES) == 0
    assert await account(redis) == NOTHING
    (await Books.read(redis)).check(set())


@pytest.mark.parametrize("names", [Names(), Names(TAGS[0])])
async def test_a_count_anew_comes_to_what_was_counted(redis: Redis, names: Names) -> None:
    shop = Shop(redis, names=names)
    await shop.place.accept(body("evt_1"))
    await shop.run(ValueError("one"))
    said = await redis.hgetall(names.bytes)
    await upkeep.recount(shop.place.partition, retention=60)
    assert await redis.hgetall(names.bytes) == said
    assert await shop.run(None) == [Settled.DONE]
    assert (await redis.hgetall(names.bytes)).keys() == {b"org_a:marks"}


async def test_waits_that_spend_nothing_leave_no_attempt(redis: Redis) -> None:
    shop = Shop(redis)
    (job,) = await shop.place.accept(body("evt_1"))
    ((claim, _),) = await shop.place.claim()
    hand = Hand(redis)
    await hand.mark(claim)
    assert await hand.release(claim) is Settled.RELEASED
    assert (await shop.past(job)).happenings == ()


async def test_a_lost_lease_is_told_with_what_is_known_of_its_worker(redis: Redis) -> None:
    hand = Hand(redis)
    (job,) = await enqueued(redis, delivery(b"1"))
    await hand.claim_only(job)
    await hand.come_due(job)
    await hand.claim_only(job)
    for named in ("", "w1"):  # the first time nobody knows who that was
        await hand.transitions.note_names([named or "w2"])
        found = await lookup.find(Partition.only(redis), job)
        assert found is not None
        (lost,) = found.past.happenings
        assert (lost.outcome, lost.number, lost.worker) == ("lost", 1, named)
        assert found.claim.holder == named
    (await Books.read(redis)).check(set())


async def test_of_many_attempts_the_last_ten_are_kept(redis: Redis) -> None:
    shop = Shop(redis, attempts=20)
    (job,) = await shop.place.accept(body("evt_1"))
    await shop.run(*(ValueError(f"number {n}") for n in range(1, 14)))
    past = await shop.past(job)
    assert [each.number for each in past.happenings] == list(range(4, 14))
    assert past.happenings[-1].said == "ValueError: number 13"
    assert past.traceback.endswith("ValueError: number 13")
    assert await shop.run(None) == [Settled.DONE]
    (await Books.read(redis)).check(set())


async def test_the_attempts_go_with_the_dead_letter_and_come_back_with_a_replay(
    redis: Redis, shop: Shop
) -> None:
    (job,) = await shop.place.accept(body("evt_1"))
    ends = await shop.run(*(ValueError(n) for n in range(3)))
    assert ends == [Settled.RETRIED, Settled.RETRIED, Settled.DEAD]
    letter = await dead_letters.find(Partition.only(redis), job)
    assert letter is not None
    assert outcomes(letter.past) == [("failed", n + 1, f"ValueError: {n}") for n in range(3)]
    assert letter.traceback.endswith("ValueError: 2")
    assert await redis.exists(keys.FAILURES) == 0
    (await Books.read(redis)).check(set())

    assert await revival.replay_one(Partition.only(redis), job, "alice") == "queued"
    letter = await dead_letters.find(Partition.only(redis), job)
    assert letter is not None
    assert (letter.by_hand, letter.replayed_by) == (True, "alice")
    assert letter.replayed_at >= letter.died_at
    # Until it is judged, its letter stands.
    assert len((await shop.past(job)).happenings) == 3

    assert await shop.run(ValueError("again")) == [Settled.RETRIED]
    past = await shop.past(job)
    assert [each.outcome for each in past.happenings] == [
        *["failed"] * 3,
        "died",
        "replayed",
        "failed",
    ]
    died, replayed, again = past.happenings[3:]
    assert (died.said, died.number) == ("exhausted", 3)
    assert (died.at, replayed.at) == (letter.died_at / 1000, letter.replayed_at / 1000)
    assert replayed.worker == "alice"
    assert (again.number, again.said) == (1, "ValueError: again")

    assert await shop.run(Reject("enough")) == [Settled.DEAD]
    letter = await dead_letters.find(Partition.only(redis), job)
    assert letter is not None
    assert [each.outcome for each in letter.past.happenings][-2:] == ["failed", "rejected"]
    (await Books.read(redis)).check(set())


async def test_a_redelivery_that_revives_a_dead_event_is_told(redis: Redis, shop: Shop) -> None:
    signed = body("evt_1")
    (job,) = await shop.place.accept(signed)
    assert await shop.run(Reject("no")) == [Settled.DEAD]
    await shop.place.accept(signed)
    assert await shop.run(ValueError("again")) == [Settled.RETRIED]
    assert [each.outcome for each in (await shop.past(job)).happenings] == [
        "rejected",
        "died",
        "redelivered",
        "failed",
    ]
    (await Books.read(redis)).check(set())


async def test_an_older_worker_s_failure_is_read_and_gone_on_from(redis: Redis, shop: Shop) -> None:
    (job,) = await shop.place.accept(body("evt_1"))
    older = b"\x94\x01\xcf\x00\x00\x01\x8b\xcf\xe5h\x00\xa3bad\xa5trace"
    await redis.execute_command("HSET", keys.FAILURES, job, older)
    past = await shop.past(job)
    assert (outcomes(past), past.traceback) == ([("failed", 1, "bad")], "trace")
    await shop.run(ValueError("again"))
    assert outcomes(await shop.past(job)) == [
        ("failed", 1, "bad"),
        ("failed", 1, "ValueError: again"),
    ]


async def test_an_older_worker_s_long_failure_is_cut_between_two_letters(
    redis: Redis, shop: Shop
) -> None:
    (job,) = await shop.place.accept(body("evt_1"))
    older = msgspec.msgpack.encode([1, 1_700_000_000_000, "x" + "ä" * 300, ""])
    await redis.execute_command("HSET", keys.FAILURES, job, older)
    await shop.run(ValueError("again"))
    assert outcomes(await shop.past(job)) == [
        ("failed", 1, "x" + "ä" * 99),
        ("failed", 1, "ValueError: again"),
    ]


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"\x93\x91\x01\x90\xa0", b"\x93\x01\x02\x03", b"\xff", b"\x80"),
        # No calendar has such a time, and no attempt such a number.
        msgspec.msgpack.encode([[["f", 1e300, 1, 0, 0, 0, 0]], [], ""]),
        msgspec.msgpack.encode([[["f", 1, math.inf, 0, 0, 0, 0]], [], ""]),
        msgspec.msgpack.encode([math.inf, math.inf, "error", ""]),
    ],
)
async def test_where_somebody_s_hand_has_changed_it_the_history_begins_anew(
    redis: Redis, shop: Shop, raw: bytes
) -> None:
    (job,) = await shop.place.accept(body("evt_1"))
    await redis.execute_command("HSET", keys.FAILURES, job, raw)
    assert (await shop.past(job)).happenings == ()
    assert await shop.run(ValueError("again")) == [Settled.RETRIED]
    assert outcomes(await shop.past(job))[-1] == ("failed", 1, "ValueError: again")


async def test_a_job_that_is_retried_costs_no_more_than_a_kilobyte_and_a_half(
    redis: Redis,
) -> None:
    """Whatever its handler says, each time anew, in letters that don't compress."""
    shop = Shop(redis, attempts=30)
    drawn = random.Random(1)  # nothing is protected by it
    jobs = await shop.place.accept(*(body() for _ in range(20)))

    def noise() -> ValueError:
        return ValueError("".join(drawn.choices(string.printable + "äöü€", k=3000)))

    for _ in range(14):
        await shop.run(*(noise() for _ in jobs))
    taken = await redis.memory_usage(keys.FAILURES, samples=0)
    assert taken is not None
    assert await redis.hlen(keys.FAILURES) == len(jobs)
    assert taken / len(jobs) <= 1.5 * 1024
    past = await shop.past(jobs[0])
    assert len(past.happenings) == 10
    assert past.happenings[-1].said.startswith("ValueError: ")
    assert past.traceback
