"""Facts about a captured delivery: whoever has it can send it again, signed as it is."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.job import job_id
from tests.integration.jobs import NOTHING, account, mark_of, record_of
from tests.integration.workplace import LIMITS, Workplace, body, now
from worker import Event, Handlers, Organization
from worker.pipeline.transitions import Settled

CREATED = now() - timedelta(seconds=LIMITS.max_event_age - 3600)
"""Soon too old to be received; its mark is kept for longer than that."""


@pytest.fixture
def place(redis: Redis) -> Workplace:
    handlers = Handlers()

    @handlers.on("order.updated")
    async def counts(event: Event[Any], organization: Organization) -> None:
        await organization.state.increment(f"applied/{event.id}")

    return Workplace(redis, handlers)


def received_after(age: timedelta) -> int:
    """When it is received at that age, epoch milliseconds."""
    return round((CREATED + age).timestamp() * 1000)


async def applied(redis: Redis) -> bytes | None:
    value: bytes | None = await redis.get(keys.state("org_a", "applied/evt_1"))
    return value


async def test_it_is_a_duplicate_as_long_as_there_is_a_mark_and_stale_afterwards(
    redis: Redis, place: Workplace
) -> None:
    captured = body("evt_1", created_at=CREATED)
    day = timedelta(days=1)
    assert await place.handle(captured, received_at=received_after(day)) is Settled.DONE
    retention = await redis.pttl(keys.event("org_a", "evt_1"))
    assert 0 < retention <= LIMITS.dedupe_retention * 1000
    for again in (2 * day, 5 * day, 6.9 * day):
        assert await place.handle(captured, received_at=received_after(again)) is Settled.DUPLICATE

    # A week goes by: Redis is told so by the mark's expiry, the worker by the time of receipt.
    await redis.pexpire(keys.event("org_a", "evt_1"), 1)
    while await mark_of(redis, "evt_1"):
        await asyncio.sleep(0.001)
    later = timedelta(milliseconds=retention) + day
    assert await place.handle(captured, received_at=received_after(later)) is Settled.DEAD
    record = await record_of(redis, job_id("org_a", captured))
    assert record["reason"] == "stale"
    assert await applied(redis) == b"1"
    assert await account(redis) == NOTHING


async def test_no_age_at_which_it_is_received_lies_between_the_two(
    redis: Redis, place: Workplace
) -> None:
    """The mark of an event that was handled at once is there until it is too old, and longer."""
    assert LIMITS.max_event_age < LIMITS.dedupe_retention - LIMITS.clock_skew
    captured = body("evt_1", created_at=CREATED)
    oldest = timedelta(seconds=LIMITS.max_event_age)
    for age, end in (
        (timedelta(0), Settled.DONE),
        (oldest, Settled.DUPLICATE),
        (oldest + timedelta(milliseconds=1), Settled.DUPLICATE),
    ):
        assert await place.handle(captured, received_at=received_after(age)) is end
    await redis.delete(keys.event("org_a", "evt_1"))
    just_after = oldest + timedelta(milliseconds=2)
    assert await place.handle(captured, received_at=received_after(just_after)) is Settled.DEAD
    assert await applied(redis) == b"1"
