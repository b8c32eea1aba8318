"""One attack on one ingress: what the genuine senders got, and what it cost."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from deploy.local.embedded_redis import EmbeddedRedis
from tests.bench.environments import ROOT
from tests.bench.programs import INGRESS, Program, environment
from tests.ingress_support import ENDPOINTS
from tests.siege.genuine import Tally, deliver
from tests.siege.process import command

LEAD: Final = 1.0
"""Seconds that the attackers have before genuine senders come."""

_LOOK: Final = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attack.

    Attributes:
        tallies: of the genuine senders, by their kind.
        cpu: share of one processor that the ingress took.
        rss: bytes that it had at its peak.
        after: of those who came when it was over.
    """

    tallies: dict[str, Tally]
    cpu: float
    rss: int
    after: dict[str, Tally]


class Besieged:
    """An ingress that is attacked, with a Redis of its own.

    Attributes:
        port: where deliveries come in.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.port = int(program.logged("ingress_listening")["port"])

    @classmethod
    @contextlib.asynccontextmanager
    async def begun(cls) -> AsyncIterator["Besieged"]:
        """One with the settings that it has by itself."""
        with TemporaryDirectory(prefix="sellfern-siege-") as folder, EmbeddedRedis() as redis:
            endpoints = _written(folder)
            environ = environment(redis.url, endpoints, DURABILITY="memory")
            with Program.started(INGRESS, environ, Path(folder, "ingress.log")) as program:
                yield cls(program)

    async def quiet(self, seconds: float) -> dict[str, Tally]:
        """What genuine senders get while nobody attacks."""
        return await deliver(self.port, seconds)

    async def attacked(self, name: str, seconds: float, rate: float | None = None) -> Outcome:
        """Attack it, at most at so many bytes a second, and deliver meanwhile and afterwards."""
        attackers = await asyncio.create_subprocess_exec(
            *command(name, self.port, LEAD + seconds, rate), cwd=ROOT
        )
        watching = asyncio.create_task(self._peak())
        try:
            await asyncio.sleep(LEAD)
            before = self._program.cpu_seconds()
            tallies = await deliver(self.port, seconds)
            cpu = (self._program.cpu_seconds() - before) / seconds
            await attackers.wait()
        finally:
            watching.cancel()
            if attackers.returncode is None:
                attackers.kill()
                await attackers.wait()
        await asyncio.sleep(2.0)  # what everything has to be as before
        return Outcome(tallies, cpu, self._rss_peak, await deliver(self.port, 1.0))

    async def _peak(self) -> None:
        self._rss_peak = 0
        while True:
            self._rss_peak = max(self._rss_peak, rss(self._program.pid))
            await asyncio.sleep(_LOOK)


def _written(folder: str) -> Path:
    path = Path(folder, "endpoints.toml")
    path.write_text(ENDPOINTS)
    return path


def rss(pid: int) -> int:
    """The bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
