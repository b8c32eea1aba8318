"""What one of all workers does every few minutes, whatever comes in."""

import asyncio
import re
import secrets
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Sequence,
)
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

import arq
from arq.cron import CronJob

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue import hashes, scripts
from shared.queue.partition import Partition
from shared.queue.partitions import MOST_HOPS, Partitions
from shared.queue.reach import Reach
from shared.redis.connection import REDIS_ERRORS
from worker.opened import Kept, Known
from worker.operate import dead_letters, dead_lists, revival
from worker.operate.belongings import Belongings

_FORGET = scripts.load("forget")
_HALT = scripts.load("halt")
_RECOUNT = scripts.load("recount")
_RENUMBER = scripts.load("renumber")
_RESTORE = scripts.load("restore")
_UNLIST = scripts.load("unlist")

EVERY: Final = timedelta(minutes=5)
"""How often one of all workers does it."""

_LONGEST: Final = timedelta(minutes=4)

_RESTORED_AT_ONCE: Final = 200
_COUNTED_AT_ONCE: Final = 500
_PAUSE: Final = 0.005
"""Seconds between two looks: others need Redis, too. Restoring a million events takes half a
minute, counting 20 million keys four minutes."""

_GOOD_SECONDS: Final = 86_400.0
_GOOD_WHILE_REFUSED: Final = 600.0
"""Seconds for which a count is good where an organization was refused since: it may hold less."""

_LOOKED_AT_ONCE: Final = 500
_LISTED_AT_ONCE: Final = 200
_ORDER_KEPT: Final = 3_600.0
"""Seconds for which the order of acceptance of an organization without events is kept: the clocks
of ingresses are never as far apart."""

_OVER: Final = b"done:"
"""What the mark of an event that is handled begins with."""

_ROOM: Final = (1e11, 3_000, 5e11, 20_000, 9e11, 1 << 53)
"""From which virtual times on these are renumbered, and with how many jobs and fields of flows at
the most: ten milliseconds, a tenth of a second, and whatever it takes. From one to the next it
takes a year at the least, at ten thousand events a second of weight 1. A hundred thousand jobs take
half a second."""

_MOST_NAMED: Final = 10

_STAYS: Final = re.compile(r"out:(\d+):[01]")
"""What is said of an organization that waits for its mover, and has not departed."""

_GONE_SECONDS: Final = 60.0
"""For how long a mover has given no sign of life that is taken for gone."""


def cron_job(
    *tasks: Callable[[], Awaitable[None]], job_prefix: str = "", second: int = 0
) -> CronJob:
    """These, one after the other, as one arq cron job; one that fails keeps none from its turn.

    Args:
        tasks: what is done.
        job_prefix: what the ids of its partition's jobs begin with.
        second: of the minute in which it is due, so that partitions don't do it all at once.
    """

    async def do_all(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:  # noqa: ARG001  # arq's
        await _each("upkeep", tasks)

    minutes = set(range(0, 60, round(EVERY.total_seconds() / 60)))
    # The name of the first thing that was ever done so: arq puts the job into the queue that all
    # share, and a worker of an earlier version would bury one whose name it doesn't know.
    name = f"{job_prefix}cron:expire_dead_letters"
    return arq.cron(do_all, name=name, minute=minutes, second=second, timeout=_LONGEST)


async def _each(name: str, tasks: Iterable[Callable[[], Awaitable[None]]]) -> None:
    failures = []
    for task in tasks:
        try:
            await task()
        except Exception as exc:  # noqa: BLE001  raised below
            failures.append(exc)
    if failures:
        raise ExceptionGroup(name, failures)


# Dead letters that nobody acted on in time


async def expire(partition: Partition, *, retention: float, log: FilteringBoundLogger) -> None:
    """Remove, with their marks, those that died more than ``retention`` seconds ago.

    One that is being replayed stays until it has ended. It is counted and logged where some went.
    """
    died_before = await dead_letters.now(partition) - round(retention * 1000)
    gone = 0
    organizations = list(await dead_lists.count(partition))
    for start in range(0, len(organizations), _LOOKED_AT_ONCE):
        some = organizations[start : start + _LOOKED_AT_ONCE]
        for organization in await _with_older(partition, some, died_before):
            gone += await revival.expire(partition, organization, died_before=died_before)
    if gone:
        metrics.DEAD_LETTERS_EXPIRED.inc(gone)
        log.info("dead_letters_expired", number=gone)


async def _with_older(
    partition: Partition, organizations: Sequence[str], died_before: int
) -> list[str]:
    """Those with dead letters so old: to ask for each by itself takes too long of thousands."""
    async with partition.redis.pipeline(transaction=False) as pipe:
        for organization in organizations:
            pipe.zcount(partition.names.dead(organization), "-inf", f"({died_before}")
        numbers = await pipe.execute()
    return [name for name, number in zip(organizations, numbers, strict=True) if number]


# Accepted events that have lost their place in the queue


async def restore(partition: Partition, *, lease: float, log: FilteringBoundLogger) -> None:
    """Put them back, and count and log it where something was amiss, also where it is cut short."""
    number, some = 0, list[str]()
    try:
        async for job in restored(partition, lease=lease):
            number += 1
            if number <= _MOST_NAMED:
                some.append(job)
    finally:
        if number:
            metrics.PLACES_RESTORED.inc(number)
            log.error("places_restored", number=number, some=some)


async def restored(partition: Partition, *, lease: float) -> AsyncGenerator[str, None]:
    """The jobs that had no place and have one now, from every accepted one that is looked at.

    It begins where the last one stopped, whichever worker that was, and ends at the end of all: who
    never has the time for all of them in one go sees each in turn.

    Args:
        partition: where they are.
        lease: seconds after which one that a worker may hold still is due.
    """
    cursor = b""
    while cursor != b"0":
        cursor, *jobs = await partition.run(_RESTORE, _RESTORED_AT_ONCE, round(lease * 1000))
        for job in jobs:
            yield job.decode(errors="replace")
        await asyncio.sleep(_PAUSE)


# What organizations hold in Redis, since marks and state expire without a word


async def recount(partition: Partition, *, retention: float) -> None:
    """Go on with the count until it ends, unless the last one is good still.

    How far it is stands in Redis: whoever stops in the midst, another goes on.

    Args:
        partition: where they hold it.
        retention: seconds for which a mark is kept. A count is good for a day, or for as long as
            that where it is less: so no more marks have expired than there are.
    """
    good_for = (
        round(min(_GOOD_SECONDS, retention) * 1000),
        round(_GOOD_WHILE_REFUSED * 1000),
    )
    goes_on = True
    while goes_on:
        goes_on = await partition.run(_RECOUNT, _COUNTED_AT_ONCE, *good_for) == b"goes on"
        await asyncio.sleep(_PAUSE)


# Rows of handlers' inboxes whose events can't come again


def in_first(
    partition: Partition,
    answering: Callable[[], Collection[int]],
    task: Callable[[], Awaitable[None]],
) -> Callable[[], Awaitable[None]]:
    """A task for all partitions: one of them does it, as long as it is the first that answers.

    Args:
        partition: one that would do it.
        answering: the numbers of those that answer now.
        task: what is done.
    """

    async def do_it() -> None:
        if partition.number == min(answering(), default=partition.number):
            await task()

    return do_it


async def prune(
    partitions: Partitions,
    databases: Sequence[Kept],
    *,
    retention: float,
    log: FilteringBoundLogger,
) -> None:
    """Remove those that are older than a mark is kept, and whose events aren't left to be run.

    A row that goes while its event is dead, or is tried still, would let a replay write twice. So
    where one of the partitions can't be asked, rows of its organizations stay.
    """
    reach = Reach(partitions)

    async def are_over(events: Sequence[Known]) -> list[bool]:
        kept: set[Known] = set()
        asked = {name: partitions.of(name) for name, _ in events}

        async def look(
            partition: Partition,
        ) -> tuple[list[bytes | None], dict[str, Partition], set[str]]:
            names = [name for name, place in asked.items() if place is partition]
            marks = await partition.redis.mget(
                [partition.names.event(*each) for each in events if asked.get(each[0]) is partition]
            )
            ways = await partition.redis.execute_command("HMGET", partition.names.moving, *names)
            moving = {name for name, way in zip(names, ways, strict=True) if way}
            return marks, await partitions.moved(dict.fromkeys(names, partition)), moving

        for _ in range(MOST_HOPS + 1):
            among = {each.number: each for each in asked.values()}
            told = await reach.gather(look, among.values())
            found: dict[Known, bytes] = {}
            gone: dict[str, Partition] = {}
            moving: set[str] = set()
            for partition, (marks, moved, on_their_way) in told:
                here = [each for each in events if asked.get(each[0]) is partition]
                found |= {each: mark or _OVER for each, mark in zip(here, marks, strict=True)}
                gone |= moved
                moving |= on_their_way
            there = {each for each in events if each[0] in asked}
            # Without a mark such an old event is `unprovable`: it isn't run. But of one that is on
            # its way here, and here knows nothing of from where, the marks have yet to come.
            kept |= {
                each
                for each in there
                if each[0] in moving or not found.get(each, b"").startswith(_OVER)
            }
            asked = gone
        return [each not in kept for each in events]

    async def prune_one(database: Kept) -> None:
        if gone := await database.prune(are_over, older_than=retention):
            log.info("inbox_pruned", number=gone)

    await _each("prune", [partial(prune_one, database) for database in databases])


# Organizations that have nothing, of which thousands come and go


async def forget(partition: Partition) -> None:
    """Remove the flows of those that have nothing, where they say no more than none would."""
    cursor = b"0"
    while True:
        cursor = await partition.run(_FORGET, cursor, _LOOKED_AT_ONCE, round(_ORDER_KEPT * 1000))
        if cursor == b"0":
            return
        await asyncio.sleep(_PAUSE)


@dataclass(frozen=True, slots=True)
class Listed:
    """The organizations of the endpoints file.

    Attributes:
        organizations: their ids.
        roster: what stands for all of them in the signs of life of workers.
    """

    organizations: Collection[str]
    roster: str


async def unlist(
    partition: Partition, listed: Callable[[], Listed], *, log: FilteringBoundLogger
) -> None:
    """Remove what the endpoints file said of those that have left it, and have nothing.

    Where it has none at all, nothing goes: somebody has emptied it by mistake.

    Args:
        partition: where it stands.
        listed: what the file has now. While that of any live worker has others, all stay.
        log: told how many are gone.
    """
    gone = 0
    async for fields in _fields(partition, partition.names.organizations, partition.names.rates):
        now = listed()
        owners = {field.rpartition(":")[2] for field in fields}
        left = [each for each in owners if each not in now.organizations]
        if left and now.organizations:
            gone += await partition.run(_UNLIST, now.roster, *left)
    if gone:
        log.info("organizations_unlisted", number=gone)


async def _fields(partition: Partition, *names: str) -> AsyncIterator[list[str]]:
    """The fields of hashes, some at a time."""
    for name in names:
        cursor = -1
        while cursor:
            cursor, found = await partition.redis.hscan(name, max(cursor, 0), count=_LISTED_AT_ONCE)
            yield [field.decode(errors="replace") for field in found]
            await asyncio.sleep(_PAUSE)


# Organizations whose movers are gone


async def undo_moves(
    partition: Partition, partitions: Partitions, *, log: FilteringBoundLogger
) -> None:
    """Let those go on that wait here for a mover that was gone before they departed.

    It may come to again, and then finds that somebody else has had the move since. One that has
    failed, or was told to end, has given the move back, so nobody has it.

    Args:
        partition: where they wait.
        partitions: all, among which is where they are expected.
        log: told of each.
    """
    ways = await hashes.whole(partition.redis, partition.names.moving)
    gone_since = await dead_letters.now(partition) - round(_GONE_SECONDS * 1000) if ways else 0
    for field, way in ways.items():
        lock = re.fullmatch(rb"[0-9a-f]+:(\d+)", ways.get(b"lock:" + field, b""))
        if _STAYS.fullmatch(way.decode(errors="replace")) and (
            not lock or int(lock[1]) < gone_since
        ):
            await _undo_move(partition, partitions, field.decode(), log)


async def _undo_move(
    partition: Partition, partitions: Partitions, organization: str, log: FilteringBoundLogger
) -> None:
    here = Belongings(partition, organization)
    way = _STAYS.fullmatch(await here.way())
    if not way:
        return
    who = (organization, secrets.token_hex(8), round(_GONE_SECONDS * 1000), int(way[1]))
    if (await partition.run(_HALT, *who, "take", 0))[0] != b"halted":
        return
    # Only from here on it can't depart.
    if await here.way() != way[0]:
        await partition.run(_HALT, *who, "leave", 0)
        return
    waits = False
    for there in partitions.all[int(way[1]) :][:1]:
        with suppress(*REDIS_ERRORS):  # the next mover opens it anew
            lock = await Belongings(there, organization).field(there.names.moving, "lock:")
            # Another mover may have opened it, had this one stood still: then it isn't ours here.
            if (await partition.run(_HALT, *who, "keep", 0))[0] != b"halted":
                return
            whose = (organization, lock.partition(":")[0], 0, partition.number)
            waits = (await there.run(_HALT, *whose, "close", 0))[0] == b"halted"
    await partition.run(_HALT, *who, "undo", 0)
    log.warning("move_undone", organization=organization, target=int(way[1]), waits_there=waits)


# Virtual times, which have an end


async def renumber(partition: Partition, *, log: FilteringBoundLogger) -> None:
    """Let virtual times begin anew, once they have come far and little waits."""
    if await partition.run(_RENUMBER, *_ROOM) == b"renumbered":
        log.info("virtual_times_renumbered")
