"""Searches for an event: by its job, by its mark, and through the bodies of all that waits."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, NamedTuple

from shared.queue import hashes, held_bytes
from shared.queue.job import bears_digest, organization_of
from shared.queue.partition import Partition
from shared.queue.reach import Reach
from shared.sellfern import envelope
from worker.operate import lookup
from worker.operate.lookup import FoundEvent

_LARGE: Final = 16 * 1024
"""Bytes of a payload, on average: an organization that has larger ones is read more carefully."""

_PART: Final = 64 * 1024  # of a large payload, at a time: Redis copies what it answers
_PARTS_AT_ONCE: Final = 64
_OVERLAP: Final = 12 * envelope.LONGEST + 64
"""Bytes that an id takes at the most, each character of it as two escapes, with its name."""

_IDS: Final = re.compile(
    rb'"id"\s*:\s*("(?:[^"\\]|\\.){1,3072}"|-?\d{1,256}(?![\d.eE]))', re.DOTALL
)
_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]*")


class Limits(NamedTuple):
    """How much of what waits a search looks at.

    Attributes:
        seconds: after which it ends.
        events: the same, in number.
        bytes: of their payloads.
    """

    seconds: float = 5.0
    events: int = 2_000_000
    bytes: int = 2 << 30


LIMITS: Final = Limits()
"""What holds unless somebody says otherwise."""


@dataclass(slots=True)
class Search:
    """What a search came to.

    Attributes:
        limits: of the look at what waits.
        found: the events that it found.
        organizations: whose marks were asked.
        looked_at: events that wait whose bodies were looked at, and that it isn't.
        waiting: how many wait in all, as far as that was asked.
        bytes: looked at.
        seconds: that the look at what waits has taken.
        is_whole: whether there is nothing that waits and wasn't looked at.
        has_looked: whether any of that was to be looked at: not for a job, which is its own name.
        organization: the one that is meant, if one was said.
        is_everywhere: whether no partition was left out.
    """

    limits: Limits
    organization: str | None = None
    found: list[FoundEvent] = field(default_factory=list)
    organizations: int = 0
    looked_at: int = 0
    waiting: int = 0
    bytes: int = 0
    seconds: float = 0.0
    is_whole: bool = True
    has_looked: bool = False
    is_everywhere: bool = True
    _began: float = field(default_factory=monotonic)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be looked at."""
        self.seconds = monotonic() - self._began
        most = self.limits
        return bool(self.found) or not (
            self.seconds < most.seconds and self.looked_at < most.events and self.bytes < most.bytes
        )

    @property
    def sentence(self) -> str:
        """What was looked at in vain, without an end."""
        return self._looked if self.is_everywhere else f"where Redis can be read, {self._looked}"

    @property
    def meaning(self) -> str:
        """What it may mean that all there is was looked at, without an end."""
        if not self.has_looked:
            return "it is handled or discarded, and is found by the event's own id; or it never was"
        return (
            "it may never have come in, or it was handled so long ago that its mark is gone, or it "
            "is a dead letter whose body gave no id that could be read"
        )

    @property
    def _looked(self) -> str:
        number, seconds = f"{self.looked_at:,}", f"{self.seconds:.1f} s"
        whose = "organization" if self.organizations == 1 else "organizations"
        marks = f"no mark of {self.organizations:,} {whose} names it"
        if not self.has_looked:
            return f"no event that waits or is dead has this job, and {marks}"
        if self.is_whole and not self.looked_at:
            return f"no event waits{' of this one' * bool(self.organization)}, and {marks}"
        if self.is_whole:
            all_of_them = (
                "the only waiting event" if number == "1" else f"all {number} waiting events"
            )
            return f"looked at {all_of_them} in {seconds}: not among them; {marks}"
        # Some come while it looks.
        of = f"{max(self.waiting, self.looked_at + 1):,}"
        return f"looked at {number} of {of} waiting events in {seconds}: not among them; {marks}"


async def search_everywhere(
    reach: Reach, text: str, organization: str | None = None, limits: Limits = LIMITS
) -> Search:
    """The events that a job's id or an event's id means, in all partitions.

    Args:
        reach: the partitions.
        text: the one or the other.
        organization: whose, where that is known: that is much faster.
        limits: of the look at what waits, of which an id isn't known until a worker has it.
    """
    done, partitions = Search(limits, organization), reach.partitions
    text = await reach.name_now(text)
    if (bearing := partitions.bearing(text)) is not None and len(partitions) > 1:
        text = text.removeprefix(bearing.names.job_prefix)  # where it comes from, it has another
    owner = organization_of(text)

    async def search_in(partition: Partition) -> list[FoundEvent]:
        # One job is no reason to ask whose events there are.
        if bears_digest(text) and (found := await lookup.search(partition, text, [])):
            return found
        names = [organization] if organization else await lookup.organizations_of(partition)
        done.organizations += len(names)
        return await lookup.search(partition, text, names)

    async def search_among(among: Iterable[Partition]) -> list[FoundEvent]:
        done.organizations = 0
        return await _once(reach, await reach.gather(search_in, among))

    async def look_in(partition: Partition) -> list[FoundEvent]:
        return await _look_through(partition, text, organization, done)

    its = await reach.holding(owner) if owner and len(partitions) > 1 else ()
    if bearing is not None and len(partitions) > 1:
        done.found = await search_among(its or (bearing,))
        reach.check_some(its or (bearing,))
        return done
    done.found = await search_among(its)
    among = await _among(reach, organization)
    if not done.found:
        done.found = await search_among(among)
    if not done.found and not bears_digest(text):
        done.has_looked = True
        done.found = await _once(reach, await reach.gather(look_in, among))
        if not done.found:  # perhaps a worker has taken it since its mark was asked for
            done.found = await search_among(among)
    done.is_everywhere = not reach.missing
    return done


async def _among(reach: Reach, organization: str | None) -> Sequence[Partition]:
    """Where events of an organization may be; of any, and of jobs that belong to none, all."""
    if organization is None or organization == "?":
        return reach.partitions.all
    return await reach.holding(organization)


async def _once(
    reach: Reach, found: Iterable[tuple[Partition, list[FoundEvent]]]
) -> list[FoundEvent]:
    """Each once: while an organization moves, two partitions have what is its own."""
    copies: dict[tuple[object, ...], list[tuple[Partition, FoundEvent]]] = {}
    for partition, some in found:
        for each in some:
            # Jobs that belong to none are others in each.
            of = (each.organization, partition.number if each.organization == "?" else None)
            name = partition.names.in_mark(each.job)
            copies.setdefault((*of, name), []).append((partition, each))
    once = [await _fullest(reach, each) for each in copies.values()]
    return sorted(once, key=lambda each: each.organization)


async def _fullest(reach: Reach, copies: Sequence[tuple[Partition, FoundEvent]]) -> FoundEvent:
    """The one that still is, or is already, the whole event."""
    (_, first), *others = copies
    if not others:
        return first
    there = await reach.living(first.organization)
    whole = [(each.body is not None, partition is there) for partition, each in copies]
    return copies[whole.index(max(whole))][1]


async def _look_through(
    partition: Partition, event_id: str, organization: str | None, done: Search
) -> list[FoundEvent]:
    """Look for an id in the bodies of what waits in a partition, until one is found.

    Most bodies are looked at as they are: only one that has the id somewhere is decoded.
    """
    names, wanted, here = partition.names, _Id(event_id), list[FoundEvent]()
    large = await _large(partition)
    done.waiting += await _number_waiting(partition, organization)
    pattern = f"{_escaped(names.job_prefix)}{organization}:*" if organization else "*"
    async for page in hashes.members(partition.redis, names.accepted, pattern):
        if done.is_over:
            done.is_whole = done.is_whole and bool(done.found)
            break
        jobs = [job for job, _ in page]
        for job in await _those_with(partition, jobs, wanted, large, done):
            found = await lookup.find(partition, job.decode(errors="surrogateescape"))
            if found is not None and found.event_id == event_id:
                done.found.append(found)  # so that the others end
                here.append(found)
        done.looked_at += len(jobs)
    return here


async def _those_with(
    partition: Partition,
    jobs: Sequence[bytes],
    wanted: "_Id",
    large: set[str],
    done: Search,
) -> list[bytes]:
    """The jobs whose payload may have this id in it."""
    prefix = partition.names.job_prefix
    payload = partition.names.job.encode()
    careful = [job for job in jobs if large and _owner(job, prefix) in large]
    others = [job for job in jobs if job not in set(careful)] if careful else jobs
    found: list[bytes] = []
    if others:
        bodies = await partition.redis.mget([payload + job for job in others])
        for job, body in zip(others, bodies, strict=True):
            if body is not None:
                done.bytes += len(body)
                if wanted.may_be_in(body):
                    found.append(job)
    for start in range(0, len(careful), _PARTS_AT_ONCE):
        if done.is_over:
            done.looked_at -= len(careful) - start
            done.is_whole = False
            break
        found += await _by_parts(partition, careful[start : start + _PARTS_AT_ONCE], wanted, done)
    return found


async def _by_parts(
    partition: Partition, jobs: Sequence[bytes], wanted: "_Id", done: Search
) -> list[bytes]:
    """The same, of large payloads: no answer has more than a few parts of each."""
    payload = partition.names.job.encode()
    found, left, offset = list[bytes](), list(jobs), 0
    while left:
        async with partition.redis.pipeline(transaction=False) as pipe:
            for job in left:
                pipe.execute_command("GETRANGE", payload + job, offset, offset + _PART - 1)
            answers = await pipe.execute(raise_on_error=False)
        # A key of another kind under one of our names holds no event.
        parts = [answer if isinstance(answer, bytes) else b"" for answer in answers]
        done.bytes += sum(map(len, parts))
        found += [job for job, part in zip(left, parts, strict=True) if wanted.may_be_in(part)]
        left = [job for job, part in zip(left, parts, strict=True) if len(part) == _PART]
        left = [job for job in left if job not in found]
        offset += _PART - _OVERLAP  # it may stand across the end of a part
    return found


async def _large(partition: Partition) -> set[str]:
    """The organizations whose payloads are large, on average; by what they hold in Redis."""
    names = partition.names
    held = held_bytes.by_organization(await hashes.whole(partition.redis, names.bytes))
    waiting = await hashes.whole(partition.redis, names.waiting)
    return {
        name
        for name, kinds in held.items()
        if kinds.get("waiting", 0) > _LARGE * max(1, int(waiting.get(name.encode(), 0)))
    }


async def _number_waiting(partition: Partition, organization: str | None) -> int:
    redis, names = partition.redis, partition.names
    if organization is None:
        return int(await redis.execute_command("ZCARD", names.accepted))
    return int(await redis.execute_command("HGET", names.waiting, organization) or 0)


class _Id:
    """An event's id, however a body has it: as it is, as a whole number, or with escapes in it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._plain = f'"{text}"'.encode(errors="replace")
        self._number = text.encode() if _WHOLE.fullmatch(text) else None

    def may_be_in(self, body: bytes) -> bool:
        """Whether a body, or a part of one, has it somewhere; perhaps not as the event's own."""
        if self._plain in body:
            return True
        # As hardly any has it, so that it costs next to nothing to look.
        is_otherwise = b"\\" in body or (self._number is not None and self._number in body)
        return is_otherwise and any(self._is(found[1]) for found in _IDS.finditer(body))

    def _is(self, raw: bytes) -> bool:
        if not raw.startswith(b'"'):
            return raw == self._number
        # Most can't be it: of a body that has many, each was decoded while nobody else is answered.
        if b"\\" not in raw or len(raw) < len(self._text) + 2:
            return False
        try:
            return bool(json.loads(raw) == self._text)
        except ValueError:
            return False


def _owner(job: bytes, prefix: str) -> str:
    return organization_of(job.decode(errors="surrogateescape"), prefix) or "?"


def _escaped(text: str) -> str:
    return "".join(f"\\{each}" if each in "\\*?[]" else each for each in text)
