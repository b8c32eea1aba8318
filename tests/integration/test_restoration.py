"""Facts about accepted events whose place in the queue somebody has taken away."""

import asyncio
from functools import partial

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.by_hand import Hand
from tests.integration.jobs import NOTHING, account, bodies, counters, delivery, enqueued
from tests.integration.kept_up import keep_up
from tests.integration.workplace import Lines, Workplace, body
from worker import Handlers
from worker.operate import organizations
from worker.operate.upkeep import restore, restored
from worker.pipeline.transitions import Mark, Settled

YEAR = 366 * 86_400_000


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis)


async def now_ms(redis: Redis) -> int:
    seconds, _ = await redis.time()
    return int(seconds) * 1000


async def all_restored(redis: Redis) -> list[str]:
    return [job async for job in restored(Partition.only(redis), lease=30)]


async def test_a_job_without_a_place_runs_all_the_same(redis: Redis, hand: Hand) -> None:
    jobs = await enqueued(redis, *map(delivery, bodies(300)))  # more than one look
    taken = [job.decode() for job, _ in await redis.zpopmin(keys.QUEUE, 250)]
    assert sorted(await all_restored(redis)) == sorted(taken)
    assert (await counters(redis))["restored"] == 250
    done = 0
    while claims := await hand.claim(40):
        await hand.finish(claims)
        done += len(claims)
    assert done == len(jobs)
    assert await account(redis) == NOTHING


async def test_the_next_look_goes_on_where_the_last_one_was_cut_short(redis: Redis) -> None:
    jobs = set(await enqueued(redis, *map(delivery, bodies(1000))))
    await redis.delete(keys.QUEUE)
    cut_short = restored(Partition.only(redis), lease=30)
    await anext(cut_short)
    await cut_short.aclose()
    first = {job.decode() for job in await redis.zrange(keys.QUEUE, 0, -1)}
    await redis.delete(keys.QUEUE)
    rest = set(await all_restored(redis))
    assert first - rest  # so it hasn't begun anew
    assert first | rest == jobs
    await redis.delete(keys.QUEUE)
    assert set(await all_restored(redis)) == jobs  # and now it has
    assert not await redis.exists(keys.LOOKED_UNTIL)


async def test_a_look_that_is_cut_short_tells_of_what_it_has_restored(redis: Redis) -> None:
    jobs = await enqueued(redis, *map(delivery, bodies(1000)))
    await redis.delete(keys.QUEUE)
    lines = Lines()
    looking = asyncio.create_task(restore(Partition.only(redis), lease=30, log=lines.log))
    async with asyncio.timeout(20):
        while await redis.zcard(keys.QUEUE) < 400:  # so that one answer at least has been read
            await asyncio.sleep(0.001)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    (line,) = lines.of("places_restored")
    assert 10 < line["number"] <= await redis.zcard(keys.QUEUE)
    assert len(line["some"]) == 10
    assert set(line["some"]) <= set(jobs)


async def test_what_has_its_place_is_left_alone(redis: Redis, hand: Hand) -> None:
    await hand.cap(2)
    await enqueued(redis, *map(delivery, bodies(5)))
    held, retried = await hand.claim(5)  # and the others are parked
    await hand.retry(retried)
    await hand.mark(held)
    await enqueued(redis, delivery(b"in line", "org_b"))
    before = await account(redis)
    assert await all_restored(redis) == []
    assert await account(redis) == before


async def test_a_worker_that_lives_keeps_what_it_holds(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, delivery())
    claim = await hand.claim_only(job)
    await redis.zrem(keys.QUEUE, job)
    assert await all_restored(redis) == [job]
    assert await hand.claim() == []
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.done(claim) is Settled.DONE
    assert await account(redis) == NOTHING


async def test_a_worker_that_is_gone_gives_its_slot_back_with_the_lease(
    redis: Redis, hand: Hand
) -> None:
    await hand.cap(1)
    first, second = await enqueued(redis, *map(delivery, bodies(2)))
    await hand.claim_only(first)
    await redis.zrem(keys.QUEUE, first)
    assert await all_restored(redis) == [first]
    await hand.come_due(first)
    await hand.finish([await hand.claim_only(first)])
    await hand.finish([await hand.claim_only(second)])
    assert await account(redis) == NOTHING


async def test_what_was_parked_waits_again(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, delivery())
    await organizations.pause(Partition.only(redis), "org_a", "a test")
    assert await hand.claim() == []
    await redis.delete(keys.parked("org_a"))
    assert await all_restored(redis) == [job]
    assert await hand.claim() == []
    assert (await account(redis)).parked == {job}
    await organizations.resume(Partition.only(redis), "org_a")
    await hand.finish([await hand.claim_only(job)])
    assert await account(redis) == NOTHING


async def test_a_place_in_a_far_future_is_none(redis: Redis, hand: Hand) -> None:
    first, second = await enqueued(redis, *map(delivery, bodies(2)))
    now = await now_ms(redis)
    claim = await hand.claim_only(first, 1)
    await hand.retry(claim)
    await redis.zadd(keys.QUEUE, {first: now + YEAR + 3_600_000, second: now + 3_600_000})
    assert sorted(await all_restored(redis)) == sorted([first, second])
    assert {each.job for each in await hand.claim()} == {first, second}


async def test_a_retry_that_is_due_in_months_stays_so(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, delivery())
    await hand.retry(await hand.claim_only(job))
    await redis.zadd(keys.QUEUE, {job: await now_ms(redis) + 365 * 86_400_000})
    assert await all_restored(redis) == []


async def test_what_has_lost_its_payload_as_well_is_found(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, delivery())
    await redis.delete(keys.QUEUE, keys.payload(job))
    assert await all_restored(redis) == [job]
    claim = await hand.claim_only(job)
    assert await hand.dead(claim, "payload_lost") is Settled.DEAD
    assert await account(redis) == NOTHING


async def test_a_worker_looks_by_itself_as_an_arq_cron_job(redis: Redis) -> None:
    handlers = Handlers()
    handlers.ignore("*")
    place = Workplace(redis, handlers)
    (job,) = await place.accept(body("evt_1"))
    await redis.delete(keys.QUEUE)

    async def is_handled() -> bool:
        return (await counters(redis)).get("handled") == 1

    await keep_up(
        place, partial(restore, Partition.only(redis), lease=30, log=place.lines.log), is_handled
    )
    (line,) = place.lines.of("places_restored")
    assert (line["number"], line["some"]) == (1, [job])
