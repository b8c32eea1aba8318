"""Fixtures for tests of the console."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.integration.console.site import Site, browsing
from tests.integration.workplace import Workplace
from worker import Event, Handlers, Organization


@pytest.fixture
def place(redis: Redis) -> Workplace:
    """Give a worker's inside whose handlers do nothing, or fail when the order says so."""
    handlers = Handlers()

    @handlers.on("order.*")
    async def act(event: Event[dict[str, str]], organization: Organization) -> None:
        if event.data["order_id"] == "bad":
            raise KeyError("as told")

    return Workplace(redis, handlers)


@pytest.fixture
async def site(redis: Redis) -> AsyncIterator[Site]:
    """Give a console on loopback without a token."""
    async with browsing(redis) as found:
        yield found
