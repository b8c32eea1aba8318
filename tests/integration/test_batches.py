"""Facts about how much one script does at once: Redis serves nobody else meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.job import Delivery
from shared.queue.partition import Partition
from shared.queue.writer import Accepted, Queue, QueueWriter
from shared.redis.durability import Durability, Mode
from tests.conftest import StartRedis
from tests.integration.by_hand import RETENTION, Hand
from tests.integration.jobs import account, delivery, enqueue, processor_time
from tests.integration.workplace import Lines
from worker.engine.leases import Leases
from worker.operate import organizations
from worker.pipeline.batcher import Batcher
from worker.pipeline.transitions import (
    Claim,
    Marked,
    MarkRequest,
    Renewed,
    Settled,
    Settlement,
    Transitions,
)

MOST = 256
MOST_BYTES = 1 << 20

FEW_MILLISECONDS = 40.0
"""Several times what a full batch takes here, since other machines are slower, or busy."""


def deliveries(number: int, size: int = 2, organization: str = "org_a") -> list[Delivery]:
    """Different bodies of one size."""
    return [delivery(b"%0*d" % (size, each), organization) for each in range(number)]


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis)


async def test_a_claim_takes_as_many_as_it_was_asked_for(redis: Redis, hand: Hand) -> None:
    await enqueue(redis, *deliveries(300, size=3))
    claimed = await hand.transitions.claim("w1", most=MOST, lease=30, holding=0)
    assert len(claimed.jobs) == MOST
    assert len({claim.token for claim, _ in claimed.jobs}) == MOST
    assert claimed.more
    claimed = await hand.transitions.claim("w1", most=MOST, lease=30, holding=MOST)
    assert len(claimed.jobs) == 44
    assert not claimed.more


async def test_a_claim_takes_no_more_bytes_than_it_may(redis: Redis, hand: Hand) -> None:
    await enqueue(redis, *deliveries(7, size=300 * 1024))
    taken = []
    for _ in range(3):
        claimed = await hand.transitions.claim("w1", most=MOST, lease=30, holding=0)
        taken.append(len(claimed.jobs))
        assert sum(len(payload) for _, payload in claimed.jobs) <= MOST_BYTES
        assert claimed.more is (sum(taken) < 7)
    assert taken == [3, 3, 1]


async def test_an_event_that_is_larger_than_a_batch_comes_alone(redis: Redis, hand: Hand) -> None:
    large, *small = deliveries(3, size=2 * MOST_BYTES), delivery(b"small")
    await enqueue(redis, *large, *small)
    for taken in (1, 1, 1, 1):
        assert len(await hand.claim(MOST)) == taken


async def test_one_claim_brings_in_line_and_looks_at_so_many_at_the_most(
    redis: Redis, hand: Hand
) -> None:
    """The answer says that there is more, and the next call goes on where this one stopped."""
    await enqueue(redis, *deliveries(700, size=4))
    await organizations.pause(Partition.only(redis), "org_a", "a test")
    parked = []
    for _ in range(3):
        claimed = await hand.transitions.claim("w1", most=100, lease=30, holding=0)
        assert claimed.jobs == []
        parked.append(len((await account(redis)).parked))
        assert claimed.more is (parked[-1] < 700)
    assert parked == [256, 512, 700]

    await organizations.resume(Partition.only(redis), "org_a", starts=1e6)
    assert len((await account(redis)).queued) == MOST
    await redis.zadd(keys.QUEUE, {f"org_b:{n}": keys.DEFERRED_FROM for n in range(300)})
    claimed = await hand.transitions.claim("w1", most=0, lease=30, holding=0)
    assert claimed.more
    assert len((await account(redis)).leased_or_deferred) == 300 - MOST


class Sizes(Transitions):
    """Remembers how many were in each call."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(Partition.only(redis))
        self.of: list[int] = []

    async def mark(self, requests: Sequence[MarkRequest]) -> list[Marked | Exception]:
        self.of.append(len(requests))
        return await super().mark(requests)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled | Exception]:
        self.of.append(len(settlements))
        return await super().settle(settlements)

    async def renew(self, worker: str, claims: Sequence[Claim], **options: Any) -> Renewed:
        self.of.append(len(claims))
        return await super().renew(worker, claims, **options)


@pytest.fixture
def sizes(redis: Redis) -> Sizes:
    return Sizes(redis)


@pytest.mark.parametrize(("slots", "at_once"), [(10, 40), (100, 40), (300, 50), (1000, 80)])
async def test_marks_and_settlements_of_many_handlers_go_in_bounded_batches(
    sizes: Sizes, slots: int, at_once: int
) -> None:
    batcher = Batcher(sizes, patience=5, log=Lines().log, slots=slots)
    claims = [Claim(f"org_a:{number}", "aa") for number in range(600)]
    marked = [asyncio.get_running_loop().create_future() for _ in claims]
    for claim, each in zip(claims, marked, strict=True):
        batcher.post_mark(MarkRequest(claim, "evt_1"), each.set_result)
    await asyncio.gather(*marked)
    await asyncio.gather(*(batcher.settle(Settlement(each, "release")) for each in claims))
    rest = [600 % at_once] if 600 % at_once else []
    assert sizes.of == 2 * [*[at_once] * (600 // at_once), *rest]


async def test_settlements_that_write_much_go_in_batches_of_a_megabyte(sizes: Sizes) -> None:
    batcher = Batcher(sizes, patience=5, log=Lines().log)
    details = (RETENTION, (), (("put", "k", 0, "x" * 300 * 1024),), True)
    settlements = [Settlement(Claim(f"org_a:{n}", "aa"), "done", details) for n in range(7)]
    await asyncio.gather(*map(batcher.settle, settlements))
    assert sizes.of == [3, 3, 1]


async def test_leases_are_renewed_in_bounded_batches(sizes: Sizes) -> None:
    leases = Leases(
        worker="w1",
        description=b"{}",
        slots=600,
        lease=30,
        held=lambda: [Claim(f"org_a:{number}", "aa") for number in range(600)],
        stuck=lambda: 0,
        lost=lambda _: None,
        profiles=list,
        log=Lines().log,
    )
    await leases.beat(sizes)
    assert sizes.of == [MOST, MOST, 88]


class Batches(Queue):
    """Remembers how much was in each batch."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(Partition.only(redis), Durability(Mode.MEMORY))
        self.of: list[tuple[int, int]] = []

    async def enqueue(self, deliveries: Sequence[Delivery]) -> list[Any]:
        self.of.append((len(deliveries), sum(len(each.body) for each in deliveries)))
        return await super().enqueue(deliveries)


@pytest.mark.parametrize(("number", "size"), [(600, 10), (40, 100 * 1024)])
async def test_deliveries_that_come_together_are_enqueued_in_bounded_batches(
    redis: Redis, number: int, size: int
) -> None:
    queue = Batches(redis)
    writer = QueueWriter(queue)
    sent = deliveries(number, size)
    answers = await asyncio.gather(*map(writer.accept, sent))
    assert answers == [Accepted.NEW] * number
    assert max(count for count, _ in queue.of) <= MOST
    assert max(weight for _, weight in queue.of) <= MOST_BYTES
    assert sum(count for count, _ in queue.of) == number
    assert len(queue.of) <= 5


# How long Redis is held


@pytest.fixture
async def quiet(fresh_redis_server: StartRedis) -> AsyncIterator[Redis]:
    """Give a Redis of one's own, whose time isn't the disk's."""
    async with Redis.from_url(fresh_redis_server(appendfsync=None).url) as redis:
        yield redis


async def milliseconds(redis: Redis, step: Callable[[], Awaitable[object]]) -> float:
    """What the scripts of this step took: no more than Redis says, nor than it had of a processor.

    The one has in it how long Redis waited for a processor, and the other what it is asked here.
    """

    async def so_far() -> tuple[float, float]:
        stats = await redis.info("commandstats")
        names = ("cmdstat_evalsha", "cmdstat_eval")
        said = sum(stats.get(name, {}).get("usec", 0) for name in names) / 1e6
        return said, await processor_time(redis)

    before = await so_far()
    await step()
    return min(now - then for now, then in zip(await so_far(), before, strict=True)) * 1000


async def round_of(redis: Redis, number: int, organizations: int) -> dict[str, float]:
    """How long each script takes for so many jobs, from their acceptance to their end."""
    await redis.flushall()
    hand = Hand(redis)
    sent = [delivery(b"%d" % n, f"org_{n % organizations}") for n in range(number)]
    claims: list[Claim] = []

    async def claim() -> None:
        claims[:] = await hand.claim(MOST)
        assert len(claims) == number

    async def mark() -> None:
        await hand.transitions.mark([MarkRequest(each, each.job) for each in claims])

    async def renew() -> None:
        await hand.transitions.renew("w1", claims, description=b"{}", slots=1000, lease=30)

    async def settle() -> None:
        operation = ("put_if_newer", "orders/1", 0, '{"status":"paid"}', 1)
        details = (RETENTION, (("orders/1", ""),), (operation,), True)
        await hand.transitions.settle([Settlement(each, "done", details) for each in claims])

    async def expire() -> None:
        await redis.zadd(keys.QUEUE, dict.fromkeys((c.job for c in claims), keys.DEFERRED_FROM))

    found = {"enqueue": await milliseconds(redis, lambda: enqueue(redis, *sent))}
    found["claim"] = await milliseconds(redis, claim)
    await expire()
    found["promote and claim"] = await milliseconds(redis, claim)
    for step in (mark, renew, settle):
        found[step.__name__] = await milliseconds(redis, step)
    return found


async def best_of(redis: Redis, number: int, organizations: int) -> dict[str, float]:
    """The best of some rounds: what else the machine does is none of the scripts' doing."""
    rounds = [await round_of(redis, number, organizations) for _ in range(5)]
    return {name: min(each[name] for each in rounds) for name in rounds[0]}


@pytest.mark.parametrize("organizations", [1, MOST])
async def test_a_full_batch_holds_redis_for_a_few_milliseconds(
    quiet: Redis, organizations: int
) -> None:
    """And for less than its jobs would one by one."""
    one = await best_of(quiet, 1, 1)
    batch = await best_of(quiet, MOST, organizations)
    for name, took in batch.items():
        assert took < min(FEW_MILLISECONDS, MOST * one[name]), (name, took, one[name])


async def test_looking_at_a_paused_flood_holds_redis_for_a_few_milliseconds(quiet: Redis) -> None:
    hand = Hand(quiet)
    took = []
    await enqueue(quiet, *deliveries(5_000, size=4))
    await organizations.pause(Partition.only(quiet), "org_a", "a test")
    for _ in range(4):
        took.append(await milliseconds(quiet, lambda: hand.claim(10)))
        took.append(
            await milliseconds(quiet, lambda: organizations.resume(Partition.only(quiet), "org_a"))
        )
        await organizations.pause(Partition.only(quiet), "org_a", "a test")
    assert sorted(took)[4] < FEW_MILLISECONDS, took
