"""Puts accepted events back that have lost their place in the queue."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from redis.asyncio import Redis

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue import scripts

_RESTORE = scripts.load("restore")

_LOOKED_AT_ONCE: Final = 200
_PAUSE: Final = 0.005
"""Seconds between two looks: others need Redis, too. A million events take half a minute."""

_MOST_NAMED: Final = 10


async def restore(redis: Redis, *, lease: float) -> AsyncGenerator[str, None]:
    """The jobs that had no place and have one now, from every accepted one that is looked at.

    It begins where the last one stopped, whichever worker that was, and ends at the end of all: who
    never has the time for all of them in one go sees each in turn.

    Args:
        redis: where they are.
        lease: seconds after which one that a worker may hold still is due.
    """
    cursor = b""
    while cursor != b"0":
        cursor, *jobs = await _RESTORE(redis, _LOOKED_AT_ONCE, round(lease * 1000))
        for job in jobs:
            yield job.decode(errors="replace")
        await asyncio.sleep(_PAUSE)


async def look(redis: Redis, *, lease: float, log: FilteringBoundLogger) -> None:
    """The same, counted and logged where something was amiss, also where it is cut short."""
    number, some = 0, list[str]()
    try:
        async for job in restore(redis, lease=lease):
            number += 1
            if number <= _MOST_NAMED:
                some.append(job)
    finally:
        if number:
            metrics.PLACES_RESTORED.inc(number)
            log.error("places_restored", number=number, some=some)
