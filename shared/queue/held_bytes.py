"""What organizations hold in Redis, and what Redis has."""

import asyncio
import contextlib
import heapq
from collections import ChainMap, Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Self, TypeVar

import msgspec
from redis.exceptions import NoPermissionError

from shared.queue import hashes, keys
from shared.queue.partition import Partition

_BRISK_PAGES: Final = 40
_PAUSE: Final = 0.02
"""Seconds between two pages from then on. To read and digest one takes this process a millisecond:
so 100,000 organizations take half a minute, and deliveries beside it next to nothing."""

Name = TypeVar("Name", str, bytes)

_KINDS: Final = ("waiting", "dead", "marks", "state")

HeldBytes = dict[str, int]
"""By kind, as ``prelude/bytes.lua`` counts them."""


class RedisMemory(msgspec.Struct, frozen=True):
    """The memory of a Redis.

    Attributes:
        used: bytes that count against its limit.
        limit: ``maxmemory``, bytes; 0: none.
    """

    used: int = 0
    limit: int = 0

    @property
    def is_full(self) -> bool:
        """Whether it takes no more."""
        return 0 < self.limit <= self.used

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Self:
        """What its ``INFO memory`` says."""
        # What replicas and the file are still to get doesn't count for Redis either.
        apart = int(info.get("mem_not_counted_for_evict", 0))
        return cls(int(info.get("used_memory", 0)) - apart, int(info.get("maxmemory", 0)))


def by_organization(raw: Mapping[bytes, bytes]) -> dict[str, HeldBytes]:
    """What the hash ``Names.bytes`` says."""
    held: dict[str, HeldBytes] = {}
    for field, number in raw.items():
        organization, _, kind = field.decode(errors="replace").rpartition(":")
        with contextlib.suppress(ValueError):  # somebody's hand wrote it; the recount removes it
            held.setdefault(organization, {})[kind] = max(0, int(number))
    return held


async def of(partition: Partition, organizations: Sequence[str]) -> dict[str, HeldBytes]:
    """What some of them hold."""
    fields = [f"{organization}:{kind}" for organization in organizations for kind in _KINDS]
    if not fields:
        return {}
    numbers = await partition.redis.execute_command("HMGET", partition.names.bytes, *fields)
    found = zip(map(str.encode, fields), numbers, strict=True)
    return by_organization({field: number for field, number in found if number is not None})


def largest(held: Mapping[str, HeldBytes], most: int) -> list[str]:
    """Those that hold most, all kinds together."""
    return heapq.nlargest(most, held, key=lambda organization: sum(held[organization].values()))


class Shares(msgspec.Struct, frozen=True):
    """What organizations have: it takes a look at each.

    Attributes:
        dead: dead letters.
        reasons: of these by reason, but for those of an earlier version that aren't listed yet.
        holds: organizations whose events wait since their handlers asked for it.
        organizations: those with the most unfinished events: waiting and running of each.
        held: those that hold most in Redis: bytes of each by kind.
    """

    dead: int = 0
    reasons: Mapping[str, int] = {}
    holds: int = 0
    organizations: Mapping[str, tuple[int, int]] = {}
    held: Mapping[str, HeldBytes] = {}


async def read_shares(partition: Partition, organizations: int) -> Shares:
    """Look at all organizations, a page at a time.

    Args:
        partition: where the queue is.
        organizations: how many to name: those with the most unfinished events, and those that hold
            most. Each named one is a series for good: ten thousand would be too many.
    """
    redis, names = partition.redis, partition.names
    pages = 0

    async def rest() -> None:
        nonlocal pages
        pages += 1
        await asyncio.sleep(0 if pages < _BRISK_PAGES else _PAUSE)

    dead = await hashes.total(redis, names.buried, rest=rest)
    reasons = await _reasons(partition, rest)
    holds = 0
    async for page in hashes.members(redis, names.due, f"{keys.HOLD}*", rest):
        holds += len(page)
    if not organizations:
        return Shares(dead, reasons, holds)
    return Shares(
        dead,
        reasons,
        holds,
        await _busiest(partition, organizations, rest),
        await _largest(partition, organizations, rest),
    )


async def _reasons(partition: Partition, rest: hashes.Rest) -> Mapping[str, int]:
    """How many died of each; of none where Redis's users are those of an earlier version."""
    reasons: Counter[str] = Counter()
    with contextlib.suppress(NoPermissionError):
        async for kinds in hashes.pages(partition.redis, partition.names.dead_kinds, rest=rest):
            for kind, number in kinds.items():
                reasons[kind.decode(errors="replace").partition(":")[0]] += int(number)
    return reasons


def shares_together(several: Sequence[Shares], organizations: int) -> Shares:
    """Those of some partitions; each organization lives in one.

    Args:
        several: of each.
        organizations: how many to name.
    """
    if len(several) == 1:
        return several[0]
    events = dict(ChainMap(*(dict(each.organizations) for each in several)))
    held = dict(ChainMap(*(dict(each.held) for each in several)))
    busiest = _first(organizations, events, {name: events[name][0] for name in events})
    return Shares(
        sum(each.dead for each in several),
        sum((Counter(each.reasons) for each in several), Counter()),
        sum(each.holds for each in several),
        {name: events[name] for name in busiest},
        {name: held[name] for name in largest(held, organizations)},
    )


async def _busiest(
    partition: Partition, most: int, rest: hashes.Rest
) -> dict[str, tuple[int, int]]:
    names = partition.names
    waiting: dict[bytes, int] = {}
    async for page in hashes.pages(partition.redis, names.waiting, rest=rest):
        # Of those before it only the first are kept: to sort all at the end would take long.
        waiting |= {name: int(number) for name, number in page.items()}
        waiting = {name: waiting[name] for name in _first(most, waiting, waiting)}
    running = (
        await partition.redis.execute_command("HMGET", names.running, *waiting) if waiting else []
    )
    return {
        name.decode(errors="replace"): (number, int(runs or 0))
        for (name, number), runs in zip(waiting.items(), running, strict=True)
    }


async def _largest(partition: Partition, most: int, rest: hashes.Rest) -> dict[str, HeldBytes]:
    held: dict[str, int] = {}
    first: list[str] = []
    async for page in hashes.pages(partition.redis, partition.names.bytes, rest=rest):
        here = by_organization(page)
        for organization, kinds in here.items():
            held[organization] = held.get(organization, 0) + sum(kinds.values())
        # The kinds of one come in several pages. With the last of them it is weighed as a whole.
        first = _first(most, {*first, *here}, held)
    return await of(partition, first)


def _first(most: int, names: Collection[Name], numbers: Mapping[Name, int]) -> list[Name]:
    return heapq.nlargest(most, names, key=numbers.__getitem__)
