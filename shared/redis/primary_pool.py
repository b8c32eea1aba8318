"""Connections to whichever server is the primary when they are made."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ReadOnlyError, ResponseError

from shared.redis.tls import Certificates, TlsConnection

ANSWER_SECONDS: Final = 1
"""How long one of those may take that know where the primary is; the next one is asked then."""

UNBLOCKED: Final = "UNBLOCKED"
"""How a primary answers whoever waits for replicas, or in a list, as it becomes a replica."""


class PrimaryConnection(TlsConnection):
    """A connection to whichever server is the primary when it connects.

    Args:
        pool: knows where that is.
        options: those of ``TlsConnection``.
    """

    def __init__(self, *, pool: "PrimaryPool", **options: Any) -> None:
        super().__init__(**options)
        self._pool = pool
        self._is_refused = False

    @property
    def is_outdated(self) -> bool:
        """Whether it is to be used no more; so is one to what another has learned is no primary."""
        return self._is_refused or self._pool.has_left(self.host, self.port)

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply; who waited when this became a replica is told that, as by any replica."""
        try:
            return await super().read_response(*args, **options)
        except ResponseError as exc:
            if str(exc).startswith(UNBLOCKED):
                raise ReadOnlyError(str(exc)) from None
            raise

    async def _connect(self) -> None:
        self._is_refused = False
        self.host, self.port = await self._pool.primary()
        await super()._connect()  # type: ignore[no-untyped-call]  # redis-py left it out


class PrimaryPool(BlockingConnectionPool):
    """A bounded, blocking pool of connections to the primary.

    A fail-over needs nothing of its users: what is in flight fails as it does when Redis goes
    away, and the connections made after that are to the new primary.

    Args:
        tls: to all servers; None: no TLS.
        options: those of ``BlockingConnectionPool``.
    """

    def __init__(self, *, tls: Certificates | None = None, **options: Any) -> None:
        super().__init__(pool=self, tls=tls, **options)
        # To notice a fail-over though no connection has failed.
        self._primary: tuple[str, int] | None = None

    @property
    def place(self) -> str:
        """Where the primary was when it was asked for last."""
        return address(*self._primary) if self._primary else "?"

    def has_left(self, host: str, port: int) -> bool:
        """Whether a server is known not to be the primary any more."""
        return self._primary is not None and self._primary != (host, port)

    async def primary(self) -> tuple[str, int]:
        """Find out where it is."""
        found = await self._find()
        if self._primary not in {None, found}:
            # Those that are idle know the old one, which may be frozen: none waits for its goodbye.
            for idle in tuple(self._available_connections):
                await idle.disconnect(nowait=True)
        self._primary = found
        return found

    async def _find(self) -> tuple[str, int]:
        raise NotImplementedError

    @asynccontextmanager
    async def replica(self, host: str, port: int) -> AsyncIterator[Redis]:
        """A client of one of the primary's replicas, as the user that we are at the primary."""
        who = {name: self.connection_kwargs.get(name) for name in ("credential_provider", "tls")}
        async with closing(brief_client(host, port, **who)) as redis:
            yield redis

    async def release(self, connection: AbstractConnection) -> None:
        """Take a connection back; one to a server that is no primary any more is closed."""
        if isinstance(connection, PrimaryConnection) and connection.is_outdated:
            await connection.disconnect(nowait=True)
        await super().release(connection)


def address(host: str, port: int) -> str:
    """Host and port, as they stand in a URL."""
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def brief_client(host: str, port: int, **options: Any) -> Redis:
    """A client with one connection, for questions that are answered soon or not at all."""
    pool = BlockingConnectionPool(
        connection_class=TlsConnection,
        max_connections=1,
        timeout=ANSWER_SECONDS,
        host=host,
        port=port,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        **options,
    )
    return Redis(connection_pool=pool)


@asynccontextmanager
async def closing(redis: Redis) -> AsyncIterator[Redis]:
    """Close a client and its pool behind the block."""
    try:
        yield redis
    finally:
        await redis.connection_pool.aclose()  # redis-py doesn't close a pool that it was given
