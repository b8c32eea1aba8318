"""Whether Redis holds anything of an organization."""

from typing import Final

from redis.asyncio import Redis

from shared.queue import keys

_FIELDS: Final = (
    (keys.WAITING, ""),
    (keys.RUNNING, ""),
    (keys.FLOWS, ""),
    (keys.ORGANIZATIONS, ""),
    (keys.ORGANIZATIONS, keys.PAUSE),
    (keys.ORGANIZATIONS, keys.BREAKER),
)
"""Hashes, and what stands in front of an organization's id in the fields that tell of it."""


async def has_footprint(redis: Redis, organization: str) -> bool:
    """Whether there is an event, a mark, a value or a dead letter of it, or it has a rule.

    Where nothing else is found it walks over all keys in Redis.
    """
    async with redis.pipeline(transaction=False) as asked:
        for name, prefix in _FIELDS:
            asked.hexists(name, prefix + organization)
        asked.exists(keys.dead(organization), keys.parked(organization))
        if any(await asked.execute()):
            return True
    for start in (keys.state(organization, ""), keys.event(organization, "")):
        async for _ in redis.scan_iter(match=f"{start}*", count=1000):
            return True
    return False
