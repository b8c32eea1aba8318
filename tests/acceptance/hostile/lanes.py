"""Does misdeeds side by side, each to a worker of its own.

A worker that is held up, or drained, mostly waits: one after the other took minutes.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.hostile.crew import Crew
from tests.acceptance.hostile.row import Family, Row

LANES: Final = 3
"""As many as two cores bear, beside the other tests."""

Hold = Callable[[Crew, Row], Awaitable[None]]
Outcomes = dict[str, asyncio.Task[None]]
"""What becomes of the misdeed of each test, by the test's id."""


def begun(hold: Hold) -> Callable[..., AsyncIterator[Outcomes]]:
    """A fixture that begins the misdeeds of all tests of a file, in their order.

    Args:
        hold: does a misdeed to a crew.
    """

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def outcomes(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> AsyncIterator[Outcomes]:
        free: asyncio.Queue[EmbeddedRedis] = asyncio.Queue()
        with contextlib.ExitStack() as servers:
            for _ in range(LANES):
                free.put_nowait(servers.enter_context(EmbeddedRedis(appendfsync=None)))
            outcomes = {
                test.nodeid: asyncio.create_task(
                    _lane(free, _row(test), tmp_path_factory.mktemp("lane"), hold)
                )
                for test in request.session.items
                if isinstance(test, pytest.Function) and test.path == request.path
            }
            yield outcomes
            for task in outcomes.values():  # none, unless pytest has been told to stop
                task.cancel()
            await asyncio.wait(outcomes.values())

    return outcomes


def rows(*families: Family) -> pytest.MarkDecorator:
    """Have a test for each of their rows."""
    return pytest.mark.parametrize(
        "row", [pytest.param(row, id=row.name) for family in families for row in family]
    )


def _row(test: pytest.Function) -> Row:
    row = test.callspec.params["row"]
    assert isinstance(row, Row)
    return row


async def _lane(free: asyncio.Queue[EmbeddedRedis], row: Row, folder: Path, hold: Hold) -> None:
    server = await free.get()
    try:
        async with Redis.from_url(server.url) as redis:
            await redis.flushall()
            async with Crew.working(redis, server.url, folder, **row.settings) as crew:
                await hold(crew, row)
    finally:
        free.put_nowait(server)
