"""Puts jobs into a real Redis, and looks at where they are."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.job import Delivery, job_id
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.queue.reach import Reach
from shared.queue.writer import Accepted, BacklogLimits, Queue, QueueWriter
from shared.redis.durability import Durability, Mode

RECEIVED_AT = 1_795_000_000_000


def reach(redis: Redis) -> Reach:
    """The single queue of a Redis, for what would ask all partitions."""
    return Reach(Partitions.only(redis))


def delivery(body: bytes = b"{}", organization: str = "org_a", **changes: Any) -> Delivery:
    """A delivery with one thing or another changed."""
    fields: dict[str, Any] = {
        "endpoint": "acme",
        "organization": organization,
        "received_at": RECEIVED_AT,
        "headers": {},
        "body": body,
    }
    return Delivery(**{**fields, **changes})


async def enqueue(redis: Redis, *deliveries: Delivery, **limits: int) -> list[Any]:
    """Enqueue without waiting for the disk; the answers."""
    queue = Queue(Partition.only(redis), Durability(Mode.MEMORY), BacklogLimits(**limits))
    return await queue.enqueue(deliveries)


async def enqueued(redis: Redis, *deliveries: Delivery) -> list[str]:
    """Enqueue new deliveries; their jobs."""
    answers = await enqueue(redis, *deliveries)
    assert answers == [Accepted.NEW] * len(deliveries)
    return [job_id(each.organization, each.body) for each in deliveries]


async def processor_time(redis: Redis) -> float:
    """Seconds of a processor that a Redis has used: whoever else uses this machine adds nothing."""
    its = await redis.info("cpu")
    return float(its["used_cpu_user"]) + float(its["used_cpu_sys"])


@dataclass(frozen=True)
class Account:
    """Everything that Redis holds about jobs, as a test compares it.

    Of turns: in each one, by its name, who is in it, behind a ``*`` who has it; of whom anything is
    known there; how many of an organization wait in one.
    """

    payloads: set[str]
    queued: set[str]
    leased_or_deferred: set[str]
    claims: set[str]
    accepted: set[str]
    waiting: dict[str, int]
    running: dict[str, int]
    parked: set[str] = field(default_factory=set)
    turns: dict[str, list[str]] = field(default_factory=dict)
    in_turns: set[str] = field(default_factory=set)
    in_turn: dict[str, int] = field(default_factory=dict)
    undecided: dict[str, list[str]] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)
    superseded: dict[str, list[str]] = field(default_factory=dict)


async def account(redis: Redis) -> Account:
    """Read it, but for the jobs that workers make for themselves by the clock: at any time."""
    accepted = await redis.zrange(keys.ACCEPTED, 0, -1)
    nobodys = _NOBODYS if any(name.startswith(_BY_THE_CLOCK) for name in accepted) else ""
    queue = dict(await redis.zrange(keys.QUEUE, 0, -1, withscores=True))
    return Account(
        payloads=_names(
            name.removeprefix(keys.JOB.encode()) for name in await redis.keys("arq:job:*")
        ),
        queued=_names(job for job, score in queue.items() if score < keys.DEFERRED_FROM),
        leased_or_deferred=_names(j for j, score in queue.items() if score >= keys.DEFERRED_FROM),
        claims=_names(await redis.hkeys(keys.CLAIMS)),
        accepted=_names(accepted),
        waiting=await _tally(redis, keys.WAITING, but=nobodys),
        running=await _tally(redis, keys.RUNNING, but=nobodys),
        parked=await _parked(redis),
        turns={
            name: [f"*{job}" if order == 0 else job for job, order in members]
            for name, members in (await _sorted_sets(redis, keys.TURN)).items()
        },
        in_turns=_names(await redis.hkeys(keys.TURNS)),
        in_turn=await _tally(redis, keys.IN_TURN),
        undecided={
            name: [job for job, _ in members]
            for name, members in (await _sorted_sets(redis, keys.UNDECIDED)).items()
        },
        latest={
            kind.decode(): job.decode() for kind, job in (await redis.hgetall(keys.LATEST)).items()
        },
        superseded={
            name.decode().removeprefix(keys.SUPERSEDED): [
                each.decode() for each in await redis.lrange(name, 0, -1)
            ]
            for name in await redis.keys(f"{keys.SUPERSEDED}*")
        },
    )


_NOBODYS = "?"
"""The flow of jobs that none of ours made, and of those by the clock."""
_BY_THE_CLOCK = b"cron:"

NOTHING = Account(set(), set(), set(), set(), set(), {}, {})


async def nothing_is_left(redis: Redis) -> bool:
    """Whether all is done, a worker's own jobs too, which run by the clock."""
    return await account(redis) == NOTHING


async def counters(redis: Redis) -> dict[str, int]:
    """What the scripts have counted."""
    return await _tally(redis, keys.COUNTERS)


async def mark_of(redis: Redis, event_id: str, organization: str = "org_a") -> str | None:
    """The dedupe mark of an event."""
    raw = await redis.get(keys.event(organization, event_id))
    return full_mark(raw.partition(b"\n\x93")[0].decode()) if raw else None


def full_mark(text: str) -> str:
    """A mark with its job as the queue has it; in a partition, a mark names it without the tag."""
    state, colon, job = text.partition(":")
    return f"{state}:{keys.UNTAGGED.from_mark(job)}" if colon else text


async def record_of(redis: Redis, job: str) -> dict[str, str]:
    """The dead letter of a job; empty without one."""
    raw = await redis.hgetall(keys.dead_letter(job))
    return {name.decode(): value.decode(errors="replace") for name, value in raw.items()}


def _names(raw: Any) -> set[str]:
    return {name.decode() for name in raw if not name.startswith(_BY_THE_CLOCK)}


async def _parked(redis: Redis) -> set[str]:
    places = [
        job
        for name in await redis.keys(f"{keys.PARKED}*")
        for job in await redis.zrange(name, 0, -1)
    ]
    assert len(places) == len(set(places))
    return _names(places)


async def _sorted_sets(redis: Redis, prefix: str) -> dict[str, list[tuple[str, float]]]:
    return {
        name.decode().removeprefix(prefix): [
            (job.decode(), score) for job, score in await redis.zrange(name, 0, -1, withscores=True)
        ]
        for name in await redis.keys(f"{prefix}*")
    }


async def _tally(redis: Redis, name: str, but: str = "") -> dict[str, int]:
    raw = {key.decode(): int(value) for key, value in (await redis.hgetall(name)).items()}
    return {key: number for key, number in raw.items() if key != but}


def bodies(count: int) -> Sequence[bytes]:
    """Different bodies."""
    return [b'{"number":%d}' % number for number in range(count)]


def organization_of(job: str) -> str:
    """Whose a job is, in whichever partition."""
    # A mark's history, which may be behind it, is of any bytes.
    return jobs.organization_of(job, job[: job.partition(":")[0].find("}") + 1])


@asynccontextmanager
async def open_queue(partition: Partition, durability: Durability) -> AsyncIterator[QueueWriter]:
    """A writer that sends what it holds before it closes."""
    writer = QueueWriter(Queue(partition, durability))
    try:
        yield writer
    finally:
        await writer.drain()
