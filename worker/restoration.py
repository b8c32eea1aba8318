"""Puts accepted events back that have lost their place in the queue."""

import asyncio
from typing import Final

from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from shared import metrics, scripts

_RESTORE = scripts.load("restore")

_LOOKED_AT_ONCE: Final = 200
_PAUSE: Final = 0.005
"""Seconds between two looks: others need Redis, too. A million events take half a minute."""

_MOST_NAMED: Final = 10


async def restore(redis: Redis, *, lease: float) -> list[str]:
    """Look at every accepted event once; the jobs that had no place and have one now.

    Args:
        redis: where they are.
        lease: seconds after which one that a worker may hold still is due.
    """
    cursor, restored = b"0", list[str]()
    while True:
        cursor, *jobs = await _RESTORE(redis, cursor, _LOOKED_AT_ONCE, round(lease * 1000))
        restored += [job.decode(errors="replace") for job in jobs]
        if cursor == b"0":
            return restored
        await asyncio.sleep(_PAUSE)


async def look(redis: Redis, *, lease: float, log: FilteringBoundLogger) -> None:
    """The same, counted and logged where something was amiss."""
    restored = await restore(redis, lease=lease)
    if restored:
        metrics.PLACES_RESTORED.inc(len(restored))
        log.error("places_restored", number=len(restored), some=restored[:_MOST_NAMED])
