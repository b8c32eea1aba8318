"""How sure Redis must be of an event before it counts as accepted."""

import asyncio
import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from redis import exceptions
from redis.asyncio import Redis

from shared.errors import Problem
from shared.redis.cluster import SlotPool
from shared.redis.connection import REDIS_ERRORS, translate
from shared.redis.primary_pool import PrimaryPool
from shared.redis.wire import Command, Wire

OLDEST_REDIS: Final = (7, 0)
"""Scripts with flags exist since Redis 7.0 (Redis manual, "Eval scripts introduction")."""

_WAITAOF_SINCE: Final = (7, 2)


class Mode(enum.Enum):
    """What ``DURABILITY`` may say."""

    FSYNC = "fsync"
    """On the primary's disk: an append-only file that is synced before the answer. Where a replica
    may take the primary's place, on the disks of as many as ``WAIT_REPLICAS`` says as well."""
    REPLICA = "replica"
    """In the memory of as many replicas as ``WAIT_REPLICAS`` says."""
    MEMORY = "memory"
    """In the primary's memory only: a crash of Redis loses what was accepted."""


@dataclass(frozen=True, slots=True)
class Durability:
    """What the writer waits for after each batch.

    Attributes:
        mode: what ``DURABILITY`` says.
        replicas: how many replicas must have it, for ``replica`` and after a fail-over; 0 where a
            primary of a cluster has none, so that nobody can take its place.
        timeout: seconds to wait for the disk or the replicas.
        asserted: the operator vouches for ``appendfsync always`` where it can't be read
            (``DURABILITY_ASSERTED``).
        fails_over: a replica may take the primary's place (``redis+sentinel://``,
            ``redis+cluster://``), and what it hasn't got is lost then, whatever the old primary's
            disk holds.
        promoter: who has it do so, for people.
        is_said: somebody has said how many replicas (``WAIT_REPLICAS``).
        or_unknown: whoever doesn't know ``WAITAOF`` has synced before its reply.
        needed_replicas: how many must have an event, in memory or on disk as the mode says.
    """

    mode: Mode = Mode.FSYNC
    replicas: int = 1
    timeout: float = 2.0
    asserted: bool = False
    fails_over: bool = False
    promoter: str = "Sentinel"
    is_said: bool = False
    or_unknown: bool = False
    needed_replicas: int = field(init=False)

    def __post_init__(self) -> None:
        # Once: each batch asks for it.
        is_needed = self.mode is Mode.REPLICA or (self.mode is Mode.FSYNC and self.fails_over)
        object.__setattr__(self, "needed_replicas", self.replicas if is_needed else 0)

    @property
    def waits_for_disk(self) -> bool:
        """Whether Redis is asked after each batch what has been synced."""
        # Nobody can vouch for what a replica had synced at the moment of the primary's end.
        return self.mode is Mode.FSYNC and (self.needed_replicas > 0 or not self.asserted)


@dataclass(frozen=True, slots=True)
class _Server:
    version: tuple[int, int]
    loading: bool
    aof_enabled: bool
    replicas: int
    replica_places: tuple[tuple[str, int], ...]
    copying: bool
    role: str
    is_cluster: bool
    needs_all_slots: bool
    writes: bool
    eviction: str
    appendfsync: str | None


async def without_needless_wait(redis: Redis, durability: Durability) -> Durability:
    """The same durability for a Redis that is older than ``WAITAOF`` and syncs always."""
    if durability.mode is not Mode.FSYNC or durability.needed_replicas:
        return durability
    try:
        server = await _look_at(redis)
    except REDIS_ERRORS:
        return durability
    # Its own reply comes after the sync then, and it would call WAITAOF an unknown command.
    if server.version < _WAITAOF_SINCE and server.appendfsync == "always":
        if durability.fails_over:
            # A slot may go to a newer node of the cluster at any time, which may sync every second.
            return replace(durability, or_unknown=True)
        return replace(durability, asserted=True)
    return durability


async def is_kept(redis: Redis, write: Command, within: float) -> bool:
    """Write something; whether that, and all that was written before, is where it survives a crash.

    That is with all replicas that there are, and on the disk where this Redis writes a file.

    Args:
        redis: which.
        write: a command that changes something: one that doesn't is answered at once.
        within: seconds to wait for the replicas, and for the disk.

    Raises: what the client does.
    """
    server, milliseconds = await _look_at(redis), round(within * 1000)
    waits: list[Command] = []
    if server.replicas:
        waits.append(("WAIT", server.replicas, milliseconds))
    # An older one syncs before its reply, or never says; with "no", this one doesn't either.
    syncs = server.aof_enabled and server.appendfsync != "no"
    if syncs and server.version >= _WAITAOF_SINCE:
        waits.append(("WAITAOF", 1, 0, milliseconds))
    wire = Wire(redis)
    try:
        replies = await wire.execute_commands(write, *waits)
    finally:
        await wire.hang_up()
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    counts = [reply[0] if isinstance(reply, list) else reply for reply in replies[1:]]
    return all(count >= wait[1] for count, wait in zip(counts, waits, strict=True))


async def life_of(redis: Redis) -> str:
    """Which server it is, and since when it is the primary.

    Once that is another one, what it was told before, and had not kept, may be gone.

    Raises: what the client does.
    """
    info = await redis.info()
    return f"{info.get('run_id')} {info.get('master_replid')}"


async def check_server(redis: Redis) -> list[Problem]:
    """What keeps this Redis from being worked with at all."""
    try:
        return list(_common_problems(await _look_at(redis), redis))
    except REDIS_ERRORS as exc:
        return [_problem(exc)]


async def check_durability(redis: Redis, durability: Durability) -> list[Problem]:
    """What keeps this Redis from keeping accepted events; an empty list when nothing does."""
    try:
        server = await _look_at(redis)
    except REDIS_ERRORS as exc:
        return [_problem(exc)]
    return [*_common_problems(server, redis), *_mode_problems(server, durability)]


async def check_replicas(redis: Redis, durability: Durability) -> list[Problem]:
    """What keeps the replicas from having accepted events at a fail-over.

    A batch finds that out as well, but not why: it would be refused for ever. A replica that can't
    be asked, or that is copying the primary's data, is taken for a good one.
    """
    pool = redis.connection_pool
    if not (durability.needed_replicas and isinstance(pool, PrimaryPool)):
        return []
    try:
        server = await _look_at(redis)
    except REDIS_ERRORS as exc:
        return [_problem(exc)]
    # Fewer than all may be meant, since all have to be there then; but nobody loses events unasked.
    if not durability.is_said and server.replicas > durability.replicas:
        message = (
            f"WAIT_REPLICAS: expected a number, since {durability.promoter} may promote any of "
            f"{server.replicas} replicas ({server.replicas} loses nothing at a fail-over, fewer "
            "may lose accepted events), got none"
        )
        return [Problem("not_durable", message)]
    if not durability.waits_for_disk:
        return []
    places = server.replica_places
    looks = await asyncio.gather(*(_wrong_replica(pool, place, durability) for place in places))
    wrong = [found for found in looks if found]
    needed, good = durability.needed_replicas, len(places) - len(wrong)
    if good >= needed or not wrong:
        return []
    expected = f"{needed} replicas that sync what they get, got {good}"
    message = f"{_named(durability)}: expected {expected}: {'; '.join(wrong)}"
    return [Problem("not_durable", message)]


async def count_left_out(redis: Redis, durability: Durability) -> int:
    """How many replicas may be made the primary without what has been accepted.

    Sentinel may take one that was not waited for, and an old primary that hasn't heard of it goes
    on with the others, which throw that away as soon as they follow the new one. So does a cluster,
    though of those that it hears of it prefers the one that has most.

    """
    if not (durability.fails_over and durability.needed_replicas):
        return 0
    try:
        return max(0, (await _look_at(redis)).replicas - durability.needed_replicas)
    except REDIS_ERRORS:
        return 0


async def _wrong_replica(
    pool: PrimaryPool, place: tuple[str, int], durability: Durability
) -> str | None:
    host, port = place
    try:
        async with pool.replica(host, port) as replica:
            server = await _look_at(replica)
    except REDIS_ERRORS:
        return None  # it may be out of our reach, and in the primary's
    # While it takes the primary's data over, its append-only file is off.
    wrong = None if server.copying or server.loading else _wrong_fsync(server, durability)
    return wrong and f"{host}:{port}: expected {wrong}"


def _problem(exc: BaseException) -> Problem:
    unavailable = translate(exc)
    return Problem(unavailable.code, unavailable.message)


def _common_problems(server: _Server, redis: Redis) -> Iterator[Problem]:
    if server.version < OLDEST_REDIS:
        got = _dotted(server.version)
        yield Problem("redis_too_old", f"expected Redis 7.0 or newer, got {got}")
    in_cluster = isinstance(redis.connection_pool, SlotPool)
    if server.is_cluster and not in_cluster:
        # A node of one knows no key but its own: INFO is answered, and every delivery is refused.
        message = "cluster-enabled: expected no, got yes: keys of one event lie apart"
        yield Problem("redis_cluster", f"{message}; redis+cluster://… is for all its nodes")
    if in_cluster and server.needs_all_slots:
        message = "expected no, got yes: one primary that is away would stop all the others"
        yield Problem("redis_full_coverage", f"cluster-require-full-coverage: {message}")
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
    name = _named(durability)
    if durability.mode is Mode.FSYNC and (wrong := _wrong_fsync(server, durability)):
        yield Problem("not_durable", f"{name}: expected {wrong}")
    if server.replicas < durability.needed_replicas:
        expected = f"{durability.needed_replicas} connected replicas"
        yield Problem("not_replicated", f"{name}: expected {expected}, got {server.replicas}")
    is_bare = durability.mode is Mode.FSYNC and not durability.needed_replicas
    if is_bare and durability.fails_over and server.replicas:
        replicas = f"any of {server.replicas} replicas may be promoted"
        yield Problem("not_durable", f"WAIT_REPLICAS: expected 1 or more, since {replicas}, got 0")


def _named(durability: Durability) -> str:
    named = f"DURABILITY={durability.mode.value}"
    is_other = durability.mode is Mode.FSYNC and durability.fails_over
    return f"{named} with {durability.promoter}" if is_other else named


def _wrong_fsync(server: _Server, durability: Durability) -> str | None:
    """What is expected and what is there instead; None where all is well."""
    if not server.aof_enabled:
        return "appendonly yes, got no"
    if durability.needed_replicas and server.version < _WAITAOF_SINCE:
        version = _dotted(server.version)
        return f"Redis 7.2 or newer (WAITAOF), got {version}; DURABILITY=replica does without"
    return _wrong_appendfsync(server, asserted=not durability.waits_for_disk)


def _wrong_appendfsync(server: _Server, *, asserted: bool) -> str | None:
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
        replica_places=tuple(_replica_places(info)),
        copying=info.get("master_link_status", "up") != "up",
        role=str(info.get("role", "unknown")),
        writes=info.get("aof_last_write_status", "ok") == "ok",
        is_cluster=(is_cluster := info.get("cluster_enabled") == 1),
        needs_all_slots=is_cluster
        and await _setting(redis, "cluster-require-full-coverage") == "yes",
        eviction=str(info.get("maxmemory_policy", "unknown")),
        appendfsync=await _setting(redis, "appendfsync"),
    )


def _replica_places(info: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for name, said in info.items():
        if re.fullmatch(r"slave\d+", name) and isinstance(said, dict):
            yield str(said["ip"]), int(said["port"])


async def _setting(redis: Redis, name: str) -> str | None:
    try:
        settings = await redis.config_get(name)
    # The user may have no right to CONFIG; then nobody knows.
    except exceptions.ResponseError:
        return None
    return str(settings[name]) if settings else None


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
