"""Facts about types of the author's that raise when data is decoded to them."""

import os
from typing import Final

import msgspec
import pytest
from redis.asyncio import Redis

from tests.integration.jobs import reach
from tests.integration.workplace import Workplace, body
from worker import Event, Failure, Handlers, Organization
from worker.operate import dead_letters, dead_lists
from worker.pipeline.transitions import Settled

TOKEN: Final = "t0ken-of-acme"


class Suspicious(msgspec.Struct):
    """Data that is never what it should be."""

    how: str

    def __post_init__(self) -> None:
        raise (ValueError if self.how == "wrong" else KeyError)(os.environ["ERP_TOKEN"])


async def test_what_a_type_of_the_author_raises_is_told_without_secrets(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERP_TOKEN", TOKEN)
    handlers, told = Handlers(), []

    @handlers.on("*")
    async def takes(event: Event[Suspicious], organization: Organization) -> None: ...

    @handlers.on_error
    @handlers.on_dead
    async def sees(failure: Failure) -> None:
        told.append(failure.error)

    place = Workplace(redis, handlers)
    assert await place.handle(body("evt_1", data={"how": "wrong"})) is Settled.DEAD
    assert await place.handle(body("evt_2", data={"how": "raises"})) is Settled.RETRIED
    await place.pipeline.hooks.drain(5)
    assert told == ["data: ***", "KeyError: '***'"]
    (line,) = place.lines.of("event_step_failed")
    assert "__post_init__" in line["traceback"]
    assert TOKEN not in place.lines.text()
    (letter,) = [each async for each in dead_letters.select(reach(redis), dead_lists.Filter())]
    assert letter.error == "data: ***"
