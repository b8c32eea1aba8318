"""Reads the dead letters."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.asyncio import Redis

from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.job import is_job_of

_PAGE = 200

REASONS = (
    "malformed",
    "organization_mismatch",
    "unavailable_event",
    "stale",
    "unprovable",
    "no_handler",
    "rejected",
    "exhausted",
    "blocked",
    "crashed",
    "undecodable",
    "payload_lost",
    "payload_changed",
)
"""Why an event can be buried; ``worker/README.md`` says what each means."""


class DeadLetter(msgspec.Struct, frozen=True):
    """The record of a buried event; it stands by itself.

    Attributes:
        job: its id, under which it can be shown.
        organization: whose it is.
        endpoint: where it came in; empty where that can't be told.
        event_id: Sellfern's id; empty where the body gave none.
        type: of the event; empty where the body gave none.
        reason: why it was buried, one of the names under "Dead letters" in ``worker/README.md``.
        error: the last error, for people.
        attempts: that handlers made.
        received_at: epoch milliseconds; 0 where that can't be told.
        died_at: epoch milliseconds.
        payload: arq's payload record as it was.
        held: redeliveries since then that were too many to revive it.
        held_at: the last of them, epoch milliseconds; 0 without one.
        by_hand: whether it is replayed by hand, and waits to be judged anew.
    """

    job: str
    organization: str
    endpoint: str
    event_id: str
    type: str
    reason: str
    error: str
    attempts: int
    received_at: int
    died_at: int
    payload: bytes
    held: int = 0
    held_at: int = 0
    by_hand: bool = False

    @property
    def body(self) -> bytes:
        """The signed bytes, or the whole payload where it is no record of ours."""
        try:
            return jobs.decode(self.payload).body
        except jobs.PayloadError:
            return self.payload

    @property
    def is_usable(self) -> bool:
        """Whether its payload may be what was accepted: not lost, nor known to be other bytes."""
        if self.reason == "payload_changed":
            return is_job_of(self.job, self.organization, self.body)
        return self.payload != b""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant; what is ``None`` doesn't matter.

    Attributes:
        organization: whose.
        reason: why they were buried.
        type: of the event.
        died_before: epoch milliseconds.
        died_after: epoch milliseconds.
    """

    organization: str | None = None
    reason: str | None = None
    type: str | None = None
    died_before: int | None = None
    died_after: int | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Whether this one is meant."""
        return (
            self.organization in {None, letter.organization}
            and self.reason in {None, letter.reason}
            and self.type in {None, letter.type}
            and (self.died_before is None or letter.died_at < self.died_before)
            and (self.died_after is None or letter.died_at >= self.died_after)
        )


async def count(redis: Redis) -> dict[str, int]:
    """How many dead letters each organization has."""
    raw: Mapping[bytes, bytes] = await redis.execute_command("HGETALL", keys.BURIED)
    return {organization.decode(): int(number) for organization, number in sorted(raw.items())}


async def find(redis: Redis, job: str) -> DeadLetter | None:
    """One dead letter by its job's id."""
    found = await _read(redis, [job])
    return found[0] if found else None


async def read_without_payload(redis: Redis, jobs: Sequence[str]) -> list[DeadLetter]:
    """The records of these jobs that are there, each with an empty payload: bodies may be large."""
    fields = [name for name in DeadLetter.__struct_fields__ if name not in {"job", "payload"}]
    async with redis.pipeline(transaction=False) as pipe:
        for job in jobs:
            name = keys.dead_letter(job).encode(errors="surrogateescape")
            pipe.execute_command("HMGET", name, *fields)
        records = await pipe.execute()
    names = [field.encode() for field in fields]
    return [
        _parse(job, {name: value for name, value in zip(names, raw, strict=True) if value})
        for job, raw in zip(jobs, records, strict=True)
        if any(value is not None for value in raw)
    ]


async def select(
    redis: Redis, wanted: Filter, *, newest_first: bool = False
) -> AsyncIterator[DeadLetter]:
    """The dead letters that are meant, an organization at a time, by the time of their death.

    Those that come or go meanwhile don't make it skip or repeat another.
    """
    organizations = [wanted.organization] if wanted.organization else await count(redis)
    for organization in organizations:
        async for names in _pages(redis, organization, newest_first=newest_first):
            for letter in await _read(redis, names):
                if wanted.matches(letter):
                    yield letter


async def chosen(redis: Redis, jobs: Sequence[str], wanted: Filter) -> AsyncIterator[DeadLetter]:
    """Of these jobs the dead letters that are there; where none is named, those that are meant."""
    if not jobs:
        async for letter in select(redis, wanted):
            yield letter
    for job in jobs:
        named = await find(redis, job)
        if named is not None:
            yield named


async def _pages(
    redis: Redis, organization: str, *, newest_first: bool
) -> AsyncIterator[list[str]]:
    """Names of jobs; each page begins at the time at which the last one ended."""
    start: float | bytes = b"+inf" if newest_first else b"-inf"
    end = b"-inf" if newest_first else b"+inf"
    seen: set[bytes] = set()
    size = _PAGE
    while True:
        command = ["ZRANGE", keys.dead(organization), start, end, "BYSCORE"]
        command += ["REV"] if newest_first else []
        found = await redis.execute_command(*command, "LIMIT", 0, size, "WITHSCORES")
        fresh = [(name, score) for name, score in _pairs(found) if name not in seen]
        if not fresh:
            if len(found) // 2 < size:
                return
            size *= 2  # more than a page of them died in the same millisecond
            continue
        start = fresh[-1][1]
        # The next page begins with that millisecond again, in which others may have died, too.
        seen = {name for name, score in _pairs(found) if score == start}
        yield [name.decode(errors="surrogateescape") for name, _ in fresh]


def _pairs(found: list[Any]) -> list[tuple[bytes, bytes]]:
    return list(zip(found[::2], found[1::2], strict=True))


async def _read(redis: Redis, names: list[str]) -> list[DeadLetter]:
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.execute_command("HGETALL", keys.dead_letter(name).encode(errors="surrogateescape"))
        records = await pipe.execute()
    return [_parse(name, raw) for name, raw in zip(names, records, strict=True) if raw]


def _parse(job: str, raw: Mapping[bytes, bytes]) -> DeadLetter:
    def text(field: bytes) -> str:
        return raw.get(field, b"").decode(errors="replace")

    def whole(field: bytes) -> int:
        return int(float(raw.get(field, b"0")))

    fields: dict[str, Any] = {
        name: text(name.encode())
        for name in ("organization", "endpoint", "event_id", "type", "reason", "error")
    }
    return DeadLetter(
        job=job,
        **fields,
        attempts=whole(b"attempts"),
        received_at=whole(b"received_at"),
        died_at=whole(b"died_at"),
        payload=raw.get(b"payload", b""),
        held=whole(b"held"),
        held_at=whole(b"held_at"),
        by_hand=b"by_hand" in raw,
    )
