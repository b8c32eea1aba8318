"""Reads failure groups: how many dead letters died of each cause, and since when."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from shared.queue.partition import Partition
from shared.queue.reach import Reach
from worker.operate.dead_lists import Filter, Label, count_all, kinds, labels, owner_of

ID_PATTERN: Final = re.compile(r"([A-Za-z0-9_-]{1,64}|\?):([0-9a-f]{12}|other-[a-z_]{1,32})")
"""What a group's id looks like."""

MINUTES: Final = 5
"""After which letters of an earlier version are in a group, as ``upkeep.EVERY`` says."""

_AT_ONCE: Final = 200
_MOST_LOOKED_AT: Final = 5000
"""Groups that are looked at for those of one reason or type, the largest first."""


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
        return ":other-" in self.id

    @property
    def title(self) -> str:
        """What they died of, in a line."""
        return f"other errors of {self.reason}" if self.is_of_others else self.error or self.reason


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
        found, number = list[FailureGroup](), None
        async for groups in _by_number(partition, wanted):
            found += groups
            if len(found) >= most:
                break
        if not wanted.is_of_a_kind and wanted.organization is None:
            number = int(await partition.redis.zcard(partition.names.dead_groups))
        return found[:most], number

    told = await reach.gather(largest_in, await reach.having(owner_of(wanted)))
    together = sorted(
        (group for _, (found, _) in told for group in found),
        key=lambda each: (-each.number, -each.last_at, each.id),
    )
    numbers = [number for _, (_, number) in told]
    if wanted.organization is not None and len(together) < most:
        return together, len(together)
    return together[:most], None if None in numbers else sum(filter(None, numbers))


async def find(reach: Reach, group_id: str) -> FailureGroup | None:
    """A group by its id; ``None`` where no letter is in it any more."""
    if not ID_PATTERN.fullmatch(group_id):
        return None
    owner, _, _ = group_id.partition(":")

    async def find_in(partition: Partition) -> list[FailureGroup]:
        return await _read(partition, [group_id])

    found = [
        group
        for _, groups in await reach.gather(find_in, await reach.having(owner))
        for group in groups
    ]
    # Those of no organization may be in several partitions.
    return max(found, key=lambda each: each.number, default=None)


async def unlisted(reach: Reach) -> int:
    """How many letters are in no group yet, since an earlier version has written them."""

    async def listed_in(partition: Partition) -> int:
        return sum((await kinds(partition)).values())

    listed = sum(number for _, number in await reach.gather(listed_in))
    return max(0, sum((await count_all(reach)).values()) - listed)


async def _by_number(partition: Partition, wanted: Filter) -> AsyncIterator[list[FailureGroup]]:
    """Groups that match, some at a time, the largest first."""
    if wanted.organization is not None:
        its = await labels(partition, wanted.organization)
        ids = [
            f"{wanted.organization}:{key}" for key, label in its.items() if _matches(label, wanted)
        ]
        yield sorted(await _read(partition, ids), key=lambda each: -each.number)
        return
    for start in range(0, _MOST_LOOKED_AT, _AT_ONCE):
        names = await partition.redis.zrange(
            partition.names.dead_groups, start, start + _AT_ONCE - 1, desc=True
        )
        found = await _read(partition, [name.decode() for name in names])
        yield [group for group in found if _matches(group, wanted)]
        if len(names) < _AT_ONCE:
            return


def _matches(of: Label | FailureGroup, wanted: Filter) -> bool:
    return wanted.reason in {None, of.reason} and wanted.type in {None, of.type}


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
