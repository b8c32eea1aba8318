"""Reads failure groups: how many dead letters died of each cause, and since when."""

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from heapq import nlargest
from typing import Final

import msgspec

from shared.queue.partition import Partition
from shared.queue.reach import Reach
from worker.grouping import HARMED
from worker.operate.dead_letters import REASONS
from worker.operate.dead_lists import Filter, Label, are_listed, count, kinds, labels, owner_of

ID_PATTERN: Final = re.compile(r"([A-Za-z0-9_-]{1,64}|\?):([0-9a-f]{12}|other-[a-z_]{1,32})")
"""What a group's id looks like."""

MINUTES: Final = 5
"""After which letters of an earlier version are in a group, as ``upkeep.EVERY`` says."""

_AT_ONCE: Final = 200
_MOST_LOOKED_AT: Final = 5000
"""Groups that are looked at for those of one type, the largest first."""


class FailureGroup(msgspec.Struct, frozen=True):
    """The dead letters of an organization that died of one cause.

    Attributes:
        id: names it, as ``organization:group``.
        organization: whose.
        reason: why they were buried.
        type: of their events; empty where they have several, or none.
        error: the first line of their error, with ``*`` for what differs; empty for all others of a
            reason, of an organization that has more groups than are kept.
        place: the innermost frame of the handlers' code; empty where no traceback tells of one.
        number: how many there are now.
        first_at: when the first one died, epoch milliseconds.
        last_at: when the last one did.
        sample: the job of that one.
    """

    id: str
    organization: str
    reason: str
    type: str
    error: str
    place: str
    number: int
    first_at: int
    last_at: int
    sample: str

    @property
    def is_of_others(self) -> bool:
        """Whether it has what is in no group of its own, since there are too many."""
        return _is_of_others(self.id)

    @property
    def title(self) -> str:
        """What they died of, in a line."""
        if self.is_of_others:
            return f"other errors of {self.reason}"
        # Of an exception that says nothing there is its class alone, with a colon behind it.
        return self.error.rstrip(": ") or self.reason


async def largest(reach: Reach, wanted: Filter, most: int) -> tuple[list[FailureGroup], int | None]:
    """The largest groups that match, and how many there are in all.

    Args:
        reach: where they are.
        wanted: whose, and of which reason and type; all else of it doesn't matter.
        most: how many to read.

    Returns:
        the number is ``None`` where only reading all of them would tell.
    """

    async def largest_in(partition: Partition) -> tuple[list[FailureGroup], int | None]:
        found = list[str]()
        async for ids in _by_number(partition, wanted, most):
            found += ids
            if len(found) >= most and wanted.organization is None:
                break
        groups = sorted(await _read(partition, found[:most]), key=lambda each: -each.number)
        if wanted.organization is not None:
            return groups, len(found)
        return groups, None if wanted.type is not None else await _number(partition, wanted)

    told = await reach.gather(largest_in, await reach.having(owner_of(wanted)))
    together = sorted(
        _as_one(group for _, (found, _) in told for group in found),
        key=lambda each: (-each.number, -each.last_at, each.id),
    )
    numbers = [number for _, (_, number) in told]
    return together[:most], None if None in numbers else sum(filter(None, numbers))


async def find(reach: Reach, group_id: str) -> FailureGroup | None:
    """A group by its id; ``None`` where no letter is in it any more."""
    if not ID_PATTERN.fullmatch(group_id):
        return None
    owner, _, _ = group_id.partition(":")

    async def find_in(partition: Partition) -> list[FailureGroup]:
        return await _read(partition, [group_id])

    found = await reach.gather(find_in, await reach.having(owner))
    return next(iter(_as_one(group for _, groups in found for group in groups)), None)


def _as_one(groups: Iterable[FailureGroup]) -> list[FailureGroup]:
    """The same, each id once."""
    found: dict[str, FailureGroup] = {}
    for each in groups:
        known = found.get(each.id)
        found[each.id] = each if known is None else _both(known, each)
    return list(found.values())


def _both(one: FailureGroup, other: FailureGroup) -> FailureGroup:
    """One that is in two partitions."""
    if one.organization != "?":  # it is on its way, and half of what is there is a copy
        return max(one, other, key=lambda each: each.number)
    return msgspec.structs.replace(
        max(one, other, key=lambda each: each.last_at),
        number=one.number + other.number,
        first_at=min(one.first_at, other.first_at),
    )


async def unlisted(reach: Reach) -> int:
    """How many letters are in no group yet, since an earlier version has written them."""

    async def unlisted_in(partition: Partition) -> int:
        if await are_listed(partition):
            return 0
        there = sum((await count(partition)).values())
        return max(0, there - sum((await kinds(partition)).values()))

    return sum(number for _, number in await reach.gather(unlisted_in))


async def _by_number(partition: Partition, wanted: Filter, most: int) -> AsyncIterator[list[str]]:
    """The ids of groups that match, some at a time, the largest first."""
    names = partition.names
    if wanted.organization is not None:
        its = await labels(partition, wanted.organization)
        keys = [key for key, it in its.items() if _matches(key, it, wanted)]
        async with partition.redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.zcard(names.dead_group(wanted.organization, key))
            numbers = dict(zip(keys, await pipe.execute(), strict=True))
        yield [
            f"{wanted.organization}:{key}" for key in sorted(keys, key=lambda key: -numbers[key])
        ]
        return
    # Of one type there may be few: to find it needs more of them, with their labels.
    last = most if wanted.type is None else max(most, _AT_ONCE)
    ids: list[str] = []
    while len(ids) < _MOST_LOOKED_AT:
        seen, ids = ids, await _largest_ids(partition, wanted, last)
        new = ids[len(seen) :]
        if wanted.type is None:
            yield new
        else:
            async with partition.redis.pipeline(transaction=False) as pipe:
                for each in new:
                    owner, _, key = each.partition(":")
                    pipe.hget(names.dead_labels(owner), key)
                told = zip(new, await pipe.execute(), strict=True)
            yield [each for each, raw in told if raw and _matches(each, Label.read(raw), wanted)]
        if len(ids) < last:
            return
        last *= 2


async def _largest_ids(partition: Partition, wanted: Filter, most: int) -> list[str]:
    """Of so many of the largest groups of one reason, or of all."""
    async with partition.redis.pipeline(transaction=False) as pipe:
        for name in _counted_in(partition, wanted):
            pipe.zrange(name, 0, most - 1, desc=True, withscores=True)
        found = [(number, name) for some in await pipe.execute() for name, number in some]
    return [name.decode() for _, name in nlargest(most, found)]


async def _number(partition: Partition, wanted: Filter) -> int:
    async with partition.redis.pipeline(transaction=False) as pipe:
        for name in _counted_in(partition, wanted):
            pipe.zcard(name)
        return sum(await pipe.execute())


def _counted_in(partition: Partition, wanted: Filter) -> list[str]:
    reasons = REASONS if wanted.reason is None else (wanted.reason,)
    return [partition.names.dead_groups(reason) for reason in reasons]


def _matches(name: str, label: Label, wanted: Filter) -> bool:
    """Whether it may hold what is meant, by its name within its organization or anywhere."""
    if wanted.reason not in {None, label.reason}:
        return False
    # Of these, only the records tell; to leave them out would hide what may be most of them.
    is_of_any = _is_of_others(name) or label.reason in HARMED
    return is_of_any or wanted.type in {None, label.type}


def _is_of_others(name: str) -> bool:
    return name.rpartition(":")[2].startswith("other-")


async def _read(partition: Partition, ids: Sequence[str]) -> list[FailureGroup]:
    """Those of these that are there."""
    names, told = partition.names, [each.partition(":")[::2] for each in ids]
    async with partition.redis.pipeline(transaction=False) as pipe:
        for owner, key in told:
            pipe.hget(names.dead_labels(owner), key)
            pipe.zcard(names.dead_group(owner, key))
            pipe.zrange(names.dead_group(owner, key), 0, 0, withscores=True)
            pipe.zrange(names.dead_group(owner, key), 0, 0, desc=True, withscores=True)
        answers = await pipe.execute()
    rows = [answers[start : start + 4] for start in range(0, len(answers), 4)]
    found = []
    for group_id, (owner, _), (raw, number, oldest, newest) in zip(ids, told, rows, strict=True):
        if raw is None or not newest:
            continue
        label = Label.read(raw)
        found.append(
            FailureGroup(
                id=group_id,
                organization=owner,
                reason=label.reason,
                type=label.type,
                error=label.error,
                place=label.place,
                number=int(number),
                # One that is listed later may have died earlier.
                first_at=round(min(label.first, oldest[0][1])),
                last_at=round(newest[0][1]),
                sample=newest[0][0].decode(errors="surrogateescape"),
            )
        )
    return found
