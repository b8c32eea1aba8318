"""Facts about the time that a killed worker costs the events that it had in flight."""

import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance.process import Program, environment, until
from tests.acceptance.worker_process import running
from tests.integration.jobs import NOTHING, account, counters
from tests.integration.workplace import Workplace, body

IN_FLIGHT = 100
LEASE = 2.0
DEATHS = 3
"""Of the poison, beside the two kills: in a group of 13, in one of two, and alone."""


class Recovery:
    """A hundred events, a worker that has them all in flight, and what comes after its end.

    Args:
        redis: a client of it.
        url: of the same.
        folder: for the gate, before which no handler does anything.
    """

    def __init__(self, redis: Redis, url: str, folder: Path) -> None:
        self.redis = redis
        self.gate = folder / "gate"
        self.environ: Mapping[str, str] = environment(
            url,
            folder,
            WORKER_HANDLERS="tests.acceptance.napping:handlers",
            LEASE_SECONDS=f"{LEASE:g}s",
            ORGANIZATION_CONCURRENCY="200",
        )

    async def seconds(self, *, kills: int, poison: bool = False) -> float:
        """Kill so many workers that have all in flight; from the last kill to the last end.

        Others have started before it, so that nobody's start is part of it.
        """
        await self.redis.flushall()
        self.gate.unlink(missing_ok=True)
        spare = 1 + DEATHS if poison else 1
        await Workplace(self.redis).accept(
            *(self.event(n, poison=poison) for n in range(IN_FLIGHT))
        )
        for _ in range(kills - 1):
            async with self.victim() as worker:
                await self.kill(worker)
        async with self.victim() as worker, running(self.environ, spare):
            self.gate.touch()
            await self.kill(worker)
            started = monotonic()
            await until(self.is_over, patience=60)
            return monotonic() - started

    @asynccontextmanager
    async def victim(self) -> AsyncIterator[Program]:
        """A worker, once it has all of them in flight."""
        async with running(self.environ) as (worker,):
            await worker.logged("napping", IN_FLIGHT)
            yield worker

    async def kill(self, worker: Program) -> None:
        worker.send(signal.SIGKILL)
        await worker.ended()

    def event(self, number: int, *, poison: bool) -> bytes:
        exits = poison and number == IN_FLIGHT // 2
        seconds = 0.1 if exits else 0.1 + 0.2 * number / IN_FLIGHT
        data = {"gate": str(self.gate), "seconds": seconds, "exits": exits}
        return body(f"evt_{number}", data=data)

    async def is_over(self) -> bool:
        return int(await self.redis.exists(keys.ACCEPTED)) == 0


@pytest.fixture
async def recovery(redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path) -> Recovery:
    return Recovery(redis, redis_server.url, tmp_path)


async def test_two_kills_cost_no_more_than_six_times_what_one_does(
    redis: Redis, recovery: Recovery
) -> None:
    """Also with one event among them that goes on to end its workers, until it is buried."""
    once = await recovery.seconds(kills=1)
    twice = await recovery.seconds(kills=2)
    assert (await counters(redis))["handled"] == IN_FLIGHT
    assert await account(redis) == NOTHING

    poisoned = await recovery.seconds(kills=2, poison=True)
    ended = await counters(redis)
    assert (ended["handled"], ended["dead:crashed"], ended["dead"]) == (IN_FLIGHT - 1, 1, 1)
    assert int(await redis.get(keys.state("org_a", "handled")) or 0) == IN_FLIGHT - 1
    assert await redis.zcard(keys.dead("org_a")) == 1
    assert await account(redis) == NOTHING
    assert max(twice, poisoned) <= 6 * once, (once, twice, poisoned)
