"""Whatever a handler's function makes of a key costs the event its order, and no attempt."""

from typing import Any

import pytest
from redis.asyncio import Redis

from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization
from worker.pipeline.transitions import Settled


@pytest.mark.parametrize(
    "made", ["\ud800", 1.5, True, b"k", object(), ValueError(), SystemExit(1), GeneratorExit()]
)
async def test_a_key_that_is_none_costs_the_order_only(redis: Redis, made: object) -> None:
    handlers = Handlers()

    def key_of(_event: Event[Any]) -> Any:
        if isinstance(made, BaseException):
            raise made
        return made

    @handlers.on("order.updated", key=key_of)
    async def handles(_event: Event[Any], _organization: Organization) -> None: ...

    place = Workplace(redis, handlers)
    assert await place.handle(body()) is Settled.DONE
    assert place.lines.events() == ["event_key_unread", "event_handled"]
