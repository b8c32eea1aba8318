"""Reads the dead letters."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from operator import attrgetter, itemgetter
from typing import Any, Final, Self, TypeAlias, TypeVar

import msgspec

from shared.queue import job as jobs
from shared.queue.job import is_job_of
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.queue.reach import Reach
from shared.settings.durations import parse_duration
from worker.operate.dead_lists import Filter, Source, by_organization, listed, owner_of
from worker.operate.merged import in_one_order
from worker.operate.past import Past

_PAGE = 200
Item = TypeVar("Item")

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
        group: that it is in, within its organization; empty where nobody has listed it yet.
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
    group: str = ""

    @property
    def group_id(self) -> str:
        """Names its group anywhere; empty where it is in none."""
        return self.group and f"{self.organization}:{self.group}"

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
class Selection:
    """Which dead letters somebody acts on.

    Attributes:
        jobs: these; empty where the filter says it.
        filter: those that match.
    """

    jobs: tuple[str, ...] = ()
    filter: Filter = field(default_factory=Filter)

    async def among(self, reach: Reach) -> list[Partition]:
        """Where any of them may be."""
        if not self.jobs:
            return [*await reach.having(owner_of(self.filter))]
        partitions = reach.partitions
        numbers = {each.number for job in self.jobs for each in _where(partitions, job)}
        return [partitions.all[number] for number in sorted(numbers)]

    async def by_names_of_now(self, reach: Reach) -> Self:
        """The same, with the ids that jobs have now: who has one from before a move may name it."""
        named = [await reach.name_now(job) for job in self.jobs]
        return replace(self, jobs=tuple(dict.fromkeys(named)))

    async def letters(self, reach: Reach) -> AsyncGenerator[DeadLetter, None]:
        """Those that are there still."""
        if not self.jobs:
            # Whoever acts on one page needn't wait for the next: Redis may be far away.
            async with aclosing(_one_ahead(_read_pages(reach, self.filter))) as pages:
                async for page in pages:
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


async def those_of_now(reach: Reach, wanted: Filter) -> Filter:
    """Those of them that are there by now: what dies while somebody reads isn't meant."""
    # By the clock that is behind the others.
    return wanted.until(min(moment for _, moment in await reach.gather(now)) + 1)


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
    fields = [*TEXTS, *_NUMBERS, "by_hand", "group", *large]
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
    among = await reach.having(owner_of(wanted))
    found = await reach.gather(lambda partition: by_organization(partition, wanted), among)
    for name, places in _by_name(found):
        async for page in _pages_of(reach, name, places, wanted, newest_first=newest_first):
            yield page


_Places: TypeAlias = Sequence[tuple[Partition, Sequence[Source]]]
"""Partitions, each with where those are in it that are meant."""


async def _pages_of(
    reach: Reach, name: str, places: _Places, wanted: Filter, *, newest_first: bool
) -> AsyncIterator[list[DeadLetter]]:
    """Those of an organization, wherever it moves meanwhile."""
    last, known = 0, set[str]()
    while places:
        pages = [
            _pages_in(reach, partition, sources, wanted, newest_first=newest_first)
            for partition, sources in places
        ]
        # More than one only of the jobs that belong to no organization.
        async for page in _in_one_order(pages, attrgetter("died_at"), newest_first=newest_first):
            names = [reach.partitions.all[each.partition].names.in_mark(each.job) for each in page]
            fresh = [each for each, its in zip(page, names, strict=True) if its not in known]
            if page and name != "?":
                known = known if page[-1].died_at == last else set()
                last = page[-1].died_at
                known |= {n for n, each in zip(names, page, strict=True) if each.died_at == last}
            yield fresh
        # Where it lives now it goes on with the millisecond in which this has ended.
        wanted = wanted.from_on(last, newest_first=newest_first) if known else wanted
        places = await _moved_to(reach, name, places[0][0], wanted)


async def _moved_to(reach: Reach, name: str, here: Partition, wanted: Filter) -> _Places:
    """Where the rest of an organization's is that has moved; nothing where it hasn't."""
    if name == "?" or (there := await reach.followed(name, here)) is here or there not in reach:
        return []
    found: Mapping[str, Sequence[Source]] = {}
    with reach.noting(there):
        found = await by_organization(there, replace(wanted, organization=name))
    return [(there, found[name])] if name in found else []


def _by_name(
    found: Iterable[tuple[Partition, Mapping[str, list[Source]]]],
) -> list[tuple[str, list[tuple[Partition, list[Source]]]]]:
    """The organizations in order, each with the partitions that have something of it."""
    named: dict[str, list[tuple[Partition, list[Source]]]] = {}
    for partition, organizations in found:
        for name, sources in organizations.items():
            named.setdefault(name, []).append((partition, sources))
    return sorted(named.items(), key=itemgetter(0))


async def _pages_in(
    reach: Reach,
    partition: Partition,
    sources: Sequence[Source],
    wanted: Filter,
    *,
    newest_first: bool,
) -> AsyncIterator[list[DeadLetter]]:
    """Those of an organization in one partition, as long as it answers."""
    if partition not in reach:
        return
    with reach.noting(partition):
        lists = [listed(partition, each.name, newest_first=newest_first) for each in sources]
        async for places in _in_one_order(lists, itemgetter(1), newest_first=newest_first):
            if partition not in reach:  # who acted on what was read before has found it so
                return
            jobs = [job for job, _ in places]
            yield [letter for letter in await read(partition, jobs) if wanted.matches(letter)]


async def _in_one_order(
    lists: Sequence[AsyncIterator[list[Item]]],
    died_at: Callable[[Item], Any],
    *,
    newest_first: bool,
) -> AsyncIterator[list[Item]]:
    """What several lists have, as pages of one."""
    if len(lists) == 1:
        async for page in lists[0]:
            yield page
        return
    page = []
    async for each in in_one_order(
        [_flat(each) for each in lists], key=died_at, newest_first=newest_first
    ):
        page.append(each)
        if len(page) == _PAGE:
            yield page
            page = []
    yield page


async def _flat(pages: AsyncIterator[list[Item]]) -> AsyncIterator[Item]:
    async for page in pages:
        for each in page:
            yield each


async def _one_ahead(
    pages: AsyncIterator[list[DeadLetter]],
) -> AsyncGenerator[list[DeadLetter], None]:
    """The same, each read while somebody has the one before."""
    coming = asyncio.ensure_future(anext(pages, None))
    try:
        while (page := await coming) is not None:
            coming = asyncio.ensure_future(anext(pages, None))
            yield page
    finally:
        coming.cancel()


def _parse(job: str, raw: Mapping[str, bytes], partition: int) -> DeadLetter:
    fields: dict[str, Any] = {
        **{n: raw.get(n, b"").decode(errors="replace") for n in (*TEXTS, "traceback", "group")},
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
