"""Facts about children that a program forks: they do nothing to it."""

import os
import signal
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance.process import environment, run
from tests.acceptance.test_worker_process import handled
from tests.acceptance.worker_process import running
from tests.integration.jobs import NOTHING, account
from tests.integration.workplace import Workplace, body

ENDS = {
    "return": 70,
    "await": 70,
    "sleep": 70,
    "task": 70,
    "exit": 70,
    "term": -signal.SIGTERM,
    "early": -signal.SIGTERM,
    "thread": -signal.SIGTERM,
    "int": 70,  # KeyboardInterrupt, as Python's own handler raises it
    "own": 9,
    "end": 7,
}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("act", ENDS)
async def test_a_child_takes_neither_its_parents_signals_nor_connections_nor_loop(
    loop: str, act: str
) -> None:
    ended = await run("tests.acceptance.forking_parent", loop, act, environ=os.environ)
    said = ["own loop"] if act == "own" else []
    said += [f"child {ENDS[act]}", "peer once end", "cat fine []"]
    assert ended.stdout.splitlines() == said, ended.stderr
    assert ended.code == 0
    assert ended.stderr.count("forked_child_strayed") == (ENDS[act] == 70)


@pytest.mark.parametrize("act", ["terminate", "return", "await", "task", "exit", "raise"])
async def test_a_handlers_child_ends_and_its_worker_goes_on(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, act: str
) -> None:
    environ = environment(
        redis_server.url, tmp_path, WORKER_HANDLERS="tests.acceptance.forking_handlers:handlers"
    )
    place = Workplace(redis)
    async with running(environ) as (worker,):
        await place.accept(*(body(data={"act": act if n == 5 else ""}) for n in range(10)))
        (ended,) = await worker.logged("child_ended")
        await handled(redis, 10)
        await place.accept(body(data={}))
        await handled(redis, 11)
        assert worker.is_alive
        assert worker.events("draining") == []
        # A handler that returns in its child has done what it forked it for.
        assert ended["code"] != 0 or act in {"return", "task"}
    assert int(await redis.get(keys.state("org_a", "handled")) or 0) == 11
    assert await account(redis) == NOTHING
