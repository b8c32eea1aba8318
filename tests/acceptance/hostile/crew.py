"""A worker under a supervisor, who begins another one when it ends."""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import Process
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
_LONGEST_TICK: Final = 0.1

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
    "MAX_CRASHES": "3",
    "BREAKER_FAILURES": "0",  # one organization fails all the time here
    "LEASE_SECONDS": "2s",
    "DRAIN_SECONDS": f"{DRAIN:g}s",
}
"""Everything comes soon, and two attempts are all."""

_MOST_WORKERS = 8


async def end_of(worker: Program) -> int:
    """Wait for the end of its process; its exit code.

    asyncio's own `wait` waits for the end of its pipes, too, which its children may inherit.
    """
    while (code := worker.process.returncode) is None:
        await asyncio.sleep(0.005)
    return code


async def ends_in_time(process: Process) -> bool:
    """Whether its process ends within the bound, in time that this process had as well.

    A busy machine may give neither of them any for seconds, and that says nothing of the worker.
    """
    left, last = BOUND, time.monotonic()
    while process.returncode is None and left > 0:
        await asyncio.sleep(0.005)
        now = time.monotonic()
        left -= min(now - last, _LONGEST_TICK)
        last = now
    return process.returncode is not None


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

    async def start_anew(self) -> None:
        """Let a worker begin with an empty Redis, whatever has been."""
        await self.kill()
        await self.redis.flushall()
        self.workers, self.codes = [], []
        await self.start()

    async def start(self) -> None:
        """Let a worker begin."""
        self._supervising = asyncio.create_task(self._supervise())
        await self.at_work()

    async def at_work(self) -> Program:
        """Wait until there is a worker that claims."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                while not self._is_at_work:
                    self._ask_supervisor()
                    await asyncio.sleep(0.01)
        assert self._is_at_work, f"no worker has started in 30 s: {self.tail()}"
        return self.workers[-1]

    @property
    def _is_at_work(self) -> bool:
        if not self.workers:
            return False
        return self.workers[-1].is_alive and bool(self.workers[-1].events("worker_started"))

    async def stop(self, codes: Collection[int]) -> None:
        """Tell the worker to stop, for good: it ends within its bound, with one of these codes."""
        worker = await self.at_work()
        await self._dismiss_supervisor()
        await self.terminate(worker, codes)

    async def terminate(self, worker: Program, codes: Collection[int]) -> None:
        """Tell a worker to stop; another one follows it."""
        began = time.monotonic()
        worker.send(signal.SIGTERM)
        if not await ends_in_time(worker.process):
            took = time.monotonic() - began
            raise AssertionError(
                f"expected the worker's end within {BOUND:g} s of SIGTERM, it lives after "
                f"{took:.1f} s: {self.tail()}"
            )
        code = await end_of(worker)
        assert code in codes, f"expected one of the exit codes {codes}, got {code}: {self.tail()}"

    async def kill(self) -> None:
        """End it, whatever it does."""
        await self._dismiss_supervisor()
        for worker in self.workers:
            if worker.is_alive:
                worker.process.kill()
                await end_of(worker)
            # Whoever inherited its stderr may live longer than it.
            await asyncio.wait([worker._reading], timeout=1)
            worker._reading.cancel()
            worker.process._transport.close()  # type: ignore[attr-defined]  # asyncio's own part

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What all of them have logged."""
        return [line for worker in self.workers for line in worker.lines]

    def tail(self) -> str:
        """The end of what the last one wrote, without the good news."""
        written = self.workers[-1].text.splitlines() if self.workers else ["(nothing)"]
        return "\n".join(
            line[:1000]
            for line in written
            if '"event_handled"' not in line and '"flood"' not in line
        )[-3000:]

    async def _supervise(self) -> None:
        while len(self.workers) < _MOST_WORKERS:
            worker = await Program.begin("worker", self.environ)
            self.workers.append(worker)
            self.codes.append(await end_of(worker))
        raise AssertionError(f"{_MOST_WORKERS} workers have ended, with {self.codes}")

    def _ask_supervisor(self) -> None:
        if self._supervising is not None and self._supervising.done():
            self._supervising.result()

    async def _dismiss_supervisor(self) -> None:
        if self._supervising is not None:
            self._supervising.cancel()
            await asyncio.wait([self._supervising])
