"""Facts about events that this worker can't handle, and another version of it may."""

import asyncio
from dataclasses import replace

from redis.asyncio import Redis

from shared.queue import keys
from tests.integration.jobs import NOTHING, account, mark_of, record_of
from tests.integration.workplace import POLICY, Workplace, body
from worker import Event, Handlers, Organization
from worker.pipeline.transitions import Profile, Settled


def without_handler(redis: Redis, patience: float) -> Workplace:
    return Workplace(redis, Handlers(), replace(POLICY, no_handler_patience=patience))


async def come_due(redis: Redis, job: str) -> None:
    """Have a deferred job be due now."""
    await redis.zadd(keys.QUEUE, {job: keys.DEFERRED_FROM})


async def test_an_event_without_a_handler_waits_and_spends_nothing(redis: Redis) -> None:
    place = without_handler(redis, 600)
    (job,) = await place.accept(body("evt_1"))
    for _ in range(5):
        assert await place.handle_next() is Settled.WAITING
        waiting = await account(redis)
        assert waiting.leased_or_deferred == {job}
        assert waiting.running == {}
        await come_due(redis, job)
    ((claim, _),) = await place.claim()
    assert (claim.attempts, claim.claims, claim.alone) == (0, 0, False)
    assert len(place.lines.of("event_waiting")) == 5


async def test_it_is_buried_once_the_patience_is_over_that_began_with_the_first_look(
    redis: Redis,
) -> None:
    place = without_handler(redis, 600)
    (job,) = await place.accept(body("evt_1"))
    assert await place.handle_next() is Settled.WAITING
    first = int(await redis.hget(keys.UNHANDLED, job) or 0)
    await redis.hset(keys.UNHANDLED, job, str(first - 601_000))
    await come_due(redis, job)
    assert await place.handle_next() is Settled.DEAD
    record = await record_of(redis, job)
    assert (record["reason"], record["attempts"]) == ("no_handler", "0")
    assert await account(redis) == NOTHING
    assert not await redis.exists(keys.UNHANDLED)


async def test_the_longer_it_waits_the_less_often_it_is_tried_but_not_past_its_patience(
    redis: Redis,
) -> None:
    place = without_handler(redis, 600)
    (job,) = await place.accept(body("evt_1"))
    delays = []
    for waited in (0, 10, 300, 595):
        seconds, microseconds = await redis.time()
        now = seconds * 1000 + microseconds // 1000
        if waited:
            await redis.hset(keys.UNHANDLED, job, str(now - waited * 1000))
            await come_due(redis, job)
        assert await place.handle_next() is Settled.WAITING
        due = await redis.zscore(keys.QUEUE, job)
        assert due is not None
        delays.append(round((due - now) / 1000))
    assert delays == [1, 5, 30, 5]


async def test_a_worker_that_has_a_handler_handles_it(redis: Redis) -> None:
    place = without_handler(redis, 600)
    (job,) = await place.accept(body("evt_1"))
    assert await place.handle_next() is Settled.WAITING
    handlers = Handlers()

    @handlers.on("*")
    async def handle(_event: Event[object], organization: Organization) -> None:
        await organization.state.increment("handled")

    await come_due(redis, job)
    assert await Workplace(redis, handlers).handle_next() is Settled.DONE
    assert await mark_of(redis, "evt_1") == f"done:{job}"
    assert not await redis.exists(keys.UNHANDLED)


async def test_in_order_nobody_waits_for_it(redis: Redis) -> None:
    handlers = Handlers()
    seen = []

    @handlers.on("order.updated")
    async def handle(event: Event[object], _: Organization) -> None:
        seen.append(event.id)

    place = Workplace(redis, handlers, replace(POLICY, no_handler_patience=600))
    await place.transitions.publish([Profile("org_a", 1, 1.0)])
    (unknown,) = await place.accept(body("evt_1", type="order.created"))
    await place.accept(body("evt_2"))
    assert await place.handle_next() is Settled.WAITING
    assert await place.handle_next() is Settled.DONE
    assert seen == ["evt_2"]
    assert (await account(redis)).leased_or_deferred == {unknown}


async def test_a_zombie_can_not_make_it_wait(redis: Redis) -> None:
    place = without_handler(redis, 600)
    (job,) = await place.accept(body("evt_1"))
    ((late, payload),) = await place.claim()
    await come_due(redis, job)
    await asyncio.sleep(0)
    ((_, _),) = await place.claim()
    assert await place.run(late, payload) is Settled.LOST
    assert not await redis.exists(keys.UNHANDLED)
