"""Removes the dead letters that nobody acted on in time."""

from datetime import timedelta
from typing import Any, Final

import arq
from arq.cron import CronJob
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from shared import metrics
from worker import dead_letters, revival

EVERY: Final = timedelta(minutes=15)
"""How often a worker looks; one of all workers does."""


async def expire_dead_letters(redis: Redis, *, retention: float) -> int:
    """Remove, with their marks, those that died more than ``retention`` seconds ago; how many.

    One that is being replayed stays until it has ended.
    """
    seconds, microseconds = await redis.time()
    died_before = round((seconds + microseconds / 1e6 - retention) * 1000)
    gone = 0
    for organization in await dead_letters.count(redis):
        gone += await revival.expire(redis, organization, died_before=died_before)
    return gone


def cron_job(redis: Redis, *, retention: float, log: FilteringBoundLogger) -> CronJob:
    """The same as an arq cron job, counted and logged where something went."""

    async def expire(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:  # noqa: ARG001  # arq's
        gone = await expire_dead_letters(redis, retention=retention)
        if gone:
            metrics.DEAD_LETTERS_EXPIRED.inc(gone)
            log.info("dead_letters_expired", number=gone)

    minutes = set(range(0, 60, round(EVERY.total_seconds() / 60)))
    return arq.cron(expire, name="cron:expire_dead_letters", minute=minutes)
