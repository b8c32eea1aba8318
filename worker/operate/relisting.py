"""Puts the lists of dead letters right, since an earlier version keeps none."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue import hashes, scripts
from shared.queue.partition import Partition
from worker.grouping import CAUSE_FIELDS, cause_in
from worker.operate.dead_letters import REASONS, now, raw_name
from worker.operate.dead_lists import count, kinds, listed

LISTS: Final = "lists_letters"
"""What a worker says of itself that lists the letters that it writes."""

_INDEX: Final = scripts.load("index")

_GOOD_MILLISECONDS: Final = 86_400_000
"""For how long lists are good in which there are as many as there should be."""

_SAID: Final = f'"{LISTS}":true'.encode()
_LISTED_AT_ONCE: Final = 100  # of tracebacks, a megabyte at the most
_SWEPT_AT_ONCE: Final = 500
_PAUSE: Final = 0.005


async def relist(partition: Partition, *, log: FilteringBoundLogger) -> None:
    """See that all letters are found in lists, and nothing else, unless that is known.

    While any worker of an earlier version lives nobody trusts the lists. What is done is done:
    whoever stops in the midst, another goes on.

    Args:
        partition: where they are.
        log: told how many weren't listed.
    """
    is_mixed, name = await _has_older_workers(partition), partition.names.dead_listed
    if is_mixed:
        await partition.redis.delete(name)
    elif await _are_good(partition):
        return
    number = 0
    async for jobs in _jobs(partition):
        number += await _list(partition, jobs)
        await asyncio.sleep(_PAUSE)
    await _sweep(partition)
    if not is_mixed:
        await partition.redis.set(name, await now(partition))
    if number:
        log.info("dead_letters_listed", number=number)


async def _has_older_workers(partition: Partition) -> bool:
    workers = await hashes.whole(partition.redis, partition.names.workers)
    return not all(_SAID in said for said in workers.values())


async def _are_good(partition: Partition) -> bool:
    since = await partition.redis.get(partition.names.dead_listed)
    if since is None or await now(partition) - int(since) > _GOOD_MILLISECONDS:
        return False
    # One may be buried between the two looks; then the lists are looked at for nothing.
    there = sum((await count(partition)).values())
    return there == sum((await kinds(partition)).values())


async def _jobs(partition: Partition) -> AsyncIterator[list[str]]:
    """Those of all letters, so many at a time: most organizations have few."""
    jobs: list[str] = []
    for organization in await count(partition):
        async for places in listed(partition, partition.names.dead(organization)):
            jobs += [job for job, _ in places]
            while len(jobs) >= _LISTED_AT_ONCE:
                yield jobs[:_LISTED_AT_ONCE]
                del jobs[:_LISTED_AT_ONCE]
    if jobs:
        yield jobs


async def _list(partition: Partition, jobs: Sequence[str]) -> int:
    """List those of these that aren't; how many these were."""
    missing = await partition.run(_INDEX, "look", *map(raw_name, jobs))
    if not missing:
        return 0
    record = partition.names.dead_letter_prefix.encode()
    async with partition.redis.pipeline(transaction=False) as pipe:
        for job in missing:
            pipe.execute_command("HMGET", record + job, *CAUSE_FIELDS)
        causes = [cause_in(raw) for raw in await pipe.execute()]
    told = [each for job, cause in zip(missing, causes, strict=True) for each in (job, *cause)]
    return int(await partition.run(_INDEX, "list", *told))


async def _sweep(partition: Partition) -> None:
    """Take out of all lists what isn't there any more."""
    for reason in REASONS:
        await _sweep_groups(partition, reason)
    for kind in await kinds(partition):
        await _sweep_one(partition, "sweep kind", kind)


async def _sweep_groups(partition: Partition, reason: str) -> None:
    few, number = list[str](), 0
    async for page in hashes.members(partition.redis, partition.names.dead_groups(reason), "*"):
        for name, size in page:
            organization, _, key = name.decode().rpartition(":")
            if size > _SWEPT_AT_ONCE:
                await _sweep_one(partition, "sweep group", reason, organization, key)
                continue
            few += (organization, key)
            number += round(size)
            if number > _SWEPT_AT_ONCE:
                await partition.run(_INDEX, "sweep groups", reason, *few)
                await asyncio.sleep(_PAUSE)
                few, number = [], 0
    if few:
        await partition.run(_INDEX, "sweep groups", reason, *few)


async def _sweep_one(partition: Partition, *what: str) -> None:
    cursor = b"0"
    while True:
        cursor = await partition.run(_INDEX, *what, cursor, _SWEPT_AT_ONCE)
        if cursor == b"0":
            return
        await asyncio.sleep(_PAUSE)
