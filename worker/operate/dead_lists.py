"""Knows in which sorted sets the dead letters are that somebody means, and how many these are."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias

import msgspec

from shared.queue import hashes
from shared.queue.partition import Partition
from shared.queue.reach import Reach

if TYPE_CHECKING:  # which is read from the lists that are found here
    from worker.operate.dead_letters import DeadLetter

ANY_TYPE: Final = "*"
"""The type of a kind that holds letters of many, as ``records.lua`` has it."""

_ASKED_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant; what is ``None`` doesn't matter.

    Attributes:
        organization: whose.
        reason: why they were buried.
        type: of the event.
        died_before: epoch milliseconds.
        died_after: epoch milliseconds.
        group: that they are in, as ``organization:group``.
    """

    organization: str | None = None
    reason: str | None = None
    type: str | None = None
    died_before: int | None = None
    died_after: int | None = None
    group: str | None = None

    @property
    def is_of_a_kind(self) -> bool:
        """Whether only some of an organization's letters of any time are meant."""
        return not self.reason is self.type is self.group is None

    def matches(self, letter: "DeadLetter") -> bool:
        """Whether this one is meant."""
        return (
            self.organization in {None, letter.organization}
            and self.reason in {None, letter.reason}
            and self.type in {None, letter.type}
            and self.group in {None, letter.group_id}
            and self.is_within(letter.died_at)
        )

    def is_within(self, died_at: float) -> bool:
        """Whether it died when those did that are meant."""
        is_old = self.died_before is None or died_at < self.died_before
        return is_old and (self.died_after is None or died_at >= self.died_after)

    def until(self, moment: int) -> Self:
        """Without those that die from that moment on, such as what is replayed in vain."""
        before = moment if self.died_before is None else min(moment, self.died_before)
        return replace(self, died_before=before)

    def from_on(self, died_at: int, *, newest_first: bool) -> Self:
        """Those only that died in this moment, or come behind it."""
        if newest_first:
            return self.until(died_at + 1)
        return replace(self, died_after=max(died_at, self.died_after or 0))

    @property
    def span(self) -> tuple[str | int, str]:
        """From the least to the greatest time of their deaths, as Redis has it."""
        least = "-inf" if self.died_after is None else self.died_after
        return least, "+inf" if self.died_before is None else f"({self.died_before}"


class Source(NamedTuple):
    """A sorted set of jobs, by when they died, that holds letters that are meant.

    Attributes:
        name: of it.
        is_mixed: whether it may hold others too, which only their records tell.
    """

    name: str
    is_mixed: bool = False


class Label(msgspec.Struct, array_like=True, frozen=True):
    """What the letters of a group have in common, as ``records.lua`` has it.

    Attributes:
        first: when the first one died, epoch milliseconds.
        reason: why they were buried.
        type: of their events; empty where they have several, or none.
        error: its first line without what differs; empty for all others of a reason.
        place: in the author's code; empty where no traceback tells of one.
    """

    first: float
    reason: str
    type: str
    error: str
    place: str

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """The label in such bytes; one that says nothing where somebody's hand wrote them."""
        try:
            return msgspec.msgpack.decode(raw, type=cls)
        except msgspec.DecodeError:
            return cls(0, "", "", "", "")


class Kind(NamedTuple):
    """What the letters of a kind have in common.

    Attributes:
        reason: why they were buried.
        type: of their events; empty where they have several, or none.
    """

    reason: str
    type: str

    @classmethod
    def of(cls, text: str) -> Self:
        """The kind that is called so."""
        reason, _, event_type = text.partition(":")
        return cls(reason, "" if event_type == ANY_TYPE else event_type)


Place: TypeAlias = tuple[str, float]
"""A job, and when it died."""


async def count(partition: Partition) -> dict[str, int]:
    """How many dead letters each organization has."""
    raw = await hashes.whole(partition.redis, partition.names.buried)
    return {organization.decode(): int(number) for organization, number in sorted(raw.items())}


async def by_organization(partition: Partition, wanted: Filter) -> dict[str, list[Source]]:
    """Where those are that are meant, of each organization that has any."""
    owner, names = owner_of(wanted), partition.names
    if wanted.group is not None and owner is not None:
        is_its = wanted.organization in {None, owner}
        is_mixed = not wanted.reason is wanted.type is None
        source = Source(names.dead_group(owner, wanted.group.partition(":")[2]), is_mixed)
        return {owner: [source]} if is_its else {}
    owners = [owner] if owner is not None else list(await count(partition))
    if not wanted.is_of_a_kind or not await are_listed(partition):
        return {each: [Source(names.dead(each), wanted.is_of_a_kind)] for each in owners}
    found: dict[str, list[Source]] = {}
    async for each, labels in labels_of(partition, owners):
        groups = ((names.dead_group(each, key), label) for key, label in labels.items())
        if its := list(filter(None, (_source(*group, wanted) for group in groups))):
            found[each] = its
    return found


async def sources(partition: Partition, wanted: Filter) -> list[Source]:
    """Where those are that are meant, whosever they are."""
    if owner_of(wanted) is None and await are_listed(partition):
        named = ((partition.names.dead_kind(kind), kind) for kind in await kinds(partition))
        found = [_source(name, Kind.of(kind), wanted) for name, kind in named]
        return [source for source in found if source]
    return [each for its in (await by_organization(partition, wanted)).values() for each in its]


def _source(name: str, holds: "Label | Kind", wanted: Filter) -> Source | None:
    """A list, if it may hold what is meant; where nothing is said of their types, it may."""
    if wanted.reason not in {None, holds.reason} or (
        holds.type and wanted.type not in {None, holds.type}
    ):
        return None
    return Source(name, is_mixed=wanted.type is not None and not holds.type)


async def are_listed(partition: Partition) -> bool:
    """Whether all letters are in a group and of a kind, also those of an earlier version."""
    return bool(await partition.redis.exists(partition.names.dead_listed))


async def kinds(partition: Partition) -> dict[str, int]:
    """How many letters there are of each kind, as ``reason:type``."""
    raw = await hashes.whole(partition.redis, partition.names.dead_kinds)
    return {kind.decode(errors="replace"): int(number) for kind, number in raw.items()}


async def labels_of(
    partition: Partition, organizations: Sequence[str]
) -> AsyncIterator[tuple[str, dict[str, Label]]]:
    """The groups of each of these organizations, by their names within it."""
    for start in range(0, len(organizations), _ASKED_AT_ONCE):
        some = organizations[start : start + _ASKED_AT_ONCE]
        async with partition.redis.pipeline(transaction=False) as pipe:
            for name in some:
                pipe.hgetall(partition.names.dead_labels(name))
            for name, raw in zip(some, await pipe.execute(), strict=True):
                yield name, {key.decode(): Label.read(each) for key, each in raw.items()}


async def labels(partition: Partition, organization: str) -> dict[str, Label]:
    """The same, of one."""
    return {
        key: it async for _, its in labels_of(partition, [organization]) for key, it in its.items()
    }


async def number_of(reach: Reach, wanted: Filter, *, at_once: bool = False) -> int | None:
    """How many there are, exactly.

    Args:
        reach: where they are.
        wanted: which.
        at_once: whether to answer ``None`` rather than to read records, where only these tell:
            those of an earlier version, until a worker has listed them, and where they are of so
            many kinds that some lists are mixed.
    """

    async def number_in(partition: Partition) -> int | None:
        found = await sources(partition, wanted)
        mixed = [each for each in found if each.is_mixed]
        # Somebody waits for a page; who is about to act is told the number in any case.
        if mixed and at_once:
            return None
        number = sum([await _number_in(partition, each, wanted) for each in mixed])
        return number + await _counted(partition, found, wanted)

    among = await reach.having(owner_of(wanted))
    numbers = [number for _, number in await reach.gather(number_in, among)]
    return None if None in numbers else sum(filter(None, numbers))


def owner_of(wanted: Filter) -> str | None:
    """Whose letters may be meant alone."""
    return wanted.organization if wanted.group is None else wanted.group.partition(":")[0]


async def _counted(partition: Partition, found: Iterable[Source], wanted: Filter) -> int:
    async with partition.redis.pipeline(transaction=False) as pipe:
        for each in found:
            if not each.is_mixed:
                pipe.zcount(each.name, *wanted.span)
        return sum(map(int, await pipe.execute()))


async def _number_in(partition: Partition, source: Source, wanted: Filter) -> int:
    """How many of a list are meant, by a look at each."""
    number = 0
    async for places in listed(partition, source.name):
        async with partition.redis.pipeline(transaction=False) as pipe:
            for job, _ in places:
                record = f"{partition.names.dead_letter_prefix}{job}"
                name = record.encode(errors="surrogateescape")
                pipe.execute_command("HMGET", name, "reason", "type")
            records = await pipe.execute()
        told = zip(places, records, strict=True)
        number += sum(_is_meant(died_at, raw, wanted) for (_, died_at), raw in told)
    return number


def _is_meant(died_at: float, raw: Sequence[bytes | None], wanted: Filter) -> bool:
    if raw[0] is None:  # it is gone
        return False
    reason, event_type = ((each or b"").decode(errors="replace") for each in raw)
    is_it = wanted.reason in {None, reason} and wanted.type in {None, event_type}
    return is_it and wanted.is_within(died_at)


async def listed(
    partition: Partition, name: str, *, newest_first: bool = False
) -> AsyncIterator[list[Place]]:
    """What a list has; each page begins at the time at which the last one ended."""
    start: float | bytes = b"+inf" if newest_first else b"-inf"
    end = b"-inf" if newest_first else b"+inf"
    seen: set[bytes] = set()
    size = _ASKED_AT_ONCE
    while True:
        command = ["ZRANGE", name, start, end, "BYSCORE", *(["REV"] if newest_first else [])]
        found = await partition.redis.execute_command(*command, "LIMIT", 0, size, "WITHSCORES")
        fresh = [(job, score) for job, score in _pairs(found) if job not in seen]
        if not fresh:
            if len(found) // 2 < size:
                return
            size *= 2  # more than a page of them died in the same millisecond
            continue
        start = fresh[-1][1]
        # The next page begins with that millisecond again, in which others may have died, too.
        seen = {job for job, score in _pairs(found) if score == start}
        yield [(job.decode(errors="surrogateescape"), float(score)) for job, score in fresh]


def _pairs(found: list[Any]) -> list[tuple[bytes, bytes]]:
    return list(zip(found[::2], found[1::2], strict=True))
