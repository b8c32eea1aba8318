"""Finds the primary through Sentinel, anew for each connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import ReadOnlyError, RedisError

from shared.errors import Problem
from shared.redis.tls import Certificates, TlsConnection, certificates
from shared.settings.redis_url import RedisUrl, Sentinels

_ANSWER_SECONDS: Final = 1
"""How long one Sentinel may take; the next one is asked then."""

_NOBODY: Final = "a-primary-that-nobody-has-named"


class PrimaryConnection(TlsConnection):
    """A connection to whichever server is the primary when it connects.

    Args:
        pool: knows the Sentinels.
        options: those of ``TlsConnection``.
    """

    def __init__(self, *, pool: "SentinelPool", **options: Any) -> None:
        super().__init__(**options)
        self._pool = pool
        self.is_outdated = False

    async def _connect(self) -> None:
        self.is_outdated = False
        self.host, self.port = await self._pool.primary()
        await super()._connect()  # type: ignore[no-untyped-call]  # redis-py left it out

    async def on_connect(self) -> None:
        """Log in, and make sure that the Sentinel's word is still true, as its manual asks for."""
        await super().on_connect()
        await self.send_command("ROLE")
        role, *_ = await self.read_response()
        if role not in {b"master", "master"}:
            raise ReadOnlyError("the Sentinels' primary is a replica")

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply; one that only a replica gives ends the connection's use."""
        try:
            return await super().read_response(*args, **options)
        except ReadOnlyError:
            self.is_outdated = True
            raise


class SentinelPool(BlockingConnectionPool):
    """A bounded, blocking pool of connections to the primary.

    A fail-over needs nothing of its users: what is in flight fails as it does when Redis goes
    away, and the connections made after that are to the new primary.

    Args:
        sentinels: who knows where the primary is.
        tls: to them, and to the servers that they name; None: no TLS.
        options: those of ``BlockingConnectionPool``.
    """

    def __init__(
        self, sentinels: Sentinels, *, tls: Certificates | None = None, **options: Any
    ) -> None:
        super().__init__(connection_class=PrimaryConnection, pool=self, tls=tls, **options)
        self._service = sentinels.service
        # Empty at first: the clients that it would make itself know nothing of our TLS and bounds.
        self._finder = Sentinel([])
        self._finder.sentinels = [
            _client(host, port, username=sentinels.username, password=sentinels.password, tls=tls)
            for host, port in sentinels.hosts
        ]
        # redis-py puts whoever has answered first, by their places of before it asked: two that do
        # so at once would lose a Sentinel.
        self._asking = asyncio.Lock()
        # To notice a fail-over though no connection has failed.
        self._primary: tuple[str, int] | None = None

    @property
    def place(self) -> str:
        """Where the primary was when it was asked for last, by its service's name."""
        host, port = self._primary or ("?", 0)
        return f"{host}:{port} ({self._service})" if port else self._service

    async def primary(self) -> tuple[str, int]:
        """Ask one Sentinel after another; the first that knows a primary is the next one's first.

        Raises:
            MasterNotFoundError: none knows one.
        """
        async with self._asking:
            host, port = await self._finder.discover_master(self._service)
        if self._primary not in {None, (host, port)}:
            await self.disconnect(inuse_connections=False)  # those that are idle know the old one
        self._primary = (host, port)
        return host, port

    @asynccontextmanager
    async def replica(self, host: str, port: int) -> AsyncIterator[Redis]:
        """A client of one of the primary's replicas, as the user that we are at the primary."""
        who = {name: self.connection_kwargs.get(name) for name in ("username", "password", "tls")}
        async with _closing(_client(host, port, **who)) as redis:
            yield redis

    async def release(self, connection: AbstractConnection) -> None:
        """Take a connection back; one to a server that is no primary any more is closed."""
        if isinstance(connection, PrimaryConnection) and connection.is_outdated:
            await connection.disconnect()
        await super().release(connection)

    async def aclose(self) -> None:
        """Close every connection, those to the Sentinels too."""
        await super().aclose()
        for sentinel in self._finder.sentinels:
            await sentinel.connection_pool.aclose()


def _client(host: str, port: int, **options: Any) -> Redis:
    """A client with one connection, for questions that are answered soon or not at all."""
    pool = BlockingConnectionPool(
        connection_class=TlsConnection,
        max_connections=1,
        timeout=_ANSWER_SECONDS,
        host=host,
        port=port,
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_ANSWER_SECONDS,
        **options,
    )
    return Redis(connection_pool=pool)


@asynccontextmanager
async def _closing(redis: Redis) -> AsyncIterator[Redis]:
    try:
        yield redis
    finally:
        await redis.connection_pool.aclose()  # redis-py doesn't close a pool that it was given


async def check_sentinels(url: RedisUrl) -> list[Problem]:
    """What is wrong with the Sentinels that a URL names, as far as they can be reached.

    Raises:
        SettingsError: a certificate that the URL names is not there, or is none.
    """
    if url.sentinels is None:
        return []
    tls = None if url.tls is None else certificates(url.tls)
    hosts = url.sentinels.hosts
    are_open = await asyncio.gather(*(_is_open(host, port, tls) for host, port in hosts))
    found = [
        f"{host}:{port}" for (host, port), is_open in zip(hosts, are_open, strict=True) if is_open
    ]
    if not found:
        return []
    got = "one that lets anybody name another primary, which is sent our password then"
    expected = "one that asks for a password"
    message = f"Sentinel {', '.join(found)}: expected {expected}, got {got}"
    return [Problem("sentinel_open", message)]


async def _is_open(host: str, port: int, tls: Certificates | None) -> bool:
    """Whether a stranger may change what a Sentinel says; asked so that nothing changes."""
    async with _closing(_client(host, port, tls=tls)) as stranger:
        try:
            await stranger.execute_command("SENTINEL", "SET", _NOBODY, "quorum", 1)
        except (TimeoutError, RedisError, OSError) as exc:
            # Whoever may not is told so before the name is looked up.
            return "No such master" in str(exc)
    return True
