"""Puts accepted events back that have lost their place in the queue."""

import asyncio
from datetime import timedelta
from typing import Any, Final

import arq
from arq.cron import CronJob
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from shared import metrics, scripts

_RESTORE = scripts.load("restore")

EVERY: Final = timedelta(minutes=5)
"""How often a worker looks; one of all workers does."""

_LOOKED_AT_ONCE: Final = 200
_PAUSE: Final = 0.005
"""Seconds between two looks: others need Redis, too. A million events take half a minute."""

_LONGEST: Final = timedelta(minutes=4)
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


def cron_job(redis: Redis, *, lease: float, log: FilteringBoundLogger) -> CronJob:
    """The same as an arq cron job, counted and logged where something was amiss."""

    async def look(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:  # noqa: ARG001  # arq's
        restored = await restore(redis, lease=lease)
        if restored:
            metrics.PLACES_RESTORED.inc(len(restored))
            log.error("places_restored", number=len(restored), some=restored[:_MOST_NAMED])

    minutes = set(range(0, 60, round(EVERY.total_seconds() / 60)))
    # Not in the second in which dead letters expire.
    return arq.cron(look, name="cron:restore_places", minute=minutes, second=30, timeout=_LONGEST)
