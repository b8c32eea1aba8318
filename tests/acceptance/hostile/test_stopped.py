"""Facts about a worker that is told to stop while a handler misbehaves: it ends in time."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.hostile.account import Case
from tests.acceptance.hostile.crew import Crew
from tests.acceptance.hostile.row import DRAINED, Row
from tests.acceptance.hostile.table import STOPPING


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in STOPPING])
async def test_sigterm_ends_it_in_time_and_another_worker_handles_the_event(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, row: Row
) -> None:
    async def terminate(case: Case) -> None:
        await case.crew.terminate(await case.crew.at_work(), row.drained)

    async with Crew.working(redis, redis_server.url, tmp_path, **row.settings) as crew:
        await Case(crew, row).hold(terminate)
        await crew.stop((DRAINED,))
