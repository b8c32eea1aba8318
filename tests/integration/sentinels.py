"""A primary with its replicas, and Sentinels that watch them, as processes."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis

SERVICE = "mymaster"
PATIENCE = 60.0

_SETTINGS = """\
sentinel resolve-hostnames yes
sentinel monitor {service} {host} {port} {quorum}
sentinel down-after-milliseconds {service} 500
sentinel failover-timeout {service} 2000
sentinel parallel-syncs {service} 1
"""

# What Sentinel looks at every ten seconds, and tells every two, would make each test as long.
IMPATIENT = ("SENTINEL DEBUG", "info-period", 200, "publish-period", 200, "ask-period", 200)
"""What to tell a Sentinel for that."""


class EmbeddedSentinel(EmbeddedRedis):
    """A Sentinel on 127.0.0.1, which rewrites its configuration file as it learns.

    Args:
        settings: the lines of that file.
        options: those of `EmbeddedRedis`.
    """

    def __init__(self, settings: str, **options: Any) -> None:
        super().__init__(appendfsync=None, **options)
        self._lines = settings

    def _words(self, port: int) -> list[str]:
        file = self.folder / "sentinel.conf"
        if not file.exists():
            file.write_text(f"port {port}\nbind 127.0.0.1\nlogfile redis.log\n{self._lines}")
        return [str(file), "--sentinel"]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Servers of which one is the primary, and who says which.

    Attributes:
        servers: all; the first one was the primary when they started.
        sentinels: who watches them.
    """

    servers: Sequence[EmbeddedRedis]
    sentinels: Sequence[EmbeddedSentinel]

    @property
    def hosts(self) -> str:
        """The Sentinels, as they stand in a URL."""
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis+sentinel://{self.hosts}/{SERVICE}/0"

    async def primary(self) -> EmbeddedRedis:
        """The server that the first Sentinel names."""
        async with Redis(port=self.sentinels[0].port) as sentinel:
            _, port = await sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    async def until_watched(self) -> None:
        """Wait until every Sentinel knows the others and every replica; before, none fails over."""
        for sentinel in self.sentinels:
            async with asyncio.timeout(PATIENCE), Redis(port=sentinel.port) as asked:
                await asked.execute_command(*IMPATIENT)
                while not await self._knows_all(asked):
                    await asyncio.sleep(0.02)

    async def until_settled(self) -> None:
        """Wait until every Sentinel finds the primary well, and every other server follows it.

        After a fail-over that takes as long as their pings; on a machine that others have, too.
        """
        async with asyncio.timeout(PATIENCE):
            while not await self._is_settled():
                await asyncio.sleep(0.02)

    async def _is_settled(self) -> bool:
        primary = await self.primary()
        for sentinel in self.sentinels:
            async with Redis(port=sentinel.port) as asked:
                known = (await asked.sentinel_masters()).get(SERVICE, {})
            if known.get("flags") != "master" or known.get("port") != primary.port:
                return False
        others = [server for server in self.servers if server is not primary]
        return all([await self._follows(server, primary) for server in others])

    async def _follows(self, server: EmbeddedRedis, primary: EmbeddedRedis) -> bool:
        async with Redis(port=server.port) as asked:
            role, *where = await asked.role()
        return bool(role == b"slave" and where[1:3] == [primary.port, b"connected"])

    async def _knows_all(self, sentinel: Redis) -> bool:
        known = (await sentinel.sentinel_masters()).get(SERVICE, {})
        return bool(
            known.get("num-slaves") == len(self.servers) - 1
            and known.get("num-other-sentinels") == len(self.sentinels) - 1
        )


@contextmanager
def fleet(
    *,
    replicas: int = 1,
    sentinels: int = 3,
    arguments: Mapping[str, str] | None = None,
    settings: str = "",
    **options: Any,
) -> Iterator[Fleet]:
    """Start them; they end with the block.

    Args:
        replicas: how many.
        sentinels: how many.
        arguments: settings of the servers.
        settings: further lines of the Sentinels' files.
        options: those of `EmbeddedRedis`, for all of them.
    """
    with ExitStack() as running:

        def start(make: Callable[[], EmbeddedRedis]) -> EmbeddedRedis:
            return running.enter_context(make())

        common = {"arguments": arguments or {}, **options}
        primary = start(lambda: EmbeddedRedis(appendfsync="always", **common))
        where = ("127.0.0.1", primary.port)
        others = [
            start(lambda: EmbeddedRedis(appendfsync="always", replicaof=where, **common))
            for _ in range(replicas)
        ]
        lines = settings + _SETTINGS.format(
            service=SERVICE, host=where[0], port=where[1], quorum=sentinels // 2 + 1
        )
        watching = [
            running.enter_context(EmbeddedSentinel(lines, **options)) for _ in range(sentinels)
        ]
        yield Fleet([primary, *others], watching)
