"""A worker under a supervisor, who begins another one when it ends."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any, Final, Self

from redis.asyncio import Redis

from tests.acceptance.hostile.notes import FOLDER
from tests.acceptance.process import Program, environment

SLOTS: Final = 8
DRAIN: Final = 2.0
BOUND: Final = DRAIN + 5
"""Seconds from SIGTERM to the end of the process, at the most."""

PATIENCE: Final = float(os.environ.get("HOSTILE_PATIENCE", "2"))
"""How much longer than on a quiet machine things may take; what never comes fails only then."""

SETTINGS: Final = {
    "WORKER_HANDLERS": "tests.acceptance.hostile.handlers:handlers",
    "WORKER_CONCURRENCY": str(SLOTS),
    "ORGANIZATION_CONCURRENCY": str(SLOTS),
    "HANDLER_TIMEOUT": "1s",
    "STUCK_AFTER": "500ms",
    "BLOCKED_AFTER": "300ms",
    "BACKOFF_BASE": "50ms",
    "BACKOFF_CAP": "50ms",
    "MAX_ATTEMPTS": "2",
    "MAX_CRASHES": "2",
    "BREAKER_FAILURES": "0",  # one organization fails all the time here
    "LEASE_SECONDS": "2s",
    "DRAIN_SECONDS": f"{DRAIN:g}s",
}
"""Everything comes soon, and two attempts are all."""

_MOST_WORKERS = 8


class Crew:
    """Keeps one worker at work.

    Args:
        redis: whose events are handled.
        url: of it.
        folder: for the endpoints file and what the handlers write down.
        settings: that differ from `SETTINGS`.

    Attributes:
        workers: that have been started, the last one being at work.
        codes: with which the others ended.
        environ: of each, and of commands.
    """

    def __init__(self, redis: Redis, url: str, folder: Path, **settings: str) -> None:
        self.redis = redis
        self.folder = folder
        self.workers: list[Program] = []
        self.codes: list[int] = []
        self.environ = environment(url, folder, **{**SETTINGS, FOLDER: str(folder)})
        self.environ |= settings
        if settings.get("ENDPOINTS_FILE") == "relative":
            self.environ["ENDPOINTS_FILE"] = os.path.relpath(folder / "endpoints.toml")
        self._supervising: asyncio.Task[None] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def working(
        cls, redis: Redis, url: str, folder: Path, **settings: str
    ) -> AsyncIterator[Self]:
        """One that is at work, killed with the block if it still is."""
        crew = cls(redis, url, folder, **settings)
        try:
            await crew.start()
            yield crew
        finally:
            await crew.kill()

    async def start(self) -> None:
        """Let a worker begin."""
        self._supervising = asyncio.create_task(self._supervise())
        await self.at_work()

    async def at_work(self) -> Program:
        """Wait until there is a worker that claims."""
        async with asyncio.timeout(10 * PATIENCE):
            while not (self.workers and self.workers[-1].events("worker_started")):
                self._ask_supervisor()
                await asyncio.sleep(0.01)
        return self.workers[-1]

    async def stop(self, codes: Collection[int]) -> None:
        """Tell the worker to stop, for good: it ends within its bound, with one of these codes."""
        worker = await self.at_work()
        await self._dismiss_supervisor()
        await self.terminate(worker, codes)

    async def terminate(self, worker: Program, codes: Collection[int]) -> None:
        """Tell a worker to stop; another one follows it."""
        began = time.monotonic()
        worker.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(BOUND):
                code = await worker.process.wait()
        except TimeoutError:
            took = time.monotonic() - began
            raise AssertionError(
                f"expected the worker's end within {BOUND:g} s of SIGTERM, it lives after "
                f"{took:.1f} s: {self.tail()}"
            ) from None
        assert code in codes, f"expected one of the exit codes {codes}, got {code}: {self.tail()}"

    async def kill(self) -> None:
        """End it, whatever it does."""
        await self._dismiss_supervisor()
        for worker in self.workers:
            if worker.is_alive:
                worker.process.kill()
                await worker.process.wait()
            # Whoever inherited its stderr may live longer than it.
            await asyncio.wait([worker._reading], timeout=1)
            worker._reading.cancel()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What all of them have logged."""
        return [line for worker in self.workers for line in worker.lines]

    def tail(self) -> str:
        """The end of what the last one wrote."""
        return self.workers[-1].text[-3000:] if self.workers else "(nothing)"

    async def _supervise(self) -> None:
        while len(self.workers) < _MOST_WORKERS:
            worker = await Program.begin("worker", self.environ)
            self.workers.append(worker)
            self.codes.append(await worker.process.wait())
        raise AssertionError(f"{_MOST_WORKERS} workers have ended, with {self.codes}")

    def _ask_supervisor(self) -> None:
        if self._supervising is not None and self._supervising.done():
            self._supervising.result()

    async def _dismiss_supervisor(self) -> None:
        if self._supervising is not None:
            self._supervising.cancel()
            await asyncio.wait([self._supervising])
