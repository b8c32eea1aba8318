"""A stage on one primary with a replica, behind a proxy that can cut connections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.chaos.proxy import Proxy
from tests.chaos.sender import FEW
from tests.chaos.stage import Stage

_PATIENCE: Final = 30.0


class SingleStage(Stage):
    """One primary and its replica.

    Args:
        folder: for logs, data and what the handlers write.
        durability: ``fsync`` or ``replica``.
        say: tells of what must not happen.
    """

    def __init__(self, folder: Path, durability: str, say: Callable[[str], None]) -> None:
        super().__init__(folder, durability, say, FEW)
        self.primary = self._server("redis-1")
        self.replica = self.primary
        self.proxy = Proxy(0)
        self._servers = 1

    @contextlib.asynccontextmanager
    async def storing(self) -> AsyncIterator[None]:
        """Start both, and the proxy."""
        try:
            await self.do(self.primary.start)
            await self.new_replica()
            self.proxy.upstream = self.primary.port
            async with self.proxy.listening():
                yield
        finally:
            self.primary.kill()
            self.replica.kill()

    def settings(self) -> dict[str, str]:
        """All goes through the proxy."""
        return {"REDIS_URL": f"redis://127.0.0.1:{self.proxy.port}/0"}

    @contextlib.asynccontextmanager
    async def primaries(self) -> AsyncIterator[list[Redis]]:
        """The only one."""
        async with self.redis() as redis:
            yield [redis]

    async def has_more(self) -> bool:
        """Whether anything is."""
        async with self.redis() as redis:
            return bool(await redis.zcard("sellfern:accepted"))

    @contextlib.asynccontextmanager
    async def redis(self) -> AsyncIterator[Redis]:
        """A client of the primary, past the proxy."""
        async with Redis(host="127.0.0.1", port=self.primary.port, socket_timeout=10) as client:
            yield client

    async def start_primary(self) -> None:
        """Start the primary on its files again; one that was promoted begins as a replica."""
        await self.do(self.primary.start)
        await self.promote()

    async def promote(self) -> None:
        """Let the primary follow nobody."""
        async with self.redis() as redis:
            await redis.execute_command("REPLICAOF", "NO", "ONE")

    async def new_replica(self) -> None:
        """Start another replica of the primary; returns once it follows."""
        self._servers += 1
        self.replica = self._server(
            f"redis-{self._servers}", replicaof=("127.0.0.1", self.primary.port)
        )
        await self.do(self.replica.start)
        await self.replica_follows()

    async def replica_follows(self) -> None:
        """Wait until the replica has all that the primary has."""
        async with asyncio.timeout(_PATIENCE), self.redis() as redis:
            while not await redis.wait(1, 100):
                await asyncio.sleep(0.05)

    def _server(self, name: str, replicaof: tuple[str, int] | None = None) -> EmbeddedRedis:
        folder = self.folder / name
        folder.mkdir()
        return EmbeddedRedis(
            appendfsync="always",
            folder=folder,
            replicaof=replicaof,
            arguments={"repl-timeout": "5", "auto-aof-rewrite-percentage": "0"},
        )
