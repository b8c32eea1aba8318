"""Stops an organization's events, and lets them go on."""

from redis.asyncio import Redis

from shared.queue import scripts

_PAUSE = scripts.load("pause")
_RESUME = scripts.load("resume")


async def pause(redis: Redis, organization: str, why: str) -> bool:
    """Let its events wait; whether it wasn't paused before."""
    return bool(await _PAUSE(redis, organization, why))


async def resume(redis: Redis, organization: str) -> bool:
    """Let its events go on, in the order of their acceptance; whether it was paused."""
    return bool(await _RESUME(redis, organization))
