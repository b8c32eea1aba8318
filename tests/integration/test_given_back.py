"""What a worker gives back of an event: its turn stays, a start that was used is none."""

import asyncio
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from shared.endpoints.endpoint import Rate
from shared.observe import metrics
from shared.queue import job as jobs
from shared.queue import keys
from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization, Retry
from worker.pipeline.memory import MemoryBudget
from worker.pipeline.transitions import Profile, Settled
from worker.pipeline.work import Work

LARGE = {"order_id": "1", "note": "x" * 100_000}


async def test_a_handler_that_a_deploy_cuts_off_has_used_its_start(redis: Redis) -> None:
    handlers, has_begun = Handlers(), asyncio.Event()

    @handlers.on("order.updated")
    async def lasts(_event: Event[Any], _organization: Organization) -> None:
        has_begun.set()
        await asyncio.Event().wait()

    place = Workplace(redis, handlers)
    await place.transitions.publish([Profile("org_a", rate=Rate.parse("1/h"))])
    await place.accept(body())
    ((claim, payload),) = await place.claim()
    used = await redis.hget(keys.RATES, "next:org_a")
    end: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    work = Work(claim, jobs.decode(payload), end.set_result)
    place.pipeline.start(work)
    await asyncio.wait_for(has_begun.wait(), 10)
    work.cancel()
    assert await asyncio.wait_for(end, 10) is Settled.RELEASED
    assert await redis.hget(keys.RATES, "next:org_a") == used


async def test_a_conflict_at_a_rate_is_counted_like_any_other(redis: Redis) -> None:
    handlers = Handlers()

    @handlers.on("order.updated")
    async def is_too_late(_event: Event[Any], organization: Organization) -> None:
        await organization.state.get("n")
        await redis.set(keys.state("org_a", "n"), b"1")

    place = Workplace(redis, handlers)
    await place.transitions.publish([Profile("org_a", rate=Rate.parse("1/h"))])
    before = metrics.STATE_CONFLICTS.labels().total
    assert await place.handle(body()) is Settled.LATER
    assert metrics.STATE_CONFLICTS.labels().total == before + 1


async def test_who_is_cancelled_while_its_key_waits_for_memory_keeps_its_turn(
    redis: Redis,
) -> None:
    handlers = Handlers()

    @handlers.on("order.updated", key=lambda event: str(event.data["order_id"]))
    async def retries(_event: Event[Any], _organization: Organization) -> None:
        raise Retry(after=0)

    place = Workplace(redis, handlers)
    place.pipeline = replace(place.pipeline, memory=MemoryBudget(1 << 20, slots=1))
    signed = body(data=LARGE)
    assert await place.handle(signed) is Settled.RETRIED
    (had,) = await redis.zrange(f"{keys.TURN}org_a:key:1", 0, -1, withscores=True)

    ((claim, payload),) = await place.claim()
    place.pipeline.memory.share("org_b", 1 << 20).take(lambda _: None)
    end: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    work = Work(claim, jobs.decode(payload), end.set_result)
    place.pipeline.start(work)
    assert work.share is not None
    assert work.share.waits
    work.cancel()
    assert await asyncio.wait_for(end, 10) is Settled.RELEASED
    assert await redis.zrange(f"{keys.TURN}org_a:key:1", 0, -1, withscores=True) == [had]
