"""Gives families of misdeeds their workers, as often as ``HOSTILE_TURNS`` says."""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.hostile.crew import Crew
from tests.acceptance.hostile.row import DRAINED
from tests.acceptance.hostile.shift import Shift


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make each test so many tests, in turns."""
    turns = int(os.environ.get("HOSTILE_TURNS", "1"))
    if turns > 1:
        metafunc.parametrize("turn", range(turns))


@pytest.fixture(autouse=True)
def turn() -> int:
    """Give the number of the turn."""
    return 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shift(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shift]:
    """Give a family of misdeeds its crew, and let SIGTERM end it after all of them."""
    folder = tmp_path_factory.mktemp("hostile")
    with EmbeddedRedis(appendfsync=None) as server:
        async with Redis.from_url(server.url) as redis:
            shift = Shift(Crew(redis, server.url, folder))
            try:
                yield shift
                if not shift.is_harmed:
                    await shift.crew.stop((DRAINED,))
            finally:
                await shift.crew.kill()
