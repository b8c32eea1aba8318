"""SIGTERM to the first process of a container, at any moment of its beginning."""

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path
from time import monotonic

import pytest

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.process import PATIENCE, ROOT, environment
from tests.tools import tool

MOMENTS = 20
"""How many there are in the first two seconds."""

DRAIN = 1.0
TERM_BIT = 1 << (signal.SIGTERM - 1)


def entry_point() -> list[str]:
    """What the image starts its programs by."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    (words,) = re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)
    return list(json.loads(words))


async def contained(words: list[str], environ: dict[str, str]) -> Process:
    """A process that has its children for itself, of which the first is another's first process."""
    ours = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return await asyncio.create_subprocess_exec(
        *(str(tool("unshare")), *ours, "--pid", "--fork", "--kill-child", *words),
        env=environ,
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
    )


def first_of(outer: Process) -> int | None:
    """The first process within, once it has the signal wait, or takes it."""
    found = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    if not found:
        return None
    status = Path(f"/proc/{found[0]}/status").read_text()
    masks = re.findall(r"^Sig(?:Blk|Cgt):\t([0-9a-f]+)$", status, re.MULTILINE)
    return int(found[0]) if any(int(mask, 16) & TERM_BIT for mask in masks) else None


def script_of(program: str) -> str:
    """What a program's name runs."""
    return str(Path(sys.executable).parent / f"sellfern-{program}")


async def seconds_to_import(program: str) -> float:
    """How long it takes here to import it, once it is compiled: until then no signal is taken."""
    began = monotonic()
    for _ in range(2):
        began = monotonic()
        process = await asyncio.create_subprocess_exec(script_of(program), "--help", stdout=DEVNULL)
        assert await process.wait() == 0
    return monotonic() - began


async def seconds_to_end(
    program: str, moment: float, environ: dict[str, str], most: float
) -> float:
    """How long it takes to end where SIGTERM comes so many seconds after its beginning."""
    outer = await contained([*entry_point(), script_of(program)], environ)
    try:
        async with asyncio.timeout(PATIENCE):
            while (inner := first_of(outer)) is None:
                await asyncio.sleep(0.001)
        await asyncio.sleep(moment)  # the time itself is what is tried
        os.kill(inner, signal.SIGTERM)
        sent = monotonic()
        async with asyncio.timeout(most):
            assert await outer.wait() in {0, 128 + signal.SIGTERM}
        return monotonic() - sent
    finally:
        if outer.returncode is None:
            outer.kill()
            await outer.wait()


@pytest.mark.parametrize("program", ["ingress", "worker"])
async def test_sigterm_at_any_moment_ends_it_within_its_time(
    redis_server: EmbeddedRedis, tmp_path: Path, program: str
) -> None:
    environ = environment(redis_server.url, tmp_path, DRAIN_SECONDS=f"{DRAIN:g}s")
    at_once = asyncio.Semaphore(2)
    # Two seconds are four times what it takes where nobody else has the processors.
    most = DRAIN + max(2.0, 4 * await seconds_to_import(program))

    async def seconds(moment: float) -> float:
        async with at_once:
            return await seconds_to_end(program, moment, environ, most)

    moments = [2 * number / MOMENTS for number in range(MOMENTS)]
    taken = await asyncio.gather(*map(seconds, moments))
    assert max(taken) < most, dict(zip(moments, taken, strict=True))
