"""Facts about the memory of workers whose handlers leave garbage."""

import re
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.process import environment
from tests.acceptance.test_worker_process import handled
from tests.acceptance.worker_process import running
from tests.integration.workplace import Workplace, body

MIB = 1024 * 1024


def most_memory(pid: int) -> int:
    """The largest resident size that a process has had so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (kibibytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kibibytes) * 1024


@pytest.mark.usefixtures("executed")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
async def test_cycles_that_hold_a_mebibyte_each_do_not_fill_the_memory(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    environ = environment(
        redis_server.url, tmp_path, WORKER_HANDLERS="tests.acceptance.littering_handlers:handlers"
    )
    place = Workplace(redis)
    async with running(environ) as (worker,):
        await place.accept(body(data={}))
        await handled(redis, 1)
        before = most_memory(worker.process.pid)
        await place.accept(*(body(data={"size": MIB}) for _ in range(600)))
        await handled(redis, 601)
        grown = most_memory(worker.process.pid) - before
    # What it may grow by, and what it may have claimed meanwhile.
    assert grown < (64 + 2 * 48 + 16) * MIB
