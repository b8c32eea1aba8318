"""The worker as a process of its own, as an operator starts it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

from deploy.local.embedded_redis import EmbeddedRedis

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
ENDPOINTS = """
[[endpoint]]
id = "acme"
organization_id = "org_a"
secrets = ["whsec_a"]

[[endpoint]]
id = "bolt"
organization_id = "org_b"
secrets = ["whsec_b"]
"""


class WorkerProcess:
    """A running worker and what it has logged so far."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, environ: Mapping[str, str]) -> Self:
        """Start it; returns once it claims."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "worker", cwd=ROOT, env=environ, stderr=PIPE
        )
        worker = cls(process)
        await worker.logged("worker_started")
        return worker

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._changed:
                with contextlib.suppress(ValueError):
                    self.lines.append(json.loads(line))
                self._changed.notify_all()

    async def logged(self, event: str, times: int = 1) -> list[dict[str, Any]]:
        """Wait until an event has been logged so often."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines if line["event"] == event]

        async with self._changed:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._changed.wait_for(lambda: len(found()) >= times)
            except TimeoutError:
                raise AssertionError(f"no {event}; logged: {self.lines[-20:]}") from None
        return found()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; its exit code."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await self._reading
        return code

    async def stop(self) -> None:
        """End it, whatever it does."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.terminate()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await self._reading


def environment(server: EmbeddedRedis, folder: Path, **changes: str) -> dict[str, str]:
    """A worker's environment for tests: short leases, its handlers from this folder."""
    endpoints = folder / "endpoints.toml"
    if not endpoints.exists():
        endpoints.write_text(ENDPOINTS)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    return {
        **kept,
        "REDIS_URL": server.url,
        "ENDPOINTS_FILE": str(endpoints),
        "LOG_FORMAT": "json",
        "WORKER_ADMIN_PORT": "0",
        "WORKER_HANDLERS": "tests.acceptance.acting:handlers",
        "LEASE_SECONDS": "1s",
        "BACKOFF_BASE": "10ms",
        "BACKOFF_CAP": "50ms",
        **changes,
    }


@contextlib.asynccontextmanager
async def running(
    environ: Mapping[str, str], number: int = 1
) -> AsyncIterator[list[WorkerProcess]]:
    """So many workers, ended with the block."""
    workers: list[WorkerProcess] = []
    try:
        while len(workers) < number:
            workers += [await WorkerProcess.start(environ)]
        yield workers
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))
