"""Removes the dead letters that nobody acted on in time."""

from redis.asyncio import Redis

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from worker.operate import dead_letters, revival


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


async def expire(redis: Redis, *, retention: float, log: FilteringBoundLogger) -> None:
    """The same, counted and logged where something went."""
    gone = await expire_dead_letters(redis, retention=retention)
    if gone:
        metrics.DEAD_LETTERS_EXPIRED.inc(gone)
        log.info("dead_letters_expired", number=gone)
