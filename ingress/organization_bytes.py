"""How much of Redis one organization may hold, by what Redis says of its memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from redis.asyncio import Redis

from shared.endpoints.endpoint import CurrentEndpoints
from shared.queue.held_bytes import RedisMemory
from shared.queue.writer import BytesLimits
from shared.redis.connection import REDIS_ERRORS, end

SHARE: Final = 4
"""Left alone, an organization may hold this part of ``maxmemory``: one in so many."""

_NEARLY_FULL: Final = 0.75
_LOOK_SECONDS: Final = 1.0


class OrganizationBytes:
    """What a batch is held against.

    One organization by itself has nobody to take memory from: without a setting it has no limit.

    Above three quarters of ``maxmemory`` nobody may hold more than is still free. So whoever holds
    most is refused first, and the fuller Redis is, the more are; one that holds little isn't before
    Redis itself refuses all.

    Args:
        setting: ``MAX_ORGANIZATION_BYTES``; 0 is no limit, ``None`` a share of Redis.
        endpoints: knows whose are served now.
    """

    def __init__(self, setting: int | None, endpoints: CurrentEndpoints) -> None:
        self._setting = setting
        self._endpoints = endpoints
        self._memory = RedisMemory()
        # The writer reads them for every batch; what they follow from changes once a second.
        self.limits = BytesLimits()
        """As they were at the last look."""
        self._judge()

    def limit_of(self, organization: str) -> int:
        """What one may hold; 0: no limit."""
        profile = self._endpoints.current.organizations.get(organization)
        own = profile.max_bytes if profile else None
        return self.limits.organization if own is None else own

    def lacks_maxmemory(self) -> bool:
        """Whether there is nothing to have a share of, where organizations should have one."""
        return self._setting is None and self._is_shared() and not self._memory.limit

    async def look(self, redis: Redis) -> None:
        """Ask Redis for its memory; where it can't be asked, what it said last holds."""
        with contextlib.suppress(*REDIS_ERRORS):
            self._memory = RedisMemory.of(await redis.info("memory"))
        self._judge()

    @contextlib.asynccontextmanager
    async def watching(self, redis: Redis) -> AsyncIterator[None]:
        """Ask again and again."""
        task = asyncio.create_task(self._watch(redis))
        try:
            yield
        finally:
            await end([task])

    async def _watch(self, redis: Redis) -> None:
        while True:
            await self.look(redis)
            await asyncio.sleep(_LOOK_SECONDS)

    def _is_shared(self) -> bool:
        return self._setting is not None or len(self._endpoints.current.organizations) > 1

    def _judge(self) -> None:
        used, limit = self._memory.used, self._memory.limit
        share = limit // SHARE if self._is_shared() else 0
        self.limits.organization = share if self._setting is None else self._setting
        # Without a maxmemory there is nothing to be near.
        is_nearly_full = used > _NEARLY_FULL * limit > 0
        self.limits.at_most = max(0, limit - used) if is_nearly_full and self._is_shared() else None
