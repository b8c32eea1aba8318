"""Handlers that do what an event's data tells them: for tests of whole programs."""

import asyncio
import os
import signal
from typing import Any, Literal

import msgspec

from worker import Event, Handlers, Organization, Reject, Retry

handlers = Handlers()


class Script(msgspec.Struct):
    """What is to happen.

    Attributes:
        act: what the handler does.
        then: what it does after it has waited.
        times: how many attempts fail.
        path: of the file that it waits for.
    """

    act: str = "count"
    then: str = ""
    times: int = 0
    path: str = ""


async def _await_file(path: str) -> None:
    """Wait until somebody makes a file."""
    while not os.path.exists(path):  # noqa: ASYNC240, PTH110  # a look at a local file
        await asyncio.sleep(0.01)


class Choice(msgspec.Struct):
    """Data of which a handler takes only some values.

    Attributes:
        kind: one of them.
    """

    kind: Literal["plain"]


@handlers.on("order.created")
async def choose(event: Event[Choice], organization: Organization) -> None:
    """Take nothing but the right kind."""


@handlers.on("*")
async def act(event: Event[Script], organization: Organization) -> Any:
    """Count the event in the state, after whatever else it says."""
    await organization.state.increment("handled")
    await organization.state.increment(f"handled/{event.id}")
    if event.data.act == "wait":
        organization.log.info("waiting")
        await _await_file(event.data.path)
    match event.data.then or event.data.act:
        case "fail" if event.attempt <= event.data.times:
            raise KeyError("as told")
        case "later" if event.attempt <= event.data.times:
            return Retry(after=3600)
        case "garble":
            raise ValueError("\ud800")
        case "reject":
            return Reject("as told")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
    return None
