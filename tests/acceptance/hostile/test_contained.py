"""Facts about misdeeds that a worker bears, one after the other: it is the same as before."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.hostile.account import Case
from tests.acceptance.hostile.crew import Crew
from tests.acceptance.hostile.row import DRAINED, Row
from tests.acceptance.hostile.table import SHARED


class Shift:
    """The crew of one family of misdeeds; where one has harmed it, the next finds a new one."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.is_harmed = True

    async def bear(self, row: Row) -> None:
        """Do a misdeed to it."""
        if self.is_harmed:
            await self.crew.kill()
            await self.crew.redis.flushall()
            await self.crew.start()
        self.is_harmed = True
        await Case(self.crew, row).hold()
        self.is_harmed = not all(end.finished for end in row.ends)


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


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("shift", "row"),
    [pytest.param(family, row, id=row.name) for family in SHARED for row in family],
    indirect=["shift"],
)
async def test_it_is_one_outcome_an_attempt_and_nobody_elses_loss(shift: Shift, row: Row) -> None:
    await shift.bear(row)
