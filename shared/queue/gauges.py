"""The gauges of the whole queue, which every ingress exports from a reading of its own."""

import asyncio
import contextlib
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from time import monotonic
from typing import Final, TypeVar

import msgspec
from msgspec import structs
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue import depths, due, held_bytes
from shared.queue.depths import Depths
from shared.queue.due import Due
from shared.queue.held_bytes import HeldBytes, RedisMemory, Shares
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions, undivided
from shared.redis.connection import REDIS_ERRORS, end, server_of, translate

CACHE_SECONDS: Final = 5.0
"""How long a reading is good for, however many scrape."""

READ_SECONDS: Final = 2.0
"""How long a reading may take; a scrape goes on without it then."""

_WALK_SECONDS: Final = 0.5
"""How long a scrape waits for what organizations have; where they are many, it shows what was read
before."""

LATE: Final = 60.0
"""Seconds for which something of an organization has been due that is named. Each that was ever
named is a series for good in whoever keeps these: for a moment, any of them is first in line."""

_AWAY: Final = frozenset({"redis_timeout", "redis_unreachable"})
"""What the other partitions of the same Redis would find as well."""

Answer = TypeVar("Answer")


class Reading(msgspec.Struct, frozen=True):
    """What is in the queue at one moment.

    Attributes:
        depths: unfinished events by where they are.
        breakers: organizations whose breaker is open.
        workers: workers alive.
        slots: events that they can handle at once.
        memory: of Redis.
        names: of the workers alive.
        undivided: events that wait beside the partitions; ``None`` where there are none.
        due: what another worker could take; ``None`` where nobody has looked.
    """

    depths: Depths
    breakers: int
    workers: int
    slots: int
    memory: RedisMemory
    names: Collection[bytes] = ()
    undivided: int | None = None
    due: Due | None = None


async def read(partition: Partition) -> Reading:
    """Read it, however many organizations there are."""
    names = partition.names
    # No transaction: a gauge may be one off, and nobody else is to wait for it.
    async with partition.redis.pipeline(transaction=False) as pipe:
        depths.ask(pipe, names)
        pipe.zcard(names.breakers)
        pipe.zrange(names.workers_seen, 0, -1, withscores=True)
        pipe.get(names.slots)
        pipe.info("memory")
        answers = await pipe.execute()
    breakers, seen, slots, memory = answers[depths.QUESTIONS :]
    now = depths.told(answers[: depths.QUESTIONS], *await depths.read_rest(partition))
    # Who was killed stands there still, until another one sees to it: there may be none.
    workers = [name for name, until in seen if until / 1000 >= now.at]
    slots = int(slots or 0) if workers else 0
    return Reading(now, breakers, len(workers), slots, RedisMemory.of(memory), workers)


def together(readings: Sequence[Reading], memories: Sequence[RedisMemory]) -> Reading:
    """Those of some partitions, at least one.

    Args:
        readings: of each.
        memories: of each Redis that has some of them.
    """
    # A worker has its slots in every partition, and is one.
    names = frozenset[bytes]().union(*(each.names for each in readings))
    beside = [each.undivided for each in readings if each.undivided is not None]
    due_there = [each.due for each in readings if each.due is not None]
    return Reading(
        depths.together([each.depths for each in readings]),
        sum(each.breakers for each in readings),
        len(names),
        max(each.slots for each in readings),
        # A sum would hide that one of them is full.
        max(memories, key=lambda each: (each.used / each.limit if each.limit else 0, each.used)),
        names,
        sum(beside) if beside else None,
        due.together(due_there) if due_there else None,
    )


async def _ask(
    partitions: Partitions,
    ask: Callable[[Partition], Awaitable[Answer]],
    seconds: float | None = None,
) -> tuple[dict[int, Answer], dict[int, str]]:
    """Ask each primary's partitions one after another, and all primaries at once.

    Returns: what those said that were asked in time, by their numbers; and the codes of others.
    """
    said: dict[int, Answer] = {}
    missing: dict[int, str] = {}

    async def ask_each(there: Sequence[Partition]) -> None:
        for partition in there:
            try:
                said[partition.number] = await ask(partition)
            except REDIS_ERRORS as exc:
                missing[partition.number] = code = translate(exc).code
                if code in _AWAY:
                    break

    async def ask_all(there: Sequence[Partition]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ask_each(there)
        for partition in there:
            if partition.number not in said:
                missing.setdefault(partition.number, "redis_timeout")

    await asyncio.gather(*map(ask_all, partitions.by_primary()))
    return said, missing


class Gauges(Collector):
    """Shows the last reading; nothing of one that is too old, since it might be wrong by now.

    Of several partitions one that can't be read is left out.

    Args:
        partitions: where the queue is.
        organizations: how many get a series of their own.
        bytes_limit_of: what an organization may hold in Redis, bytes; 0: no limit.
        log: told once when a reading fails.

    Attributes:
        is_awaiting: whether Redis isn't found to be one to work with yet; nothing of it is shown.
    """

    def __init__(
        self,
        partitions: Partitions,
        *,
        organizations: int,
        bytes_limit_of: Callable[[str], int],
        log: FilteringBoundLogger,
    ) -> None:
        self._partitions = partitions
        is_divided = len(partitions) > 1
        self._firsts = {there[0].number for there in partitions.by_primary() if is_divided}
        self._bytes_limit_of = bytes_limit_of
        self._organizations = organizations
        self._log = log
        self._lock = asyncio.Lock()
        self._reading: Reading | None = None
        self._shares: Shares | None = None
        self._walk: asyncio.Task[Shares | None] | None = None
        self._may_walk = True
        self._good_until = self._shares_good_until = 0.0
        self._missing: dict[int, str] = {}
        self._walk_missing: dict[int, str] = {}
        self._told: Collection[int] = ()
        self._looks = {each.number: due.Look(each) for each in partitions}
        self._due_missing: dict[int, str] = {}
        self.is_awaiting = False

    @contextlib.contextmanager
    def registered(self, registry: CollectorRegistry = metrics.REGISTRY) -> Iterator[None]:
        """Be part of every scrape while the block runs."""
        registry.register(self)
        try:
            yield
        finally:
            registry.unregister(self)

    @contextlib.asynccontextmanager
    async def walking(self) -> AsyncIterator[None]:
        """Look at all organizations for whoever scrapes until the block ends, and not beyond."""
        try:
            yield
        finally:
            self._may_walk = False
            if self._walk is not None:
                await end([self._walk])

    async def refresh(self) -> None:
        """Read anew, unless the last reading is good still; never raises for Redis's sake."""
        async with self._lock:
            # Whoever waited for the lock finds a fresh reading: several scrapes cost one.
            if monotonic() < self._good_until:
                return
            said, self._missing = await _ask(self._partitions, self._read, READ_SECONDS)
            self._reading = self._together(await self._with_due(said))
            if said:
                await self._refresh_shares()
            self._note()
            # After a failure, too: a Redis that is away isn't asked by every scrape.
            self._good_until = monotonic() + CACHE_SECONDS

    async def _read(self, partition: Partition) -> Reading:
        """What is in it; of the first one of each Redis also what waits beside all of them."""
        reading = await read(partition)
        if partition.number not in self._firsts:
            return reading
        return structs.replace(reading, undivided=await undivided(partition))

    async def _with_due(self, said: Mapping[int, Reading]) -> dict[int, Reading]:
        """These with what is due; without where that fails, as with an earlier version's users.

        A look takes more calls than all else: with many partitions on a slow Redis, those behind
        would seem to be away.
        """

        async def look(partition: Partition) -> Due:
            reading = said[partition.number]
            slots, now = reading.slots, reading.depths
            return await self._looks[partition.number].read(now.at, slots=slots, parked=now.parked)

        there = Partitions(tuple(each for each in self._partitions if each.number in said))
        found, self._due_missing = await _ask(there, look, READ_SECONDS)
        return {
            number: structs.replace(reading, due=found.get(number))
            for number, reading in said.items()
        }

    def _together(self, said: Mapping[int, Reading]) -> Reading | None:
        # One of each server: several partitions of a cluster may be in one.
        memories = {
            server_of(each.redis): said[each.number].memory
            for each in self._partitions
            if each.number in said
        }
        return together(list(said.values()), list(memories.values())) if said else None

    async def _refresh_shares(self) -> None:
        """Take what the look at all organizations has found; it goes on beside, if it is long."""
        if self._walk is None:
            if monotonic() < self._shares_good_until or not self._may_walk:
                return
            self._walk = asyncio.create_task(self._walked())
        walk = self._walk
        await asyncio.wait([walk], timeout=_WALK_SECONDS)
        if walk.done():
            self._walk = None
            if not walk.cancelled():  # as it is at the end
                self._shares = walk.result()

    async def _walked(self) -> Shares | None:
        began = monotonic()
        said, self._walk_missing = await _ask(
            self._partitions, partial(held_bytes.read_shares, organizations=self._organizations)
        )
        if not said:
            return None
        # Where it is work, there is a rest as long.
        self._shares_good_until = 2 * monotonic() - began
        return held_bytes.shares_together(list(said.values()), self._organizations)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, for the client library."""
        if self._good_until:
            is_up = self._reading is not None and not self.is_awaiting
            yield family_of_redis(is_up=is_up)
        if self.is_awaiting:
            return
        if self._reading is not None:
            yield from _families(self._reading)
        if self._shares is not None:
            yield from _families_of_shares(self._shares, self._bytes_limit_of)
        if len(self._partitions) > 1 and self._good_until:
            yield metrics.family_of_partitions(len(self._partitions), self._missing)

    def _note(self) -> None:
        """Show nothing where nothing could be read, and tell of what can't be any more."""
        number = len(self._partitions)
        # What a walk misses hides no reading: with many organizations the next one ends late.
        if len(self._missing) == number:
            self._shares = None
        missing = self._walk_missing | self._due_missing | self._missing
        if new := missing.keys() - self._told:
            which = {"partitions": sorted(missing)} if number > 1 else {}
            self._log.warning("gauges_not_read", code=missing[min(new)], **which)
        self._told = missing.keys()


def family_of_redis(*, is_up: bool) -> GaugeMetricFamily:
    """Whether there is a Redis to work with."""
    about = "1 where the ingress can read Redis, and has found that it may rely on it"
    return GaugeMetricFamily("sellfern_redis_up", about, value=int(is_up))


def _families(reading: Reading) -> Iterator[GaugeMetricFamily]:
    depth = GaugeMetricFamily(
        "sellfern_queue_depth", "Unfinished events by where they are", labels=["state"]
    )
    for state in ("queued", "leased", "deferred", "parked", "in_turn"):
        depth.add_metric([state], getattr(reading.depths, state))
    yield depth
    oldest = reading.depths.oldest_seconds or 0.0
    for name, about, value in (
        ("oldest_waiting_seconds", "Age of the oldest unfinished event", oldest),
        (
            "breakers_open",
            "Organizations whose breaker is open; none while an event is tried",
            reading.breakers,
        ),
        ("workers", "Workers alive", reading.workers),
        ("worker_slots", "Events that all live workers can handle at once", reading.slots),
        ("redis_memory_bytes", "Memory of Redis that counts", reading.memory.used),
        ("redis_memory_limit_bytes", "What it may be; 0 is no limit", reading.memory.limit),
    ):
        yield GaugeMetricFamily(f"sellfern_{name}", about, value=value)
    if reading.due is not None:
        yield from _families_of_due(reading.due)
    if reading.undivided is not None:
        about = "Events that wait undivided, beside the partitions: no worker of these sees them"
        yield GaugeMetricFamily("sellfern_undivided_events", about, value=reading.undivided)


def _families_of_due(found: Due) -> Iterator[GaugeMetricFamily]:
    about = "Events that another worker could take now"
    yield GaugeMetricFamily("sellfern_due_events", about, value=found.events)
    seconds = GaugeMetricFamily(
        "sellfern_due_seconds",
        "For how long one of them could have been taken, by partition where there are several",
        labels=["partition"],
    )
    owners = GaugeMetricFamily(
        "sellfern_organization_due_seconds",
        "The same with the organization that it is of, where it is a minute or more",
        labels=["partition", "organization"],
    )
    for number, longest in found.longest.items():
        seconds.add_metric([number], longest.seconds)  # of a single queue: an empty label is none
        if longest.seconds >= LATE:
            owners.add_metric([number, longest.organization], longest.seconds)
    yield from (seconds, owners)


def _families_of_shares(
    shares: Shares, limit_of: Callable[[str], int]
) -> Iterator[GaugeMetricFamily]:
    for name, about, value in (
        ("dead_letters_kept", "Dead letters that somebody may read and replay", shares.dead),
        ("organizations_held", "Organizations that their own systems have wait", shares.holds),
    ):
        yield GaugeMetricFamily(f"sellfern_{name}", about, value=value)
    reasons = GaugeMetricFamily(
        "sellfern_dead_letters_kept_by_reason",
        "The same, by why they were given up",
        labels=["reason"],
    )
    for reason, number in shares.reasons.items():
        reasons.add_metric([reason], number)
    yield reasons
    organizations = GaugeMetricFamily(
        "sellfern_organization_events",
        "Unfinished events of the organizations that have the most",
        labels=["organization", "state"],
    )
    for name, (waiting, running) in shares.organizations.items():
        # What runs is still among what isn't finished, or was, when that was looked at.
        organizations.add_metric([name, "waiting"], max(0, waiting - running))
        organizations.add_metric([name, "running"], running)
    yield organizations
    yield from _held(shares.held, limit_of)


def _held(
    holding: Mapping[str, HeldBytes], limit_of: Callable[[str], int]
) -> Iterator[GaugeMetricFamily]:
    held = GaugeMetricFamily(
        "sellfern_organization_bytes",
        "What the organizations that hold most have in Redis",
        labels=["organization", "kind"],
    )
    limits = GaugeMetricFamily(
        "sellfern_organization_bytes_limit",
        "What each of these may hold in Redis",
        labels=["organization"],
    )
    for organization, kinds in holding.items():
        for kind, number in kinds.items():
            held.add_metric([organization, kind], number)
        if limit := limit_of(organization):
            limits.add_metric([organization], limit)
    yield from (held, limits)
