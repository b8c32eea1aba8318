"""Facts about accepted events whose payload somebody has deleted or changed in Redis."""

import asyncio
from typing import Any, cast

import arq
import pytest
from redis.asyncio import Redis

from shared.errors import Unavailable
from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.job import Delivery, job_id
from shared.queue.partition import Partition
from shared.queue.writer import Accepted
from tests.integration.by_hand import Hand
from tests.integration.jobs import (
    NOTHING,
    account,
    counters,
    delivery,
    enqueue,
    mark_of,
    record_of,
)
from tests.integration.workplace import Workplace, body, now
from worker import Event, Handlers, Organization
from worker.operate import revival
from worker.pipeline.transitions import Mark, Settled


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


async def run_once(place: Workplace) -> Settled:
    """Handle what is in line, whatever its payload is."""
    ((claim, payload),) = await place.claim()
    if payload:
        return await place.run(claim, payload)
    return await place.pipeline.run(claim, None, has_payload=False)


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
    assert await revival.replay_one(Partition.only(redis), job) == "absent"
    assert not await redis.exists(keys.payload(job))  # it would keep a redelivery's out
    assert (await record_of(redis, job))["reason"] == "payload_lost"
    assert await account(redis) == NOTHING


@pytest.mark.parametrize(
    ("left", "reason"), [(None, "payload_lost"), (b"rubbish", "undecodable")], ids=str
)
async def test_a_redelivery_of_what_was_lost_is_never_held(
    redis: Redis, place: Workplace, seen: Seen, left: bytes | None, reason: str
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
    if left is None:
        await redis.delete(keys.payload(job))
    else:
        await redis.set(keys.payload(job), left)
    await run_dry(place)
    assert (await record_of(redis, job))["reason"] == reason
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


# Bytes that whoever has the ingress's password has put under a name, which it may do once


def forged() -> bytes:
    """A payload with other bytes than evt_1's."""
    received_at = round(now().timestamp() * 1000)
    return jobs.encode(Delivery("acme", "org_a", received_at, {}, body("evt_forged")))


async def buried(place: Workplace, signed: bytes) -> str:
    """The job of an event that is dead."""
    hand = Hand(place.redis)
    (job,) = await place.accept(signed)
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    assert await hand.dead(claim, "exhausted") is Settled.DEAD
    return job


async def test_a_delivery_whose_name_is_taken_is_refused_until_a_worker_has_judged_what_is_there(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    mine = delivery(body("evt_1"), received_at=round(now().timestamp() * 1000))
    job = job_id("org_a", mine.body)
    await redis.set(keys.payload(job), forged())
    for _ in range(2):  # at once, and while it is in line
        for answer in await enqueue(redis, mine, mine):
            assert isinstance(answer, Unavailable)
            assert answer.code == "name_taken"
        await Hand(redis).promote()
    assert await redis.zscore(keys.ACCEPTED, job) is None
    assert await place.handle_next() is Settled.DEAD
    assert (await record_of(redis, job))["reason"] == "payload_changed"
    assert await enqueue(redis, mine) == [Accepted.NEW]
    assert await place.handle_next() is Settled.DONE
    assert seen.ids == ["evt_1"]
    assert await account(redis) == NOTHING
    assert (await counters(redis))["name_taken"] == 4


async def test_the_same_bytes_under_its_name_are_handled(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    """Somebody's hand has deleted that it was accepted."""
    mine = delivery(body("evt_1"), received_at=round(now().timestamp() * 1000))
    job = job_id("org_a", mine.body)
    await redis.set(keys.payload(job), jobs.encode(mine))
    (answer,) = await enqueue(redis, mine)
    assert isinstance(answer, Unavailable)
    assert await place.handle_next() is Settled.DONE
    assert await place.handle(mine.body) is Settled.DUPLICATE
    assert seen.ids == ["evt_1"]
    assert await account(redis) == NOTHING


async def test_a_replay_overwrites_what_stands_under_its_name(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    job = await buried(place, body("evt_1"))
    await redis.set(keys.payload(job), forged())
    assert await revival.replay_one(Partition.only(redis), job) == "queued"
    assert await place.handle_next() is Settled.DONE
    assert seen.ids == ["evt_1"]
    assert await account(redis) == NOTHING


@pytest.mark.parametrize("harm", ["payload_lost", "payload_changed", "undecodable"])
async def test_the_good_bytes_of_a_dead_letter_outlive_what_was_put_in_line_under_its_name(
    redis: Redis, place: Workplace, seen: Seen, harm: str
) -> None:
    signed = body("evt_1")
    job = await buried(place, signed)
    before = await record_of(redis, job)
    put = {"payload_lost": None, "payload_changed": forged(), "undecodable": b"rubbish"}[harm]
    if put is not None:
        await redis.set(keys.payload(job), put)
    await redis.zadd(keys.ACCEPTED, {job: 1})
    await redis.hset(keys.WAITING, "org_a", "1")
    await redis.zadd(keys.QUEUE, {job: 1})
    assert await run_once(place) is Settled.DEAD
    record = await record_of(redis, job)
    assert record["reason"] == harm
    for field in ("payload", "received_at", "endpoint", "type", "event_id"):
        assert record[field] == before[field]
    assert await account(redis) == NOTHING
    assert await revival.replay_one(Partition.only(redis), job) == "queued"
    assert await place.handle_next() is Settled.DONE
    assert seen.ids == ["evt_1"]


@pytest.mark.parametrize(
    "call",
    [
        {"f": "cron:tick", "a": [], "k": {}},
        {"f": "handle_event", "a": [], "k": {"ctx": 1}},
        {"f": "undecodable_job", "a": [1], "k": {}},
        {"f": "handle_event", "a": ["acme", "org_a", 1, {}, b"{}", "newer"], "k": {}},
    ],
    ids=["another function", "arguments by name", "the one that buries", "a newer record"],
)
async def test_another_call_under_a_name_of_ours_is_a_dead_letter(
    redis: Redis, place: Workplace, call: dict[str, Any]
) -> None:
    ran: list[int] = []

    async def tick(_ctx: dict[Any, Any]) -> None:
        ran.append(1)

    (job,) = await place.accept(body("evt_1"))
    await redis.set(keys.payload(job), jobs.serialize({"t": None, "et": 1, **call}))
    functions = [
        *place.options(place.context())["functions"],
        arq.func(cast("Any", tick), name="cron:tick"),
    ]
    await run_dry(place, functions=functions)
    assert (await record_of(redis, job))["reason"] in {"undecodable", "payload_changed"}
    assert ran == []
    assert await account(redis) == NOTHING
