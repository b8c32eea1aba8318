"""Facts about programs whose log nobody reads, as when whoever collects it stands still."""

import asyncio
import fcntl
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance import warm
from tests.acceptance.process import PATIENCE, ROOT, environment, until
from tests.acceptance.test_worker_process import handled
from tests.integration.workplace import Workplace, body

PAGE = 4096

SAYS_MORE_THAN_MAY_WAIT = """
import asyncio, sys
from shared.observe import metrics
from shared.observe import logs

async def main():
    log = logs.get_logger()
    lost = metrics.LOG_LINES_LOST.labels()
    said = 0
    while lost.total < 100:
        log.info("said", number=said, filler="." * 8000)
        said += 1
        await asyncio.sleep(0)
    print(said, flush=True)
    await asyncio.to_thread(sys.stdin.readline)  # until the reader goes on
    while not logs.flush(1):
        pass
    log.info("last")

logs.configure(level="info", fmt="json")
asyncio.run(main())
"""


def narrow_pipe() -> tuple[int, int]:
    """A pipe that some lines fill."""
    reader, end = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, PAGE)
    return reader, end


async def lines_of(reader: int) -> list[dict[str, Any]]:
    """All lines until nobody writes any more."""
    with os.fdopen(reader, "rb") as file:
        return [json.loads(line) for line in await asyncio.to_thread(file.readlines)]


async def test_a_loop_goes_on_while_nobody_reads_its_log_and_the_loss_is_told_in_its_place() -> (
    None
):
    reader, end = narrow_pipe()
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SAYS_MORE_THAN_MAY_WAIT, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=end
    )
    os.close(end)
    assert program.stdin is not None
    assert program.stdout is not None
    async with asyncio.timeout(PATIENCE):
        said = int(await program.stdout.readline())
        reading = asyncio.create_task(lines_of(reader))
        program.stdin.write(b"go on\n")
        lines = await reading
        assert await program.wait() == 0
    *kept, gap, last = lines
    assert [line["number"] for line in kept] == list(range(len(kept)))
    assert (gap["event"], gap["level"], gap["count"]) == (
        "log_lines_lost",
        "warning",
        said - len(kept),
    )
    assert 7_000_000 < len(kept) * 8000 < 9_000_000
    assert last["event"] == "last"


@pytest.mark.parametrize("number", [1, 2])
async def test_a_worker_handles_and_stops_though_nobody_reads_its_log(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, number: int
) -> None:
    """Whether it may drain, or is told to end at once."""
    gate = tmp_path / "gate"
    reader, end = narrow_pipe()
    environ = environment(redis_server.url, tmp_path)
    program = await warm.start(
        sys.executable, "-m", "worker", cwd=ROOT, env=environ, stdout=DEVNULL, stderr=end
    )
    os.close(end)
    try:
        await Workplace(redis).accept(*(body(f"evt_{n}") for n in range(300)))
        await handled(redis, 300)
        held = body("evt_held", data={"act": "wait", "path": str(gate)})
        if number > 1:
            await Workplace(redis).accept(held)
            await until(lambda: _is_running(redis))
        for each in (signal.SIGTERM, signal.SIGINT)[:number]:
            program.send_signal(each)
        async with asyncio.timeout(PATIENCE / 2):
            assert await program.wait() == number - 1
    finally:
        if program.returncode is None:
            program.kill()
        os.close(reader)


async def _is_running(redis: Redis) -> bool:
    return bool(await redis.hlen("sellfern:running"))
