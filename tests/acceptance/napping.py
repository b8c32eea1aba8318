"""Handlers that take a while, and one event that ends its worker: for tests of recovery."""

import asyncio
import os
from pathlib import Path

import msgspec

from worker import Event, Handlers, Organization

handlers = Handlers()


class Nap(msgspec.Struct):
    """What is to happen.

    Attributes:
        gate: a file before which nothing does.
        seconds: that the handler takes after that.
        exits: whether it ends its worker then.
    """

    gate: str
    seconds: float = 0.0
    exits: bool = False


@handlers.on("*")
async def nap(event: Event[Nap], organization: Organization) -> None:
    """Count the event in the state, after a while."""
    organization.log.info("napping")
    await organization.state.increment("handled")
    gate = Path(event.data.gate)
    while not gate.exists():  # noqa: ASYNC240  # a look at a local file
        await asyncio.sleep(0.02)
    await asyncio.sleep(event.data.seconds)
    if event.data.exits:
        os._exit(3)
