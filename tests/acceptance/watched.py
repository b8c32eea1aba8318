"""Handlers that fail, and hooks that do what the event's data tells them."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from worker import Event, Failure, Handlers, Organization

handlers = Handlers()


class Script(msgspec.Struct):
    """What is to happen.

    Attributes:
        hook: what the hook does.
        path: of the file that it makes in the end.
    """

    hook: str = "nothing"
    path: str = ""


@handlers.on("*")
async def fail(event: Event[Script], organization: Organization) -> None:
    """Fail at once, unless it is asked to do nothing."""
    if event.data.hook != "nothing":
        raise KeyError("as told")


@handlers.on_error
async def watch(failure: Failure) -> Any:
    """Do as the event says."""
    assert failure.event is not None
    match failure.event.data.hook:
        case "raise":
            raise ValueError("of a hook")
        case "exit":
            sys.exit(3)
        case "block":
            time.sleep(1)  # noqa: ASYNC251  that is what it is for
        case "wait":
            await asyncio.sleep(1)
            Path(failure.event.data.path).touch()  # noqa: ASYNC240
        case "hang":
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    continue
