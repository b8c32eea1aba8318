"""Facts about accepted events whose payload somebody has deleted or changed in Redis."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from shared import job as jobs
from shared import keys
from shared.job import Delivery
from tests.integration.by_hand import Hand
from tests.integration.jobs import NOTHING, account, mark_of, record_of
from tests.integration.workplace import Workplace, body, now
from worker import Event, Handlers, Organization, revival
from worker.transitions import Mark, Settled


class Seen:
    """A handler that remembers what it was given."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.handlers = Handlers()
        self.handlers.on("*")(self.see)

    async def see(self, event: Event[Any], _: Organization) -> None:
        self.ids.append(event.id)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def place(redis: Redis, seen: Seen) -> Workplace:
    return Workplace(redis, seen.handlers)


async def run_dry(place: Workplace, **options: Any) -> None:
    """Let a worker handle all that there is."""
    worker = place.worker(**options)
    worker.burst = True
    await asyncio.wait_for(worker.async_run(), 20)
    await worker.close()


async def test_a_job_whose_payload_is_gone_is_a_dead_letter_that_is_logged(
    redis: Redis, place: Workplace
) -> None:
    received_at = round(now().timestamp() * 1000) - 60_000
    (job,) = await place.accept(body("evt_1"), received_at=received_at)
    await redis.delete(keys.payload(job))
    await run_dry(place)
    record = await record_of(redis, job)
    assert (record["reason"], record["payload"]) == ("payload_lost", "")
    assert record["received_at"] == str(received_at)
    (line,) = place.lines.of("event_dead")
    assert (line["job"], line["reason"]) == (job, "payload_lost")
    assert await account(redis) == NOTHING


async def test_hooks_of_arq_hide_no_loss(redis: Redis, place: Workplace) -> None:
    async def hook(_ctx: dict[Any, Any]) -> None:
        pass

    (job,) = await place.accept(body("evt_1"))
    await redis.delete(keys.payload(job))
    await run_dry(place, on_job_start=hook)
    assert (await record_of(redis, job))["reason"] == "payload_lost"


async def test_the_event_of_a_payload_that_got_lost_between_attempts_is_known(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    hand = Hand(redis)
    (job,) = await place.accept(body("evt_1"))
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.retry(claim) is Settled.RETRIED
    await hand.come_due(job)
    await redis.delete(keys.payload(job))
    await run_dry(place)
    assert (await record_of(redis, job))["event_id"] == "evt_1"
    assert await mark_of(redis, "evt_1") == f"dead:{job}"
    assert seen.ids == []


async def test_a_redelivery_of_what_was_lost_is_handled(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    signed = body("evt_1")
    (job,) = await place.accept(signed)
    await redis.delete(keys.payload(job))
    await run_dry(place)
    assert await place.handle(signed) is Settled.DONE
    assert seen.ids == ["evt_1"]
    assert await record_of(redis, job) == {}


async def test_of_what_was_lost_there_is_nothing_to_replay(redis: Redis, place: Workplace) -> None:
    (job,) = await place.accept(body("evt_1"))
    await redis.delete(keys.payload(job))
    await run_dry(place)
    assert await revival.replay_one(redis, job) == "absent"
    assert not await redis.exists(keys.payload(job))  # it would keep a redelivery's out
    assert (await record_of(redis, job))["reason"] == "payload_lost"
    assert await account(redis) == NOTHING


async def test_a_redelivery_of_what_was_lost_is_never_held(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    """It has the only good bytes, however soon it comes after one that has revived the event."""
    signed, hand = body("evt_1"), Hand(redis)
    (job,) = await place.accept(signed)
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.dead(claim, "exhausted") is Settled.DEAD
    await place.accept(signed)
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.REVIVED
    assert await hand.retry(claim) is Settled.RETRIED
    await hand.come_due(job)
    await redis.delete(keys.payload(job))
    await run_dry(place)
    assert (await record_of(redis, job))["reason"] == "payload_lost"
    assert await place.handle(signed) is Settled.DONE
    assert seen.ids == ["evt_1"]


async def test_other_bytes_under_a_jobs_id_are_never_handled(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    (job,) = await place.accept(body("evt_1"))
    received_at = round(now().timestamp() * 1000)
    forged = jobs.encode(Delivery("acme", "org_a", received_at, {}, body("evt_2")))
    await redis.set(keys.payload(job), forged)
    assert await place.handle_next() is Settled.DEAD
    assert (await record_of(redis, job))["reason"] == "payload_changed"
    assert await redis.hget(keys.dead_letter(job), "payload") == forged
    assert seen.ids == []
    assert await mark_of(redis, "evt_2") is None
