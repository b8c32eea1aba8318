"""The gauges of the whole queue, which every ingress exports from a reading of its own."""

import asyncio
import contextlib
import heapq
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from shared import depths, keys, metrics
from shared.connection import REDIS_ERRORS, translate

CACHE_SECONDS: Final = 5.0
"""How long a reading is good for, however many scrape."""

READ_SECONDS: Final = 2.0
"""How long a reading may take; a scrape goes on without it then."""


class Reading(msgspec.Struct, frozen=True):
    """What is in the queue at one moment.

    Attributes:
        queued: events in line for a worker.
        leased: events that a worker has.
        deferred: events that are not due yet.
        parked: events held back by their organization's cap, pause or breaker.
        oldest_seconds: age of the oldest unfinished event; 0 without one.
        dead: dead letters.
        breakers: organizations whose breaker is open.
        workers: workers alive.
        slots: events that they can handle at once.
        organizations: those with the most unfinished events: waiting and running of each.
    """

    queued: int
    leased: int
    deferred: int
    parked: int
    oldest_seconds: float
    dead: int
    breakers: int
    workers: int
    slots: int
    organizations: Mapping[str, tuple[int, int]]


async def read(redis: Redis, organizations: int) -> Reading:
    """Read it in one round trip, without scanning anything.

    Args:
        redis: where the queue is.
        organizations: how many to name; those with the most unfinished events.
    """
    async with redis.pipeline(transaction=False) as pipe:
        depths.ask(pipe)
        pipe.zcard(keys.BREAKERS)
        pipe.zcard(keys.WORKERS_SEEN)
        pipe.get(keys.SLOTS)
        for name in (keys.WAITING, keys.BURIED):
            pipe.hgetall(name)
        answers = await pipe.execute()
    now = depths.told(answers[: depths.QUESTIONS])
    breakers, workers, slots, *hashes = answers[depths.QUESTIONS :]
    waiting, buried = map(depths.numbers, hashes)
    largest = heapq.nlargest(organizations, waiting, key=waiting.__getitem__)
    return Reading(
        queued=now.queued,
        leased=now.leased,
        deferred=now.deferred,
        parked=now.parked,
        oldest_seconds=now.oldest_seconds or 0.0,
        dead=sum(buried.values()),
        breakers=breakers,
        workers=workers,
        slots=int(slots or 0),
        organizations={name: (waiting[name], now.running.get(name, 0)) for name in largest},
    )


class Gauges(Collector):
    """Shows the last reading; nothing of one that is too old, since it might be wrong by now.

    Args:
        redis: where the queue is.
        organizations: how many get a series of their own.
        log: told once when a reading fails.
    """

    def __init__(self, redis: Redis, *, organizations: int, log: FilteringBoundLogger) -> None:
        self._redis = redis
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
            if monotonic() < self._good_until:
                return
            try:
                async with asyncio.timeout(READ_SECONDS):
                    self._reading = await read(self._redis, self._organizations)
            except REDIS_ERRORS as exc:
                self._failed(exc)
            else:
                self._is_failing = False
            self._good_until = monotonic() + CACHE_SECONDS

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, for the client library."""
        if (reading := self._reading) is not None:
            yield from _families(reading)

    def _failed(self, exc: BaseException) -> None:
        self._reading = None
        if not self._is_failing:
            self._log.warning("gauges_not_read", code=translate(exc).code)
        self._is_failing = True


def _families(reading: Reading) -> Iterator[GaugeMetricFamily]:
    depth = GaugeMetricFamily(
        "sellfern_queue_depth", "Unfinished events by where they are", labels=["state"]
    )
    for state in ("queued", "leased", "deferred", "parked"):
        depth.add_metric([state], getattr(reading, state))
    yield depth
    for name, about, value in (
        ("oldest_waiting_seconds", "Age of the oldest unfinished event", reading.oldest_seconds),
        ("dead_letters_kept", "Dead letters that somebody may read and replay", reading.dead),
        ("breakers_open", "Organizations whose events wait since they fail", reading.breakers),
        ("workers", "Workers alive", reading.workers),
        ("worker_slots", "Events that all live workers can handle at once", reading.slots),
    ):
        yield GaugeMetricFamily(f"sellfern_{name}", about, value=value)
    organizations = GaugeMetricFamily(
        "sellfern_organization_events",
        "Unfinished events of the organizations that have the most",
        labels=["organization", "state"],
    )
    for name, (waiting, running) in reading.organizations.items():
        organizations.add_metric([name, "waiting"], waiting - running)
        organizations.add_metric([name, "running"], running)
    yield organizations
