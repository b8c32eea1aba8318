"""Facts about misdeeds that end a worker, or outlive their event in it: others go on at once."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.hostile.account import Case
from tests.acceptance.hostile.crew import Crew
from tests.acceptance.hostile.row import Row
from tests.acceptance.hostile.table import OWN


@pytest.mark.parametrize("row", [pytest.param(r, id=r.name) for family in OWN for r in family])
async def test_it_is_charged_to_its_event_alone(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, row: Row
) -> None:
    async with Crew.working(redis, redis_server.url, tmp_path, **row.settings) as crew:
        await Case(crew, row).hold()
        await crew.stop(row.drained)
