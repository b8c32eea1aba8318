"""The one place that knows how redis-py behaves: opens, fails, and is left."""

import asyncio
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.crc import key_slot

from shared.errors import Unavailable
from shared.files.background import in_daemon_thread
from shared.redis.cluster import Slot, SlotPool, Slots
from shared.redis.login import login
from shared.redis.primary_pool import UNBLOCKED, PrimaryPool, address
from shared.redis.sentinel import SentinelPool
from shared.redis.tls import TlsConnection, certificates
from shared.redis.wire import mended
from shared.settings.redis_url import RedisUrl

_ONCE_MORE: Final = 0.1


async def end(tasks: Collection["asyncio.Future[Any]"]) -> None:
    """Cancel tasks until they have ended.

    redis-py sends every command by ``asyncio.wait_for``, which in Python 3.11 loses a cancellation
    that comes when the sending is just done; a loop would then go on for ever.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_ONCE_MORE)
    await asyncio.gather(*tasks, return_exceptions=True)


SOCKET_TIMEOUT: Final = 3.0
"""Seconds that a reply may take before the outcome of a command is in doubt."""

_GOODBYE: Final = 0.5
"""Seconds for the end of connections: by TLS each side says goodbye, but one that is frozen."""

REDIS_ERRORS: Final = (exceptions.RedisError, OSError, asyncio.TimeoutError)
"""What a call of the Redis client may raise; ``translate`` knows each."""

_CLUSTER: Final = (
    "redis_cluster",
    "Redis is a node of a cluster: expected redis+cluster://… in REDIS_URL",
)
_CLUSTER_DOWN: Final = ("redis_cluster_down", "no node of the cluster serves this partition")

_READONLY: Final = ("redis_readonly", "Redis is a replica or read-only")

_BY_PREFIX: Final = {
    "READONLY": _READONLY,
    UNBLOCKED: _READONLY,
    "OOM": ("redis_out_of_memory", "Redis has reached its maxmemory"),
    "MISCONF": ("redis_not_persisting", "Redis can't write to its disk"),
    "LOADING": ("redis_loading", "Redis is loading its data"),
    "MASTERDOWN": ("redis_unreachable", "Redis is a replica without its primary"),
    "NOREPLICAS": ("not_replicated", "Redis has too few replicas in reach"),
    "BUSY ": ("redis_busy", "Redis is busy with a script"),
    "NOAUTH": ("redis_refused_login", "Redis asks for a password"),
    "Authentication required": ("redis_refused_login", "Redis asks for a password"),
    "WRONGPASS": ("redis_refused_login", "Redis refuses the user name or password"),
    "This instance has cluster support disabled": (
        "redis_cluster",
        "Redis is no node of a cluster: expected redis://… in REDIS_URL",
    ),
    "No master found": ("redis_no_primary", "no Sentinel in reach names a primary"),
    "NOPERM": ("redis_permission", "the Redis user may not do this"),
    "ACL failure": ("redis_permission", "the Redis user may not do this"),
    "CROSSSLOT": _CLUSTER,
    "MOVED ": _CLUSTER,
    "ASK ": _CLUSTER,
    "CLUSTERDOWN": _CLUSTER,
    "Script attempted to access": _CLUSTER,  # a slot that is elsewhere, or several
}

# Anywhere in the text: OpenSSL's words come wrapped, by redis-py or by what it says of Sentinels.
_BY_TEXT: Final = (
    (
        re.compile("CERTIFICATE_VERIFY_FAILED"),
        ("redis_untrusted", "the certificate of Redis is not trusted, or is for another host"),
    ),
    (
        re.compile(r"SSL: [^]]*ALERT_(\w+_)?(CERTIFICATE|UNKNOWN_CA)"),
        ("redis_refused_certificate", "Redis asks for a certificate of ours that it trusts"),
    ),
    (
        re.compile(r"No master found .*AuthenticationError\(", re.DOTALL),
        ("redis_refused_login", "a Sentinel refuses the user name or password"),
    ),
)

# Before the text: redis-py puts its own words in front of that of a command in a pipeline.
_OF_CLUSTER: Final = (
    (exceptions.ClusterDownError, _CLUSTER_DOWN),
    (
        exceptions.TryAgainError,
        ("redis_partition_moving", "this partition is moving from one node to another"),
    ),
)

# redis-py takes the code word off the errors that it has a class for. Subclasses stand first.
_BY_KIND: Final = (
    ((exceptions.ReadOnlyError,), _READONLY),
    ((exceptions.OutOfMemoryError,), _BY_PREFIX["OOM"]),
    ((exceptions.BusyLoadingError,), _BY_PREFIX["LOADING"]),
    ((exceptions.AuthenticationError,), _BY_PREFIX["WRONGPASS"]),
    ((exceptions.NoPermissionError,), _BY_PREFIX["NOPERM"]),
    ((exceptions.TimeoutError, TimeoutError), ("redis_timeout", "Redis did not answer in time")),
    ((exceptions.ConnectionError, OSError), ("redis_unreachable", "no connection to Redis")),
)


@asynccontextmanager
async def open_redis(
    url: RedisUrl,
    *,
    connections: int = 4,
    socket_timeout: float = SOCKET_TIMEOUT,
    slot: Slot | None = None,
) -> AsyncIterator[Redis]:
    """Open a bounded pool of connections; nothing is sent until the first command.

    Args:
        url: where Redis is.
        connections: how many at most; who finds none free waits for one.
        socket_timeout: seconds to connect, and to wait for a reply.
        slot: of a cluster, whose owner is meant.

    Raises:
        SettingsError: a certificate that the URL names is not there, or is none.
    """
    pool = connection_pool(url, connections=connections, socket_timeout=socket_timeout, slot=slot)
    redis = Redis(connection_pool=pool)
    try:
        yield redis
    finally:
        await redis.aclose()
        # redis-py doesn't close a pool that it was given.
        await close(pool)


async def close(pool: ConnectionPool) -> None:
    """Close all connections of a pool, whatever the other side says to that."""
    with suppress(*REDIS_ERRORS):
        async with asyncio.timeout(_GOODBYE):
            await pool.aclose()


async def look_up(urls: Iterable[RedisUrl]) -> None:
    """Wait until it is known where these are, for whoever is about to end.

    A client's own look-up would keep the process from that, however long a name server takes; what
    has an answer has it soon again. That some aren't known is for the client to tell, which may
    need only one of them.
    """

    def ask() -> None:
        for host in {host for url in urls for host in url.hosts}:
            with suppress(OSError):
                socket.getaddrinfo(host, None)

    await in_daemon_thread(ask)


def connection_pool(
    url: RedisUrl,
    *,
    connections: int,
    socket_timeout: float = SOCKET_TIMEOUT,
    slot: Slot | None = None,
) -> BlockingConnectionPool:
    """A bounded, blocking pool with socket time-outs and TCP keep-alive.

    Args:
        url: where Redis is.
        connections: how many at most.
        socket_timeout: seconds to connect, to wait for a reply, and for a free connection.
        slot: of a cluster, whose owner is meant; None: the first one.

    Raises:
        SettingsError: a certificate that the URL names is not there, or is none.
    """
    options: dict[str, Any] = {
        "max_connections": connections,
        "timeout": socket_timeout,
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": socket_timeout,
        "credential_provider": login(url),
    }
    if not url.is_unix_socket:
        # A socket in the file system has no TCP under it.
        options["socket_keepalive"] = True
    tls = None if url.tls is None else certificates(url.tls)
    pool: BlockingConnectionPool
    if url.nodes is not None:
        options |= {"slot": slot or Slot(slots_of(url), 0), "tls": tls}
        pool = SlotPool.from_url(url.server, **options)
    elif url.sentinels is not None:
        options |= {"by": url, "tls": tls}
        pool = SentinelPool.from_url(url.server, **options)
    else:
        if tls is not None:
            options |= {"connection_class": TlsConnection, "tls": tls}
        pool = BlockingConnectionPool.from_url(url.server, **options)
    pool.connection_class = mended(pool.connection_class)
    return pool


def slots_of(url: RedisUrl) -> Slots:
    """Who has which slot of the cluster that a URL names.

    Raises:
        SettingsError: a certificate that the URL names is not there, or is none.
    """
    tls = None if url.tls is None else certificates(url.tls)
    return Slots(url.nodes or (), tls=tls, login=login(url))


def slot_of(slots: Slots, tag: str) -> Slot:
    """That of all names that bear a tag."""
    return Slot(slots, key_slot(tag.encode()))


def server_of(redis: Redis) -> str:
    """Where a client's server is, for people: host and port, or its socket; never a password."""
    pool = redis.connection_pool
    if isinstance(pool, PrimaryPool):
        return pool.place
    options = pool.connection_kwargs
    if path := options.get("path"):
        return str(path)
    return address(str(options.get("host", "localhost")), options.get("port", 6379))


def translate(exc: BaseException) -> Unavailable:
    """Say in this project's words why Redis did not do what it was asked."""
    if isinstance(exc, Unavailable):
        return exc
    for kind, (code, message) in _OF_CLUSTER:
        if isinstance(exc, kind):
            return Unavailable(code, message)
    # The text before the class: redis-py has one class for errors that mean different things.
    text = str(exc)
    for pattern, (code, message) in _BY_TEXT:
        if pattern.search(text):
            return Unavailable(code, message)
    for prefix, (code, message) in _BY_PREFIX.items():
        if text.startswith(prefix):
            return Unavailable(code, message)
    for kinds, (code, message) in _BY_KIND:
        if isinstance(exc, kinds):
            return Unavailable(code, message + _why(exc))
    return Unavailable("redis_error", f"Redis answered {type(exc).__name__}")


def _why(exc: BaseException) -> str:
    """What the system said, in its fixed words: which host it was about stays out."""
    cause = exc if isinstance(exc, OSError) else exc.__context__
    if isinstance(cause, socket.gaierror):
        return ": its host's name has no address"
    if isinstance(cause, ssl.SSLError):
        return ": TLS failed"
    if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
        return f": {os.strerror(cause.errno).lower()}"
    return ""
