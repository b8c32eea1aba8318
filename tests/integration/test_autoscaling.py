"""Facts about what the ScaledObject's rule makes of the gauges, as they are read and recorded."""

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from redis.asyncio import Redis

from deploy.local.autoscaling import Autoscaler, Reading
from deploy.local.regulation import read_gauges
from deploy.local.scale_demo import deployed_rule
from shared.queue import gauges, keys
from shared.queue.gauges import Gauges
from shared.queue.partitions import Partitions
from tests.conftest import StartRedis
from tests.integration.workplace import Lines, Workplace, body
from worker import Event, Handlers, Organization
from worker.operate import organizations
from worker.outcomes import Retry

HOURS = 3
EVERY = 15
"""Seconds: so often Kubernetes decides."""


class Recorder:
    """Reads an ingress's gauges as the local supervisor does."""

    def __init__(self, redis: Redis) -> None:
        self.registry = CollectorRegistry()
        self._gauges = Gauges(
            Partitions.only(redis), organizations=1, bytes_limit_of=lambda _: 0, log=Lines().log
        )
        self.registry.register(self._gauges)

    async def read(self) -> Reading | None:
        """What a scrape tells; ``None`` where it tells nothing."""
        await self._gauges.refresh()
        return read_gauges(generate_latest(self.registry).decode())

    def oldest(self) -> float:
        """The age of the oldest unfinished event, whatever it waits for."""
        return self.registry.get_sample_value("sellfern_oldest_waiting_seconds") or 0.0


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "CACHE_SECONDS", 0.0)


def changes(recorded: Sequence[Reading | None], workers: int) -> list[int]:
    """What the rule makes of some hours of these readings, over and over: each change."""
    scaler, now, found = Autoscaler(deployed_rule()), workers, []
    for step, reading in enumerate(islice(cycle(recorded), HOURS * 3600 // EVERY)):
        # No answer is an error to KEDA, and to a HorizontalPodAutoscaler no reason to change.
        then = scaler.decide(reading or Reading(None, None), now, step * EVERY)
        if then != now:
            found.append(then - now)
        now = then
    return found


async def accept_old(place: Workplace, *bodies: bytes) -> None:
    seconds, _ = await place.redis.time()
    await place.accept(*bodies, received_at=(seconds - HOURS * 3600) * 1000)


async def test_a_pause_of_three_hours_changes_nothing_and_nor_does_its_end(redis: Redis) -> None:
    """Its events are in line for a moment, until the next claim parks them; others' come and go."""
    place, recorder = Workplace(redis), Recorder(redis)
    await place.transitions.renew("w1", [], description=b"{}", slots=100, lease=30)
    recorded, ages = [], []

    async def record() -> None:
        recorded.append(await recorder.read())
        ages.append(recorder.oldest())

    await organizations.pause(place.partition, "org_a", "why")
    for _ in range(3):
        await accept_old(place, *(body() for _ in range(400)))
        await record()
        await place.accept(body(organization="org_b"), organization="org_b")
        await record()
        await place.claim(100)
        await record()
    assert min(ages) > (HOURS - 1) * 3600  # by their mere age there would be 20 workers
    assert changes(recorded, 2) == []
    await organizations.resume(place.partition, "org_a")
    recorded.clear()
    for _ in range(3):
        await record()
        await place.claim(10)
    assert changes(recorded, 2) == []


async def test_what_nobody_can_read_is_not_zero(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None)
    async with Redis.from_url(server.url) as redis:
        recorder = Recorder(redis)
        assert changes([await recorder.read()], 8) != []  # nothing is due: 2 are enough
        server.kill()
        assert await recorder.read() is None
        assert changes([await recorder.read()], 8) == []


async def test_a_due_retry_and_a_dead_worker_s_events_are_seen_where_no_worker_is(
    redis: Redis,
) -> None:
    handlers = Handlers()

    @handlers.on("order.updated")
    async def act(_: Event[Any], __: Organization) -> None:
        raise Retry(3600)

    place, recorder = Workplace(redis, handlers), Recorder(redis)
    await accept_old(place, body(), body())
    (one, other) = await place.claim(2)
    await place.run(*one)
    assert await recorder.read() == Reading(0, 0, 2)
    seconds, _ = await redis.time()
    for minutes, claim in enumerate((one[0], other[0]), 1):
        await redis.zadd(keys.QUEUE, {claim.job: (seconds - 60 * minutes) * 1000})
    found = await recorder.read()
    assert found is not None
    assert found.due == 2
    assert found.seconds is not None
    assert 120 <= found.seconds < 150
    assert deployed_rule().wanted(found, 1) == 5


async def test_the_depths_and_the_longest_wait_are_read_from_the_gauges(redis: Redis) -> None:
    await redis.zadd(keys.QUEUE, {"org_a:1": 1, "org_a:2": 2})
    seconds, _ = await redis.time()
    accepted = {"org_a:1": 90, "org_a:2": 0, "org_a:3": 500}  # the last is in its turn, say
    await redis.zadd(keys.ACCEPTED, {job: (seconds - age) * 1000 for job, age in accepted.items()})
    assert read_gauges(generate_latest(CollectorRegistry()).decode()) is None
    found = await Recorder(redis).read()
    assert found is not None
    assert (found.due, found.unfinished) == (2, 3)
    assert found.seconds is not None
    assert 90 <= found.seconds < 120
