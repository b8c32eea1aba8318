"""Finds the primary through Sentinel, anew for each connection."""

import asyncio
from typing import Any, Final

from redis.asyncio.sentinel import Sentinel
from redis.exceptions import ReadOnlyError, RedisError

from shared.errors import Problem
from shared.redis.login import sentinel_login
from shared.redis.primary_pool import PrimaryConnection, PrimaryPool, brief_client, closing
from shared.redis.tls import Certificates, certificates
from shared.settings.redis_url import RedisUrl

_NOBODY: Final = "a-primary-that-nobody-has-named"


class NamedConnection(PrimaryConnection):
    """A connection to the primary that a Sentinel names."""

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
            self._is_refused = True
            raise


class SentinelPool(PrimaryPool):
    """A bounded, blocking pool of connections to the primary that Sentinels name.

    Args:
        by: the URL that says who knows where the primary is.
        tls: to them, and to the servers that they name; None: no TLS.
        options: those of ``BlockingConnectionPool``.
    """

    def __init__(self, by: RedisUrl, *, tls: Certificates | None = None, **options: Any) -> None:
        super().__init__(connection_class=NamedConnection, tls=tls, **options)
        sentinels = by.sentinels
        if sentinels is None:
            raise AssertionError("a URL without Sentinels")  # pragma: no cover
        self._service = sentinels.service
        # Empty at first: the clients that it would make itself know nothing of our TLS and bounds.
        self._finder = Sentinel([])
        self._finder.sentinels = [
            brief_client(host, port, credential_provider=sentinel_login(by), tls=tls)
            for host, port in sentinels.hosts
        ]
        # redis-py puts whoever has answered first, by their places of before it asked: two that do
        # so at once would lose a Sentinel.
        self._asking = asyncio.Lock()

    @property
    def place(self) -> str:
        """Where the primary was when it was asked for last, by its service's name."""
        return f"{super().place} ({self._service})" if self._primary else self._service

    async def _find(self) -> tuple[str, int]:
        """Ask one Sentinel after another; the first that knows a primary is the next one's first.

        Raises:
            MasterNotFoundError: none knows one.
        """
        async with self._asking:
            host, port = await self._finder.discover_master(self._service)
        return host, port

    async def aclose(self) -> None:
        """Close every connection, those to the Sentinels too."""
        await super().aclose()
        for sentinel in self._finder.sentinels:
            await sentinel.connection_pool.aclose()


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
    async with closing(brief_client(host, port, tls=tls)) as stranger:
        try:
            await stranger.execute_command("SENTINEL", "SET", _NOBODY, "quorum", 1)
        except (TimeoutError, RedisError, OSError) as exc:
            # Whoever may not is told so before the name is looked up.
            return "No such master" in str(exc)
    return True
