"""How sure Redis must be of an event before it counts as accepted."""

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from redis import exceptions
from redis.asyncio import Redis

from shared.errors import Problem
from shared.redis.connection import REDIS_ERRORS, translate

OLDEST_REDIS: Final = (7, 0)
"""Scripts with flags exist since Redis 7.0 (Redis manual, "Eval scripts introduction")."""

_WAITAOF_SINCE: Final = (7, 2)


class Mode(enum.Enum):
    """What ``DURABILITY`` may say."""

    FSYNC = "fsync"
    """On the primary's disk: an append-only file that is synced before the answer."""
    REPLICA = "replica"
    """In the memory of as many replicas as ``WAIT_REPLICAS`` says."""
    MEMORY = "memory"
    """In the primary's memory only: a crash of Redis loses what was accepted."""


@dataclass(frozen=True, slots=True)
class Durability:
    """What the writer waits for after each batch.

    Attributes:
        mode: what ``DURABILITY`` says.
        replicas: how many replicas must have it, for ``replica``.
        timeout: seconds to wait for the disk or the replicas.
        asserted: the operator vouches for ``appendfsync always`` where it can't be read
            (``DURABILITY_ASSERTED``).
    """

    mode: Mode = Mode.FSYNC
    replicas: int = 1
    timeout: float = 2.0
    asserted: bool = False


@dataclass(frozen=True, slots=True)
class _Server:
    version: tuple[int, int]
    loading: bool
    aof_enabled: bool
    replicas: int
    role: str
    is_cluster: bool
    writes: bool
    eviction: str
    appendfsync: str | None


async def without_needless_wait(redis: Redis, durability: Durability) -> Durability:
    """The same durability for a Redis that is older than ``WAITAOF`` and syncs always."""
    if durability.mode is not Mode.FSYNC:
        return durability
    try:
        server = await _look_at(redis)
    except REDIS_ERRORS:
        return durability
    # Its own reply comes after the sync then, and it would call WAITAOF an unknown command.
    if server.version < _WAITAOF_SINCE and server.appendfsync == "always":
        return replace(durability, asserted=True)
    return durability


async def check_server(redis: Redis) -> list[Problem]:
    """What keeps this Redis from being worked with at all."""
    try:
        return list(_common_problems(await _look_at(redis)))
    except REDIS_ERRORS as exc:
        return [_problem(exc)]


async def check_durability(redis: Redis, durability: Durability) -> list[Problem]:
    """What keeps this Redis from keeping accepted events; an empty list when nothing does."""
    try:
        server = await _look_at(redis)
    except REDIS_ERRORS as exc:
        return [_problem(exc)]
    return [*_common_problems(server), *_mode_problems(server, durability)]


def _problem(exc: BaseException) -> Problem:
    unavailable = translate(exc)
    return Problem(unavailable.code, unavailable.message)


def _common_problems(server: _Server) -> Iterator[Problem]:
    if server.version < OLDEST_REDIS:
        got = _dotted(server.version)
        yield Problem("redis_too_old", f"expected Redis 7.0 or newer, got {got}")
    if server.is_cluster:
        # A node of one knows no key but its own: INFO is answered, and every delivery is refused.
        message = "cluster-enabled: expected no, got yes: keys of one event lie apart"
        yield Problem("redis_cluster", message)
    if server.loading:
        yield _problem(exceptions.BusyLoadingError())
    # With its disk full Redis goes on to answer questions, this one too; only writes fail.
    if not server.writes:
        yield _problem(exceptions.ResponseError("MISCONF"))
    if server.role != "master":
        yield Problem("redis_readonly", f"expected a primary, got a {server.role}")
    if server.eviction != "noeviction":
        got = f"{server.eviction}: accepted events could be evicted"
        yield Problem("redis_evicts", f"maxmemory-policy: expected noeviction, got {got}")


def _mode_problems(server: _Server, durability: Durability) -> Iterator[Problem]:
    if durability.mode is Mode.FSYNC:
        if wrong := _wrong_fsync(server, asserted=durability.asserted):
            yield Problem("not_durable", f"DURABILITY=fsync: expected {wrong}")
    elif durability.mode is Mode.REPLICA and server.replicas < durability.replicas:
        expected = f"{durability.replicas} connected replicas"
        message = f"DURABILITY=replica: expected {expected}, got {server.replicas}"
        yield Problem("not_replicated", message)


def _wrong_fsync(server: _Server, *, asserted: bool) -> str | None:
    """What is expected and what is there instead; None where all is well."""
    if not server.aof_enabled:
        return "appendonly yes, got no"
    waits = server.version >= _WAITAOF_SINCE and not asserted
    version = _dotted(server.version)
    match server.appendfsync:
        case "always":
            return None
        case "everysec" | None if waits:
            return None
        case None if asserted:
            return None
        case None:
            return (
                "Redis 7.2 or newer (WAITAOF), or a user that may read appendfsync, "
                f"got Redis {version} and no permission; "
                "DURABILITY_ASSERTED=1 vouches for appendfsync always"
            )
    # With "no", Redis never syncs by itself: WAITAOF would only ever run out of time.
    expected = "always or everysec" if waits else "always"
    if asserted:
        expected += ", which DURABILITY_ASSERTED vouches for"
    elif not waits:
        expected += " (or everysec on Redis 7.2 or newer)"
    return f"appendfsync {expected}, got {server.appendfsync} on Redis {version}"


async def _look_at(redis: Redis) -> _Server:
    info: dict[str, Any] = await redis.info()
    return _Server(
        version=_version(str(info.get("redis_version", "0.0"))),
        loading=info.get("loading") == 1,
        aof_enabled=info.get("aof_enabled") == 1,
        replicas=int(info.get("connected_slaves", 0)),
        role=str(info.get("role", "unknown")),
        writes=info.get("aof_last_write_status", "ok") == "ok",
        is_cluster=info.get("cluster_enabled") == 1,
        eviction=str(info.get("maxmemory_policy", "unknown")),
        appendfsync=await _appendfsync(redis),
    )


async def _appendfsync(redis: Redis) -> str | None:
    try:
        settings = await redis.config_get("appendfsync")
    # The user may have no right to CONFIG; then nobody knows.
    except exceptions.ResponseError:
        return None
    return str(settings["appendfsync"]) if settings else None


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
