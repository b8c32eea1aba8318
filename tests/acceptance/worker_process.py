"""Workers as processes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from tests.acceptance.process import ROOT, Program


@contextlib.asynccontextmanager
async def running(
    environ: Mapping[str, str], number: int = 1, *, folder: Path = ROOT
) -> AsyncIterator[list[Program]]:
    """So many workers that claim, ended with the block; started from their source's folder."""
    workers: list[Program] = []
    try:
        while len(workers) < number:
            workers += [await Program.begin("worker", environ, folder)]
        await asyncio.gather(*(worker.logged("worker_started") for worker in workers))
        yield workers
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))
