"""Facts about what the mark of a finished event tells of how it was handled."""

import random
import time
from dataclasses import replace
from typing import Final

import msgspec
import pytest
from redis.asyncio import Redis

from shared.errors import Unavailable
from shared.queue import keys, told
from shared.queue.partition import Partition
from shared.queue.writer import Accepted, BytesLimits, Queue
from shared.redis.durability import Durability, Mode
from tests.integration.books import cost
from tests.integration.by_hand import Hand
from tests.integration.jobs import delivery, enqueue, enqueued, mark_of, reach
from tests.integration.workplace import POLICY, Workplace, body
from worker import Event, Handlers, Organization
from worker.operate import lookup, revival, upkeep
from worker.operate.dead_letters import select
from worker.operate.dead_lists import Filter
from worker.operate.lookup import Mark
from worker.operate.timeline import timeline
from worker.pipeline.policy import Backoff
from worker.pipeline.transitions import Mark as Found
from worker.pipeline.transitions import MarkRequest, Settled, Settlement, Transitions

NOW: Final = msgspec.json.encode({"host": "web-1", "marks": told.VERSION})
BEFORE_3: Final = msgspec.json.encode({"host": "web-0", "marks": 2})
BEFORE: Final = msgspec.json.encode({"host": "web-0"})
"""What a worker of this version says of itself, and what ones of earlier versions do."""


async def live(redis: Redis, worker: str, description: bytes) -> None:
    await Transitions(Partition.only(redis)).renew(
        worker, [], description=description, slots=10, lease=30
    )


class Shop:
    """A worker, one of whose events fails once."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        handlers = Handlers()
        handlers.on("*")(self.handle)
        soon = replace(POLICY, backoff=Backoff(base=0.001, cap=0.001))
        self.place = Workplace(redis, handlers, soon)
        self.place.pipeline = replace(self.place.pipeline, worker="web-1-ab12cd")

    async def handle(self, event: Event[object], _organization: Organization) -> None:
        if event.attempt == 1:
            raise ValueError("refused")

    async def handled(self, event_id: str) -> Mark:
        """Its mark, once it is handled."""
        await self.place.accept(body(event_id))
        assert await self.place.handle_next() is Settled.RETRIED
        assert await self.place.handle_next() is Settled.DONE
        found = await lookup.find_by_mark(Partition.only(self.redis), "org_a", event_id)
        assert found is not None
        assert found.mark is not None
        return found.mark


@pytest.fixture
def shop(redis: Redis) -> Shop:
    return Shop(redis)


async def test_it_tells_when_by_which_handler_and_worker_and_after_how_many_attempts(
    redis: Redis, shop: Shop
) -> None:
    await live(redis, "web-1-ab12cd", NOW)
    handler = f"{__name__}.Shop.handle"
    await Transitions(Partition.only(redis)).note_names(["web-1-ab12cd", handler, "other"])
    mark = await shop.handled("evt_1")
    assert mark.told is not None
    assert abs(mark.told.at - time.time()) < 60
    assert (mark.told.attempts, mark.told.seconds < 1) == (2, True)
    assert (mark.handler, mark.worker) == (handler, "web-1-ab12cd")
    raw = await redis.get(keys.event("org_a", "evt_1"))
    named, _, history = raw.partition(b"\n")
    assert len(named.removeprefix(f"done:{mark.job}".encode())) <= 24
    # All that was known of what failed, but for what was said at length.
    assert msgspec.msgpack.decode(history)[2] == ""
    (failed,) = mark.past.happenings
    assert (failed.number, failed.said, failed.handler) == (1, "ValueError: refused", handler)
    assert failed.worker == mark.worker
    said = await redis.hgetall(keys.BYTES)
    await upkeep.recount(shop.place.partition, retention=60)
    assert await redis.hgetall(keys.BYTES) == said
    # Who knows no names says none.
    await redis.delete(keys.KNOWN)
    found = await lookup.find_by_mark(Partition.only(redis), "org_a", "evt_1")
    assert found is not None
    assert found.mark is not None
    assert (found.mark.handler, found.mark.worker) == ("", "")


async def test_who_holds_nearly_all_that_it_may_keeps_no_histories_of_what_is_done(
    redis: Redis, shop: Shop
) -> None:
    """Nothing trims them: they would keep new events out for as long as marks are kept."""
    await live(redis, "web-1-ab12cd", NOW)
    durability = Durability(Mode.MEMORY)
    full = Queue(shop.place.partition, durability, bytes_limits=BytesLimits(1000, None))
    (refused,) = await full.enqueue([delivery(b"x" * 1000)])
    assert isinstance(refused, Unavailable)
    mark = await shop.handled("evt_1")
    assert mark.told is not None
    assert (mark.told.attempts, mark.past.happenings) == (2, ())
    said = await redis.hgetall(keys.BYTES)
    assert said == {b"org_a:marks": str(cost(len("evt_1"), 1)).encode()}
    await upkeep.recount(shop.place.partition, retention=60)
    assert await redis.hgetall(keys.BYTES) == said
    # A day later there may be room again.
    at = float(await redis.hget(keys.FLOWS, "order:full:org_a"))
    await redis.hset(keys.FLOWS, "order:full:org_a", str(at - 86_401_000))
    assert len((await shop.handled("evt_2")).past.happenings) == 1


@pytest.mark.parametrize("less", [0, 1])
async def test_nearly_all_is_more_than_nine_tenths_of_it(redis: Redis, less: int) -> None:
    await redis.hset(keys.BYTES, "org_a:marks", "9000")
    await enqueued(redis, delivery(b"1"))
    held = 9000 + 2 * int(await redis.hget(keys.BYTES, "org_a:waiting"))
    limits = BytesLimits(-(-held * 10 // 9) - less, None)
    queue = Queue(Partition.only(redis), Durability(Mode.MEMORY), bytes_limits=limits)
    assert await queue.enqueue([delivery(b"2")]) == [Accepted.NEW]
    assert await redis.hexists(keys.FLOWS, "order:full:org_a") is (less > 0)


@pytest.mark.parametrize("before", [BEFORE, BEFORE_3])
async def test_while_a_worker_lives_that_reads_less_it_is_as_it_was(
    redis: Redis, shop: Shop, before: bytes
) -> None:
    assert (await shop.handled("evt_0")).told is None  # nobody has said what he reads
    await live(redis, "web-1-ab12cd", NOW)
    await live(redis, "web-0-000000", before)
    await live(redis, "web-1-ab12cd", NOW)
    mark = await shop.handled("evt_1")
    assert mark.told is None
    assert await mark_of(redis, "evt_1") == f"done:{mark.job}"
    await Transitions(Partition.only(redis)).leave("web-0-000000")
    await live(redis, "web-1-ab12cd", NOW)
    assert (await shop.handled("evt_2")).told is not None
    # One that comes back, as after a deploy that is undone, is heard of with the next sign of life.
    await live(redis, "web-0-000000", before)
    await live(redis, "web-1-ab12cd", NOW)
    assert (await shop.handled("evt_3")).told is None
    # What earlier ones have said among themselves is no leave for this one.
    await redis.set(keys.TOLD_MARKS, "1")
    assert (await shop.handled("evt_4")).told is None


@pytest.mark.parametrize(
    ("description", "told_of"),
    [
        (NOW, ("discarded", "discarded")),
        (None, ("discarded", "discarded")),
        (BEFORE, ("finished", "finished")),
    ],
    ids=["this version", "nobody", "an earlier one"],
)
async def test_what_was_discarded_is_not_called_handled(
    redis: Redis, description: bytes | None, told_of: tuple[str, str]
) -> None:
    if description:
        await live(redis, "w1", description)
    place = Workplace(redis, Handlers())
    assert await place.handle(body("evt_1", type="order.exploded")) is Settled.DEAD
    (letter,) = [each async for each in select(reach(redis), Filter())]
    assert await revival.discard(place.partition, letter.job, retention=60) == "discarded"
    found = await lookup.find_by_mark(place.partition, "org_a", "evt_1")
    assert found is not None
    *past, end = timeline(found)
    assert (found.state, end.happened) == told_of
    assert [each.happened for each in past] == ["died"] * (description != BEFORE)
    assert "handled by" not in end.text
    again = body("evt_1", type="order.exploded")
    for signed in (letter.body, again):  # neither brings it back
        assert await place.handle(signed) is Settled.DUPLICATE
    assert await revival.discard(place.partition, letter.job, retention=60) == "absent"


async def test_what_is_ignored_on_purpose_is_not_called_handled(redis: Redis) -> None:
    await live(redis, "w1", NOW)
    await Transitions(Partition.only(redis)).note_names(["w1"])
    handlers = Handlers()
    handlers.ignore("order.created")
    place = Workplace(redis, handlers)
    place.pipeline = replace(place.pipeline, worker="w1")
    assert await place.handle(body("evt_1", type="order.created")) is Settled.DONE
    found = await lookup.find_by_mark(place.partition, "org_a", "evt_1")
    assert found is not None
    *_, end = timeline(found)
    assert (found.state, end.happened, end.attempt, end.by) == ("ignored", "ignored", None, "w1")
    assert end.lines() == ["ignored: no handler is to have its type", "by w1"]


async def test_an_operator_who_may_not_ask_what_marks_tell_discards_all_the_same(
    redis: Redis,
) -> None:
    """Its rights are of an earlier version."""
    await live(redis, "w1", NOW)
    place = Workplace(redis, Handlers())
    assert await place.handle(body("evt_1", type="order.exploded")) is Settled.DEAD
    (letter,) = [each async for each in select(reach(redis), Filter())]
    rights = (f"~{each}*" for each in (keys.EVENT, keys.DEAD.removesuffix(":"), keys.BYTES,
                                       keys.COUNTERS, keys.QUEUE))  # fmt: skip
    await redis.execute_command("ACL", "SETUSER", "earlier", "on", "nopass", "+@all", *rights)
    where = redis.connection_pool.connection_kwargs
    try:
        async with Redis(host=where["host"], port=where["port"], username="earlier") as earlier:
            here = Partition.only(earlier)
            assert await revival.discard(here, letter.job, retention=60) == "discarded"
    finally:
        await redis.execute_command("ACL", "DELUSER", "earlier")


async def test_what_a_newer_one_stands_for_is_not_called_handled(redis: Redis) -> None:
    await live(redis, "w1", NOW)
    handlers = Handlers()

    @handlers.on("order.updated", key="order_id", latest=True, quiet="0.1s")
    async def only_the_newest(event: Event[dict[str, str]], organization: Organization) -> None:
        if event.id == "evt_failed":
            raise ValueError

    place = Workplace(redis, handlers, replace(POLICY, backoff=Backoff(base=0.1, cap=0.1)))
    await place.accept(body("evt_failed"))
    while not await redis.exists(keys.FAILURES):
        await place.handle_next()
    await place.accept(body("evt_old"), body("evt_new"))
    while await redis.zcard(keys.ACCEPTED):
        await place.handle_next()
    stories = []
    for event_id in ("evt_failed", "evt_old", "evt_new"):
        found = await lookup.find_by_mark(place.partition, "org_a", event_id)
        assert found is not None
        happened = [each.happened for each in timeline(found) if each.happened != "accepted"]
        stories.append((found.state, happened))
    failed, *others = stories
    assert others == [("superseded", ["superseded"]), ("handled", ["handled"])]
    assert failed[0] == "superseded"
    assert set(failed[1][:-1]) == {"failed"}
    assert failed[1][-1] == "superseded"


async def test_one_that_was_killed_counts_until_it_is_taken_for_dead(
    redis: Redis, shop: Shop
) -> None:
    await live(redis, "web-0-000000", BEFORE)
    await live(redis, "web-1-ab12cd", NOW)
    assert (await shop.handled("evt_1")).told is None
    await redis.zadd(keys.WORKERS_SEEN, {"web-0-000000": 1})
    await live(redis, "web-1-ab12cd", NOW)
    assert (await shop.handled("evt_2")).told is not None


@pytest.mark.parametrize("description", [NOW, BEFORE_3])
async def test_a_redelivery_is_told_from_other_bytes_of_the_event(
    redis: Redis, description: bytes
) -> None:
    hand = Hand(redis)
    await live(redis, "w1", description)
    (job,) = await enqueued(redis, delivery(b"1"))
    claim = await hand.claim_only(job)
    await hand.mark(claim)
    settlement = Settlement(claim, "done", (3_600_000, (), (), True), told="ab12cd341.2ab")
    assert await hand.transitions.settle([settlement]) == [Settled.DONE]
    await enqueue(redis, delivery(b"1"), delivery(b"2"))
    again, other = await hand.claim()
    answers = await hand.transitions.mark([MarkRequest(it, "evt_1") for it in (again, other)])
    found = [getattr(each, "mark", each) for each in answers]
    assert found == [Found.DUPLICATE, Found.CONFLICTING]


async def test_it_costs_26_bytes_more_on_average_over_ids_of_all_lengths(redis: Redis) -> None:
    """Redis takes memory by steps, so that one id may cost a step more and another none."""
    drawn, grown = random.Random(1), []  # nothing is protected by it
    for length in range(1, 65):
        name = keys.event("o" * length, f"evt_{'x' * (length % 22)}")
        sizes = []
        before = f"done:{'o' * length}:{'0' * 32}"
        took, age = drawn.choice((2, 50, 800, 12_000)), drawn.choice((0, 0, 90, 7200, 90_000))
        tail = told.handled("shop.hooks.order_updated", told.code_of("web-1"), 1, took) + told.aged(
            age
        )
        for mark in (before, f"{before} 3m0000{tail}"):
            await redis.set(name, mark, px=3_600_000)
            sizes.append(await redis.memory_usage(name) or 0)
        grown.append(sizes[1] - sizes[0])
    assert sum(grown) / len(grown) <= 26


JOB: Final = f"org_1:{'0' * 32}".encode()


@pytest.mark.parametrize(
    ("attempts", "took", "age", "within"),
    [(1, 0, 0, 1), (12, 46_655, 46_655, 1), (10**6, 10**9, 29 * 86_400, 60), (1, 5, 10**9, None)],
)
def test_it_takes_no_more_than_24_characters_whatever_it_tells(
    attempts: int, took: int, age: int, within: int | None
) -> None:
    tail = told.handled("a.b.c", told.code_of("w"), attempts, took) + told.aged(age)
    job, read, _ = told.read(JOB + f" 3m0000{tail}".encode())
    assert job == JOB
    assert read is not None
    assert read.attempts == min(attempts, told.MOST_ATTEMPTS)
    assert read.seconds == min(took / 1000, 46_655)
    assert len(f" 3m0000{tail}") <= 24
    if within is None:  # longer ago than there is room to tell
        assert read.received_at is None
    else:
        assert read.received_at is not None
        assert 0 <= read.received_at - (read.at - age) < within
        assert read.received_within == within


def test_an_earlier_mark_is_read_and_what_is_none_tells_nothing() -> None:
    earlier = JOB + b" mi1x2y3zab12cd3412.2s"
    at = int("mi1x2y3z", 36) / 1000
    assert told.read(earlier) == (JOB, told.Told(at, "ab12", "cd34", 38, 0.1), b"")
    assert told.read(JOB + b"\n\x93\x90\x90\xa0") == (JOB, None, b"\x93\x90\x90\xa0")
    for none in (JOB, b"some job 1.2", b"", b"x y", b"\xff\nx"):
        assert told.read(none) == (none, None, b"")
