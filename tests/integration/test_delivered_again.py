"""Facts about what is told of an event whose sender delivers it again, before its end and after."""

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.books import Books
from tests.integration.shop import WORKER, EndingShop
from tests.integration.test_told import NOW, live
from tests.integration.workplace import body
from worker import Reject, Retry
from worker.operate import dead_letters, lookup, upkeep
from worker.operate.past import Happening
from worker.operate.timeline import timeline
from worker.pipeline.transitions import Settled


class Shop(EndingShop):
    """The same, and what is kept of evt_1."""

    async def again(self) -> list[tuple[str, int]]:
        """Of deliveries that it was handled without: what they were, and how many."""
        return [(each.kind, each.number) for each in await self.past() if each.kind in {"e", "c"}]

    async def past(self) -> tuple[Happening, ...]:
        found = await lookup.find_by_mark(Partition.only(self.redis), "org_a", "evt_1")
        assert found is not None
        assert found.mark is not None
        (await Books.read(self.redis)).check(set())
        return found.mark.past.happenings or found.past.happenings


@pytest.fixture
async def shop(redis: Redis) -> Shop:
    await live(redis, WORKER, NOW)
    return Shop(redis)


async def test_what_comes_again_while_it_waits_is_told_then_and_at_its_end(shop: Shop) -> None:
    signed = body("evt_1")
    (job,) = await shop.place.accept(signed)
    for _ in range(3):
        await shop.place.accept(signed)
    (again,) = (await shop.found(job)).past.happenings
    assert (again.outcome, again.number) == ("delivered_again", 3)
    assert await shop.run(ValueError("one"), None) == [Settled.RETRIED, Settled.DONE]
    assert sorted(each.kind for each in await shop.past()) == ["e", "f"]
    assert await shop.redis.exists(keys.REDELIVERED) == 0


async def test_what_comes_again_after_its_end_is_told_by_its_mark_which_lasts_no_longer(
    shop: Shop,
) -> None:
    signed, name = body("evt_1"), keys.event("org_a", "evt_1")
    await shop.place.accept(signed)
    assert await shop.run(None) == [Settled.DONE]
    await shop.redis.pexpire(name, 5_000_000)
    for _ in range(2):
        await shop.place.accept(signed)
        assert await shop.run(None) == [Settled.DUPLICATE]
    await shop.place.accept(body("evt_1", data={"order_id": "2"}))
    assert await shop.run(None) == [Settled.DUPLICATE]
    assert await shop.again() == [("e", 2), ("c", 1)]
    assert 4_000_000 < await shop.redis.pttl(name) <= 5_000_000
    # Those that wait behind one another count as well.
    for _ in range(3):
        await shop.place.accept(signed)
    assert await shop.run(None) == [Settled.DUPLICATE]
    assert await shop.again() == [("c", 1), ("e", 5)]
    said = await shop.redis.hgetall(keys.BYTES)
    await upkeep.recount(shop.place.partition, retention=60)
    assert await shop.redis.hgetall(keys.BYTES) == said


async def test_other_bytes_of_one_that_waits_are_told_with_its_attempts(shop: Shop) -> None:
    (job,) = await shop.place.accept(body("evt_1"))
    assert await shop.run(Retry(after=3600, why="later")) == [Settled.RETRIED]
    await shop.place.accept(body("evt_1", data={"order_id": "2"}))
    assert await shop.run(None) == [Settled.DUPLICATE]
    assert [each.kind for each in (await shop.found(job)).past.happenings] == ["a", "c"]
    (await Books.read(shop.redis)).check(set())


async def test_a_dead_letter_counts_those_that_it_held(shop: Shop) -> None:
    signed = body("evt_1")
    (job,) = await shop.place.accept(signed)
    await shop.place.accept(signed)
    assert await shop.run(Reject("no")) == [Settled.DEAD]
    letter = await dead_letters.find(shop.place.partition, job)
    assert letter is not None
    assert [(each.kind, each.number) for each in letter.past.happenings] == [("e", 1), ("x", 1)]
    await shop.place.accept(signed)
    assert await shop.run(Reject("no")) == [Settled.DEAD]  # once it may live again
    for _ in range(3):
        await shop.place.accept(signed)
    assert await shop.run(None) == [Settled.HELD]
    letter = await dead_letters.find(shop.place.partition, job)
    assert letter is not None
    assert letter.held == 3
    (await Books.read(shop.redis)).check(set())


async def test_a_thousand_cost_what_one_does(shop: Shop) -> None:
    signed = body("evt_1")
    await shop.place.accept(signed)
    lengths, held = [], []
    for _ in range(40):
        await shop.place.accept(*[signed] * 25)
        lengths.append(await shop.redis.memory_usage(keys.REDELIVERED) or 0)
        held.append((await shop.redis.hgetall(keys.BYTES))[b"org_a:waiting"])
    assert len(set(held)) == 1
    assert max(lengths) <= min(lengths) + 64
    assert await shop.run(None) == [Settled.DONE]
    assert await shop.again() == [("e", 1000)]
    before = await shop.redis.strlen(keys.event("org_a", "evt_1"))
    for _ in range(20):
        await shop.place.accept(signed)
        assert await shop.run(None) == [Settled.DUPLICATE]
    assert await shop.redis.strlen(keys.event("org_a", "evt_1")) <= before + 4
    assert await shop.again() == [("e", 1020)]


async def test_its_story_tells_when_it_came_again(shop: Shop) -> None:
    signed = body("evt_1")
    (job,) = await shop.place.accept(signed)
    await shop.place.accept(signed)
    assert await shop.run(ValueError("one"), None) == [Settled.RETRIED, Settled.DONE]
    await shop.place.accept(body("evt_1", data={"order_id": "2"}))
    assert await shop.run(None) == [Settled.DUPLICATE]
    await shop.place.accept(signed)
    found = await shop.found(job)  # once more: it waits to be told from the others
    accepted, *twice, handled, otherwise, again, waits = (
        each.text.split(" after ")[0] for each in timeline(found)
    )
    assert accepted == "accepted"
    assert set(twice) == {"delivered again", "attempt 1 failed"}  # perhaps in one millisecond
    assert [handled, otherwise, again, waits] == [
        "handled by attempt 2",
        "other bytes under its id came, and were left alone",
        "accepted again through endpoint acme",
        "in line, 0 ahead of it",
    ]
    assert await shop.run(None) == [Settled.DUPLICATE]
    finished = await lookup.find_by_mark(Partition.only(shop.redis), "org_a", "evt_1")
    assert finished is not None
    *_, last = timeline(finished)
    assert last.text.startswith("delivered again 2 times, the last time here, the first ")


async def test_what_an_earlier_worker_s_end_has_left_goes(shop: Shop) -> None:
    await shop.redis.hset(keys.REDELIVERED, "org_a:gone", "1:1:1")
    await shop.redis.hset(keys.BYTES, "org_a:waiting", "200")
    await live(shop.redis, WORKER, NOW)
    assert not await shop.redis.exists(keys.REDELIVERED, keys.BYTES)


@pytest.mark.parametrize("said", ["somebody's", "1:2", "x:1:2"])
async def test_what_somebody_s_hand_has_written_is_begun_anew(shop: Shop, said: str) -> None:
    signed = body("evt_1")
    (job,) = await shop.place.accept(signed)
    await shop.redis.hset(keys.REDELIVERED, job, said)
    assert (await shop.found(job)).past.happenings == ()
    await shop.place.accept(signed)
    assert await shop.run(None) == [Settled.DONE]
    found = await lookup.find_by_mark(Partition.only(shop.redis), "org_a", "evt_1")
    assert found is not None
    assert [(each.kind, each.number) for each in found.past.happenings] == [("e", 1)]
