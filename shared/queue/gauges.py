"""The gauges of the whole queue, which every ingress exports from a reading of its own."""

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue import depths, held_bytes, keys
from shared.queue.depths import Depths
from shared.queue.held_bytes import HeldBytes, RedisMemory
from shared.queue.partition import Partition
from shared.redis.connection import REDIS_ERRORS, translate

CACHE_SECONDS: Final = 5.0
"""How long a reading is good for, however many scrape."""

READ_SECONDS: Final = 2.0
"""How long a reading may take; a scrape goes on without it then."""


class Reading(msgspec.Struct, frozen=True):
    """What is in the queue at one moment.

    Attributes:
        depths: unfinished events by where they are.
        dead: dead letters.
        breakers: organizations whose breaker is open.
        holds: organizations whose events wait since their handlers asked for it.
        workers: workers alive.
        slots: events that they can handle at once.
        organizations: those with the most unfinished events: waiting and running of each.
        held: those that hold most in Redis: bytes of each by kind.
        memory: of Redis.
    """

    depths: Depths
    dead: int
    breakers: int
    holds: int
    workers: int
    slots: int
    organizations: Mapping[str, tuple[int, int]]
    held: Mapping[str, HeldBytes]
    memory: RedisMemory


async def read(partition: Partition, organizations: int) -> Reading:
    """Read it in one round trip, without scanning anything.

    Args:
        partition: where the queue is.
        organizations: how many to name; those with the most unfinished events.
    """
    names = partition.names
    # No transaction: a gauge may be one off, and nobody else is to wait for it.
    async with partition.redis.pipeline(transaction=False) as pipe:
        depths.ask(pipe, names)
        pipe.zcard(names.breakers)
        pipe.zrange(names.due, 0, -1)
        pipe.zcard(names.workers_seen)
        pipe.get(names.slots)
        for name in (names.waiting, names.buried, names.bytes):
            pipe.hgetall(name)
        pipe.info("memory")
        answers = await pipe.execute()
    now = depths.told(answers[: depths.QUESTIONS])
    breakers, due, workers, slots, *hashes, held, memory = answers[depths.QUESTIONS :]
    waiting, buried = map(depths.numbers, hashes)
    held = held_bytes.by_organization(held)
    # Each named one is a series for good: ten thousand would be too many.
    largest = heapq.nlargest(organizations, waiting, key=waiting.__getitem__)
    return Reading(
        depths=now,
        dead=sum(buried.values()),
        breakers=breakers,
        holds=sum(name.startswith(keys.HOLD.encode()) for name in due),
        workers=workers,
        slots=int(slots or 0),
        organizations={name: (waiting[name], now.running.get(name, 0)) for name in largest},
        held={name: held[name] for name in held_bytes.largest(held, organizations)},
        memory=RedisMemory.of(memory),
    )


class Gauges(Collector):
    """Shows the last reading; nothing of one that is too old, since it might be wrong by now.

    Args:
        partition: where the queue is.
        organizations: how many get a series of their own.
        bytes_limit_of: what an organization may hold in Redis, bytes; 0: no limit.
        log: told once when a reading fails.
    """

    def __init__(
        self,
        partition: Partition,
        *,
        organizations: int,
        bytes_limit_of: Callable[[str], int],
        log: FilteringBoundLogger,
    ) -> None:
        self._partition = partition
        self._bytes_limit_of = bytes_limit_of
        self._organizations = organizations
        self._log = log
        self._lock = asyncio.Lock()
        self._reading: Reading | None = None
        self._good_until = 0.0
        self._is_failing = False

    @contextlib.contextmanager
    def registered(self, registry: CollectorRegistry = metrics.REGISTRY) -> Iterator[None]:
        """Be part of every scrape while the block runs."""
        registry.register(self)
        try:
            yield
        finally:
            registry.unregister(self)

    async def refresh(self) -> None:
        """Read anew, unless the last reading is good still; never raises for Redis's sake."""
        async with self._lock:
            # Whoever waited for the lock finds a fresh reading: several scrapes cost one.
            if monotonic() < self._good_until:
                return
            try:
                async with asyncio.timeout(READ_SECONDS):
                    self._reading = await read(self._partition, self._organizations)
            except REDIS_ERRORS as exc:
                self._failed(exc)
            else:
                self._is_failing = False
            # After a failure, too: a Redis that is away isn't asked by every scrape.
            self._good_until = monotonic() + CACHE_SECONDS

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, for the client library."""
        if (reading := self._reading) is not None:
            yield from _families(reading, self._bytes_limit_of)

    def _failed(self, exc: BaseException) -> None:
        self._reading = None
        if not self._is_failing:
            self._log.warning("gauges_not_read", code=translate(exc).code)
        self._is_failing = True


def _families(reading: Reading, limit_of: Callable[[str], int]) -> Iterator[GaugeMetricFamily]:
    depth = GaugeMetricFamily(
        "sellfern_queue_depth", "Unfinished events by where they are", labels=["state"]
    )
    for state in ("queued", "leased", "deferred", "parked"):
        depth.add_metric([state], getattr(reading.depths, state))
    depth.add_metric(["in_turn"], reading.depths.waiting_for_turn)
    yield depth
    oldest = reading.depths.oldest_seconds or 0.0
    for name, about, value in (
        ("oldest_waiting_seconds", "Age of the oldest unfinished event", oldest),
        ("dead_letters_kept", "Dead letters that somebody may read and replay", reading.dead),
        ("breakers_open", "Organizations whose events wait since they fail", reading.breakers),
        ("organizations_held", "Organizations that their own systems have wait", reading.holds),
        ("workers", "Workers alive", reading.workers),
        ("worker_slots", "Events that all live workers can handle at once", reading.slots),
        ("redis_memory_bytes", "Memory of Redis that counts", reading.memory.used),
        ("redis_memory_limit_bytes", "What it may be; 0 is no limit", reading.memory.limit),
    ):
        yield GaugeMetricFamily(f"sellfern_{name}", about, value=value)
    organizations = GaugeMetricFamily(
        "sellfern_organization_events",
        "Unfinished events of the organizations that have the most",
        labels=["organization", "state"],
    )
    for name, (waiting, running) in reading.organizations.items():
        # What runs is still among what isn't finished.
        organizations.add_metric([name, "waiting"], waiting - running)
        organizations.add_metric([name, "running"], running)
    yield organizations
    yield from _held(reading, limit_of)


def _held(reading: Reading, limit_of: Callable[[str], int]) -> Iterator[GaugeMetricFamily]:
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
    for organization, kinds in reading.held.items():
        for kind, number in kinds.items():
            held.add_metric([organization, kind], number)
        if limit := limit_of(organization):
            limits.add_metric([organization], limit)
    yield from (held, limits)
