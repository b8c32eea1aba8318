"""What several partitions say, as one: sums, lists in one order, each worker once."""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import structs

from shared.errors import Unavailable
from shared.queue.held_bytes import RedisMemory
from shared.queue.partition import Partition
from shared.queue.partitions import undivided
from shared.queue.reach import Missing, Reach
from shared.redis.connection import REDIS_ERRORS, server_of
from worker.operate.overview import OrganizationOverview, Overview, read_overview
from worker.operate.workers import lost_of_all, together

Item = TypeVar("Item")


class Look(NamedTuple):
    """One look at all partitions.

    Attributes:
        overview: of the whole system, as far as they answer.
        parts: what each says of itself, by its number.
    """

    overview: Overview
    parts: Mapping[int, Overview]


async def look(reach: Reach) -> Look:
    """Look at all; those that don't answer are told in the overview.

    Raises: what `read_overview` does, where none answers.
    """
    if len(reach.partitions) == 1:
        ((_, overview),) = await reach.gather(read_overview)
        return Look(overview, {0: overview})
    found = await reach.gather(_readable)
    parts = {partition.number: overview for partition, overview in found}
    # Partitions that have a server in common have its memory in common.
    memory = {server_of(partition.redis): overview.memory for partition, overview in found}
    firsts = {server_of(partition.redis): partition for partition, _ in found}
    beside = sum([number for _, number in await reach.gather(undivided, firsts.values())])
    overview = merged([*parts.values()], [*memory.values()], reach.missing, beside, at=time.time())
    return Look(overview, parts)


async def _readable(partition: Partition) -> Overview:
    """Its overview; what can't be read of one is no reason to show nothing of the others."""
    try:
        return await read_overview(partition)
    except REDIS_ERRORS:
        raise
    except Exception as exc:  # somebody's hand has left it
        raise Unavailable("redis_unreadable", f"it holds what can't be read ({exc})") from exc


def merged(
    parts: Sequence[Overview],
    memory: Sequence[RedisMemory],
    missing: list[Missing],
    beside: int = 0,
    *,
    at: float,
) -> Overview:
    """The overview of the whole system.

    Args:
        parts: of each partition that answers, one at the least.
        memory: of each server.
        missing: the other partitions.
        beside: events that wait where no partition has them.
        at: when it was read, by our clock: servers' clocks are apart, and any of them may go away.
    """
    alive = together(each for part in parts for each in part.workers)
    gone = (each for part in parts for each in part.lost or ())
    oldest = [each.oldest_seconds for each in parts if each.oldest_seconds is not None]
    return Overview(
        at=at,
        waiting=sum(each.waiting for each in parts),
        ready=sum(each.ready for each in parts),
        running=sum(each.running for each in parts),
        deferred=sum(each.deferred for each in parts),
        parked=sum(each.parked for each in parts),
        dead=sum(each.dead for each in parts),
        # Of each by its own clock.
        oldest_seconds=max(oldest, default=None),
        counters=sums(each.counters for each in parts),
        dead_by_reason=sums(each.dead_by_reason for each in parts),
        organizations=organizations(each for part in parts for each in part.organizations),
        workers=alive,
        unhandled=sum(each.unhandled for each in parts),
        in_turn=sum(each.in_turn for each in parts),
        memory=all_memory(memory),
        fullest=max(memory, key=_fullness),
        missing=missing,
        undivided=beside,
        unwatched_since=min(
            (each.unwatched_since for each in parts if each.unwatched_since), default=msgspec.UNSET
        ),
        lost=lost_of_all(gone, alive) or msgspec.UNSET,
        incidents=[one for each in parts for one in each.incidents or ()] or msgspec.UNSET,
    )


def sums(numbers: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Numbers by name, added up, in the order of the names."""
    total: dict[str, int] = {}
    for each in numbers:
        for name, number in each.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items()))


def organizations(shares: Iterable[OrganizationOverview]) -> list[OrganizationOverview]:
    """Each once, by its name.

    One lives in a single partition, but jobs that are none of ours may be in any: their events are
    added up, and of all else the partition says it in which there is most.
    """
    by_name: dict[str, OrganizationOverview] = {}
    for share in shares:
        known = by_name.get(share.organization)
        by_name[share.organization] = share if known is None else _together(known, share)
    return [by_name[name] for name in sorted(by_name)]


def _together(one: OrganizationOverview, other: OrganizationOverview) -> OrganizationOverview:
    most, least = (other, one) if other.waiting > one.waiting else (one, other)
    added: dict[str, Any] = {
        name: getattr(one, name) + getattr(other, name)
        for name in ("waiting", "running", "dead", "in_turn")
    }
    return structs.replace(most, held=sums([most.held, least.held]), **added)


def all_memory(servers: Sequence[RedisMemory]) -> RedisMemory:
    """Of all servers together; without a limit where one has none."""
    has_limit = all(each.limit for each in servers)
    limit = sum(each.limit for each in servers) if has_limit else 0
    return RedisMemory(sum(each.used for each in servers), limit)


def _fullness(memory: RedisMemory) -> tuple[float, int]:
    return (memory.used / memory.limit if memory.limit else 0.0, memory.used)


async def in_one_order(
    lists: Sequence[AsyncIterator[Item]], key: Callable[[Item], Any], *, newest_first: bool
) -> AsyncIterator[Item]:
    """What is in lists that are each in that order; of each no more is held than the next one.

    Args:
        lists: in the order of the key.
        key: what they are in order by.
        newest_first: whether from the greatest to the least.
    """
    first = max if newest_first else min
    heads = [(each, item) for each in lists async for item in _next(each)]
    while heads:
        index = first(range(len(heads)), key=lambda at: key(heads[at][1]))
        source, item = heads[index]
        yield item
        heads[index : index + 1] = [(source, item) async for item in _next(source)]


async def _next(source: AsyncIterator[Item]) -> AsyncIterator[Item]:
    """Its next one, if it has any."""
    try:
        yield await anext(source)
    except StopAsyncIteration:
        return
