"""Facts about what the local supervisor reads: the very gauges that the ScaledObject asks for."""

from prometheus_client import CollectorRegistry, generate_latest
from redis.asyncio import Redis

from deploy.local.regulation import read_gauges
from shared.queue import keys
from shared.queue.gauges import Gauges
from shared.queue.partitions import Partitions
from tests.integration.workplace import Lines


async def test_the_depths_and_the_oldest_age_are_read_from_the_gauges(redis: Redis) -> None:
    await redis.zadd(keys.QUEUE, {"org_a:1": 1, "org_a:2": 2})
    seconds, _ = await redis.time()
    await redis.zadd(
        keys.ACCEPTED,
        {"org_a:1": (seconds - 90) * 1000, "org_a:2": seconds * 1000, "org_a:3": seconds * 1000},
    )
    registry = CollectorRegistry()
    gauges = Gauges(
        Partitions.only(redis), organizations=1, bytes_limit_of=lambda _: 0, log=Lines().log
    )
    assert read_gauges(generate_latest(registry).decode()) is None  # nothing was read yet
    with gauges.registered(registry):
        await gauges.refresh()
        found = read_gauges(generate_latest(registry).decode())
    assert found is not None
    assert (found.queued, found.unfinished) == (2, 3)
    assert 90 <= found.oldest_seconds < 100
