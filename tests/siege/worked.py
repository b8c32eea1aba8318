"""One attack that reaches a worker: how long healthy events waited meanwhile, and what it cost."""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import aiohttp
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from shared.queue.held_bytes import RedisMemory
from tests.bench.environments import ROOT
from tests.bench.figures import percentile
from tests.bench.programs import INGRESS, WORKER, Program, environment
from tests.ingress_support import ENDPOINTS, ask, request_bytes
from tests.siege.genuine import PATIENCE
from tests.siege.handlers import SEEN
from tests.siege.process import command
from tests.siege.siege import LEAD, rss
from tests.siege.worker_attackers import CAPTURED, event

_EVERY: Final = 0.05
_LOOK: Final = 0.02
_MAXMEMORY: Final = "96mb"
_TICK: Final = 0.01  # seconds: processor time is told in these


@dataclass(slots=True)
class Worked:
    """What came of an attack.

    Attributes:
        waits: seconds from the delivery of each healthy event until its handler ran.
        sent: how many of them there were.
        captured_runs: how often the captured event's handler ran.
        others: how many of the attackers' own events were handled.
        held: how many of its redeliveries its dead letter has held.
        stood: the longest that the worker's loop took to answer whether it lives, in seconds of
            its own processor time.
        rss: bytes that the worker had at its peak.
        filled: the share of its memory that Redis had in use at the end.
        is_open: whether the breaker of the healthy events' organization has opened.
    """

    waits: list[float] = field(default_factory=list)
    sent: int = 0
    captured_runs: int = 0
    others: int = 0
    held: int = 0
    stood: float = 0.0
    rss: int = 0
    filled: float = 0.0
    is_open: bool = False

    @property
    def p99(self) -> float:
        """Of the waits, in seconds."""
        return percentile(self.waits, 0.99) if self.waits else float("inf")


class BesiegedWorker:
    """An ingress and a worker that are attacked, with a Redis of their own."""

    def __init__(self, folder: Path, redis_url: str, ingress: Program, worker: Program) -> None:
        self._folder = folder
        self._redis_url = redis_url
        self._worker = worker
        self._port = int(ingress.logged("ingress_listening")["port"])
        self._admin = int(worker.logged("admin_listening")["port"])
        self._outcome = Worked()
        worker.logged("worker_started")

    @classmethod
    @contextlib.asynccontextmanager
    async def begun(cls, **changes: str) -> AsyncIterator["BesiegedWorker"]:
        """Start both; the changes are to their settings."""
        with (
            TemporaryDirectory(prefix="sellfern-siege-") as name,
            EmbeddedRedis(maxmemory=_MAXMEMORY) as redis,
        ):
            folder = Path(name)
            endpoints = folder / "endpoints.toml"
            endpoints.write_text(ENDPOINTS)
            seen = folder / "seen"
            seen.touch()
            ours = {
                "DURABILITY": "memory",
                "WORKER_HANDLERS": "tests.siege.handlers:handlers",
                "MAX_ATTEMPTS": "1",
                "BREAKER_FAILURES": "5",
                SEEN: str(seen),
            }
            environ = environment(redis.url, endpoints, **ours, **changes)
            with (
                Program.started(INGRESS, environ, folder / "ingress.log") as ingress,
                Program.started(WORKER, environ, folder / "worker.log") as worker,
            ):
                yield cls(folder, redis.url, ingress, worker)

    async def attacked(self, name: str, seconds: float, rate: float | None = None) -> Worked:
        """Attack it, and deliver healthy events meanwhile."""
        sent: dict[str, float] = {}
        attackers = await asyncio.create_subprocess_exec(
            *command(name, self._port, LEAD + seconds, rate), cwd=ROOT
        )
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.sleep(LEAD)
            await self._deliver(sent, seconds)
            await attackers.wait()
        finally:
            watching.cancel()
            if attackers.returncode is None:
                attackers.kill()
                await attackers.wait()
        return await self._told(sent)

    async def _deliver(self, sent: dict[str, float], seconds: float) -> None:
        for _ in range(round(seconds / _EVERY)):
            name = f"evt_healthy{len(sent)}"
            sent[name] = time.time()
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    body = event("org_acme", "order.updated", "{}", name)
                    await ask(self._port, request_bytes(body))
            await asyncio.sleep(_EVERY)

    async def _told(self, sent: dict[str, float]) -> Worked:
        outcome = self._outcome
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not sent.keys() <= (seen := self._seen()).keys():
                    await asyncio.sleep(_LOOK)
        seen = self._seen()
        outcome.sent = len(sent)
        outcome.waits = [seen[name][0] - at for name, at in sent.items() if name in seen]
        outcome.captured_runs = len(seen.get(CAPTURED, ()))
        outcome.others = len(seen.keys() - sent.keys() - {CAPTURED})
        async with Redis.from_url(self._redis_url) as redis:
            memory = RedisMemory.of(await redis.info("memory"))
            outcome.filled = memory.used / memory.limit
            outcome.is_open = await redis.zscore(keys.BREAKERS, "org_acme") is not None
            for job in await redis.zrange(keys.dead("org_acme"), 0, -1):
                outcome.held += int(await redis.hget(keys.dead_letter(job.decode()), "held") or 0)
        return outcome

    def _seen(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = defaultdict(list)
        for line in (self._folder / "seen").read_text().splitlines():
            name, _, at = line.partition(" ")
            found[name].append(float(at))
        return found

    async def _watch(self) -> None:
        url = f"http://127.0.0.1:{self._admin}/livez"
        async with aiohttp.ClientSession() as session:
            while True:
                asked, used = time.perf_counter(), self._worker.cpu_seconds()
                async with session.get(url) as answer:
                    await answer.read()
                # Of a loop that stands the processor is busy; else others had it meanwhile.
                worked = self._worker.cpu_seconds() - used + _TICK
                stood = min(time.perf_counter() - asked, worked)
                self._outcome.stood = max(self._outcome.stood, stood)
                self._outcome.rss = max(self._outcome.rss, rss(self._worker.pid))
                await asyncio.sleep(_LOOK)
