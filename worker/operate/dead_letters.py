"""Reads the dead letters."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final, Self

import msgspec

from shared.queue import hashes
from shared.queue import job as jobs
from shared.queue.job import is_job_of
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.queue.reach import Reach
from shared.settings.durations import parse_duration
from worker.operate.merged import in_one_order, sums
from worker.operate.past import Past

_PAGE = 200
_NUMBERS: Final = ("attempts", "received_at", "died_at", "held", "held_at", "replayed_at")

_NOBODY_SAID: Final = "1"
"""In place of who has replayed it, as ``replay.lua`` has it."""

TEXTS: Final = ("organization", "endpoint", "event_id", "type", "reason", "error")
"""The fields of a record that are texts."""

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
        traceback: of what the handler raised last, without secrets; empty where it raised nothing.
        held: redeliveries since then that were too many to revive it.
        held_at: the last of them, epoch milliseconds; 0 without one.
        by_hand: whether it is replayed by hand, and waits to be judged anew.
        partition: the number of that in which it is.
        past: what its attempts came to.
        replayed_by: who has given it another life; empty where nobody said.
        replayed_at: when, epoch milliseconds; 0 where that isn't known.
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
    traceback: str = ""
    partition: int = 0
    past: Past = Past()
    replayed_by: str = ""
    replayed_at: int = 0

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
            tag = self.job[: self.job.find("}") + 1]  # its partition's, if it has one
            return is_job_of(self.job, self.organization, self.body, tag)
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

    def until(self, moment: int) -> Self:
        """Without those that die from that moment on, such as what is replayed in vain."""
        before = moment if self.died_before is None else min(moment, self.died_before)
        return replace(self, died_before=before)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters somebody acts on.

    Attributes:
        jobs: these; empty where the filter says it.
        filter: those that match.
    """

    jobs: tuple[str, ...] = ()
    filter: Filter = Filter()

    async def among(self, reach: Reach) -> list[Partition]:
        """Where any of them may be."""
        if not self.jobs:
            return [*await reach.having(self.filter.organization)]
        partitions = reach.partitions
        numbers = {each.number for job in self.jobs for each in _where(partitions, job)}
        return [partitions.all[number] for number in sorted(numbers)]

    async def by_names_of_now(self, reach: Reach) -> Self:
        """The same, with the ids that jobs have now: who has one from before a move may name it."""
        return replace(self, jobs=tuple([await reach.name_now(job) for job in self.jobs]))

    async def letters(self, reach: Reach) -> AsyncIterator[DeadLetter]:
        """Those that are there still."""
        if not self.jobs:
            # Whoever acts on one page needn't wait for the next: Redis may be far away.
            async for page in _one_ahead(_read_pages(reach, self.filter)):
                for letter in page:
                    yield letter
        for start in range(0, len(self.jobs), _PAGE):
            for named in await read_named(reach, self.jobs[start : start + _PAGE]):
                yield named


def ago(age: str) -> int:
    """The moment a duration such as ``2h`` ago, in epoch milliseconds.

    Raises:
        ValueError: it is none; the message is what was expected.
    """
    return round((time.time() - parse_duration(age)) * 1000)


async def now(partition: Partition) -> int:
    """Epoch milliseconds by Redis's clock, which says when each died; ours may be another."""
    seconds, microseconds = await partition.redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


async def count(partition: Partition) -> dict[str, int]:
    """How many dead letters each organization has."""
    raw = await hashes.whole(partition.redis, partition.names.buried)
    return {organization.decode(): int(number) for organization, number in sorted(raw.items())}


async def count_all(reach: Reach) -> dict[str, int]:
    """The same, of all partitions."""
    return sums(numbers for _, numbers in await reach.gather(count))


async def organizations(partition: Partition, wanted: Filter) -> list[str]:
    """Whose dead letters may be meant."""
    return [wanted.organization] if wanted.organization else list(await count(partition))


async def find(partition: Partition, job: str) -> DeadLetter | None:
    """One dead letter by its job's id."""
    return next(iter(await read(partition, [job])), None)


async def find_anywhere(reach: Reach, job: str) -> DeadLetter | None:
    """The same, in whichever partition it is.

    Raises: what the client does, where the one fails whose tag the job bears.
    """
    job = await reach.name_now(job)
    if (partition := reach.partitions.bearing(job)) is not None:
        return await find(partition, job)
    return next(iter(await read_named(reach, [job])), None)


async def read_named(
    reach: Reach, jobs: Sequence[str], *, with_payload: bool = True
) -> list[DeadLetter]:
    """The records of these jobs that are there, wherever they are, in this order.

    Args:
        reach: the partitions.
        jobs: their ids.
        with_payload: as for `read`.
    """
    here: dict[int, list[str]] = {}
    for job in jobs:
        for each in _where(reach.partitions, job):
            here.setdefault(each.number, []).append(job)

    async def read_here(partition: Partition) -> list[DeadLetter]:
        return await read(partition, here[partition.number], with_payload=with_payload)

    rank = {job: number for number, job in enumerate(jobs)}
    among = [each for each in reach.partitions if each.number in here]
    found = await reach.gather(read_here, among)
    return sorted((each for _, some in found for each in some), key=lambda each: rank[each.job])


def _where(partitions: Partitions, job: str) -> tuple[Partition, ...]:
    bearing = partitions.bearing(job)
    # A stock producer's job bears no tag, so it may be in any.
    return partitions.all if bearing is None else (bearing,)


async def read(
    partition: Partition, jobs: Sequence[str], *, with_payload: bool = True
) -> list[DeadLetter]:
    """The records of these jobs that are there.

    Args:
        partition: where they are.
        jobs: their ids.
        with_payload: else each has an empty one, no traceback and no past: these may be large.
    """
    large = ["payload", "traceback", "history"] if with_payload else []
    fields = [*TEXTS, *_NUMBERS, "by_hand", *large]
    async with partition.redis.pipeline(transaction=False) as pipe:
        for job in jobs:
            pipe.execute_command("HMGET", raw_name(partition.names.dead_letter(job)), *fields)
        records = await pipe.execute()
    number = partition.number
    return [
        _parse(job, {name: value for name, value in zip(fields, raw, strict=True) if value}, number)
        for job, raw in zip(jobs, records, strict=True)
        if any(raw)
    ]


async def select(
    reach: Reach, wanted: Filter, *, newest_first: bool = False
) -> AsyncIterator[DeadLetter]:
    """The dead letters that are meant, an organization at a time, by the time of their death.

    Those that come or go meanwhile don't make it skip or repeat another.
    """
    async for page in _read_pages(reach, wanted, newest_first=newest_first):
        for letter in page:
            yield letter


async def _read_pages(
    reach: Reach, wanted: Filter, *, newest_first: bool = False
) -> AsyncIterator[list[DeadLetter]]:
    """An organization is in one partition, so a page is all that is held of all of them."""
    among = await reach.having(wanted.organization)
    named = await reach.gather(lambda partition: organizations(partition, wanted), among)
    for organization, partitions in _by_name(named):
        pages = [
            _pages_in(reach, each, organization, wanted, newest_first=newest_first)
            for each in partitions
        ]
        async for page in (
            pages[0] if len(pages) == 1 else _together(pages, newest_first=newest_first)
        ):
            yield page


def _by_name(named: Iterable[tuple[Partition, list[str]]]) -> list[tuple[str, list[Partition]]]:
    """The organizations in order, each with the partitions that have something of it."""
    found: dict[str, list[Partition]] = {}
    for partition, names in named:
        for name in names:
            found.setdefault(name, []).append(partition)
    return sorted(found.items(), key=itemgetter(0))


async def _pages_in(
    reach: Reach, partition: Partition, organization: str, wanted: Filter, *, newest_first: bool
) -> AsyncIterator[list[DeadLetter]]:
    """Those of an organization in one partition, as long as it answers."""
    if partition not in reach:
        return
    with reach.noting(partition):
        async for names in _pages(partition, organization, newest_first=newest_first):
            if partition not in reach:  # who acted on what was read before has found it so
                return
            yield [letter for letter in await read(partition, names) if wanted.matches(letter)]


async def _together(
    lists: Sequence[AsyncIterator[list[DeadLetter]]], *, newest_first: bool
) -> AsyncIterator[list[DeadLetter]]:
    """Pages of what several partitions have, as of the jobs that belong to no organization."""
    letters = in_one_order(
        [_flat(each) for each in lists], key=lambda each: each.died_at, newest_first=newest_first
    )
    page: list[DeadLetter] = []
    async for letter in letters:
        page.append(letter)
        if len(page) == _PAGE:
            yield page
            page = []
    yield page


async def _flat(pages: AsyncIterator[list[DeadLetter]]) -> AsyncIterator[DeadLetter]:
    async for page in pages:
        for letter in page:
            yield letter


async def _one_ahead(pages: AsyncIterator[list[DeadLetter]]) -> AsyncIterator[list[DeadLetter]]:
    """The same, each read while somebody has the one before."""
    coming = asyncio.ensure_future(anext(pages, None))
    try:
        while (page := await coming) is not None:
            coming = asyncio.ensure_future(anext(pages, None))
            yield page
    finally:
        coming.cancel()


async def _pages(
    partition: Partition, organization: str, *, newest_first: bool
) -> AsyncIterator[list[str]]:
    """Names of jobs; each page begins at the time at which the last one ended."""
    start: float | bytes = b"+inf" if newest_first else b"-inf"
    end = b"-inf" if newest_first else b"+inf"
    seen: set[bytes] = set()
    size = _PAGE
    while True:
        command = ["ZRANGE", partition.names.dead(organization), start, end, "BYSCORE"]
        command += ["REV"] if newest_first else []
        found = await partition.redis.execute_command(*command, "LIMIT", 0, size, "WITHSCORES")
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


def _parse(job: str, raw: Mapping[str, bytes], partition: int) -> DeadLetter:
    fields: dict[str, Any] = {
        **{n: raw.get(n, b"").decode(errors="replace") for n in (*TEXTS, "traceback")},
        **{name: int(float(raw.get(name, b"0"))) for name in _NUMBERS},
    }
    who = raw.get("by_hand", b"").decode(errors="replace")
    return DeadLetter(
        job=job,
        payload=raw.get("payload", b""),
        by_hand="by_hand" in raw,
        replayed_by=who if who != _NOBODY_SAID else "",
        partition=partition,
        past=Past.read(raw.get("history")),
        **fields,
    )


def raw_name(name: str) -> bytes:
    """A name as Redis has it, where a stock producer's job id is no text, too."""
    return name.encode(errors="surrogateescape")
