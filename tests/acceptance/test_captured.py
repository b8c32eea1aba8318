"""Facts about whoever has captured one delivery, no secret, and a few connections."""

import asyncio
from collections import Counter
from pathlib import Path
from time import monotonic

from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance.ingress_process import IngressProcess, delivery, ingress
from tests.acceptance.process import environment, run, until
from tests.acceptance.worker_process import running
from tests.ingress_support import Client
from tests.integration.jobs import NOTHING, account, counters
from tests.integration.workplace import body

NUMBER = 5_000
CONNECTIONS = 20
PROMPTLY = 5.0
"""Seconds; a breaker's cool-off, for which the event would have to wait, is 30."""

CAPTURED = body("evt_captured", data={"act": "fail", "times": 1_000_000})


async def attack(receiver: IngressProcess) -> Counter[str]:
    """Send it thousands of times; the answers."""
    answers: Counter[str] = Counter()

    async def send() -> None:
        async with Client.to(receiver.port) as client:
            for _ in range(NUMBER // CONNECTIONS):
                answers[(await client.ask(delivery(CAPTURED))).code] += 1

    await asyncio.gather(*(send() for _ in range(CONNECTIONS)))
    return answers


async def counted(redis: Redis, name: str) -> int:
    return (await counters(redis)).get(name, 0)


async def waits_for(redis: Redis, receiver: IngressProcess, event_id: str) -> float:
    """Seconds until another event of that organization is handled."""
    began = monotonic()
    assert (await receiver.deliver(body(event_id, data={"act": "count"}))).status == 202

    async def is_handled() -> bool:
        return bool(await redis.exists(keys.state("org_a", f"handled/{event_id}")))

    await until(is_handled)
    return monotonic() - began


async def test_thousands_of_a_dead_events_delivery_run_it_once_more_and_hold_nobody_up(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """Two failures would open the organization's breaker: the event's own, and any other."""
    environ = environment(redis_server.url, tmp_path, MAX_ATTEMPTS="1", BREAKER_FAILURES="2")
    began = monotonic()
    async with ingress(environ) as receiver, running(environ) as (worker,):
        assert (await receiver.deliver(CAPTURED)).status == 202
        await worker.logged("event_dead")
        attacking = asyncio.create_task(attack(receiver))

        async def is_held() -> bool:
            return await counted(redis, "held") > 0

        await until(is_held)
        waits = [await waits_for(redis, receiver, f"evt_{n}") for n in range(20)]
        answers = await attacking

        async def is_over() -> bool:
            return await account(redis) == NOTHING

        await until(is_over)
        shown = await run("worker", "dead-letters", "list", "--json", environ=environ)
    assert answers.keys() <= {"accepted", "known"}
    assert answers.total() == NUMBER
    runs = len(worker.events("event_dead"))
    assert runs <= 2 + (monotonic() - began) // 60
    assert max(waits) < PROMPTLY
    assert await counted(redis, "breaker_opened") == 0
    (letter,) = shown.json
    assert letter["event_id"] == "evt_captured"
    assert len(worker.events("event_held")) == await counted(redis, "held") > 100
    # With those that came while one of them waited.
    assert await counted(redis, "held") < letter["held"] <= NUMBER
