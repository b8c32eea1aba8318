"""Handlers that share something: for tests of a worker's lifespan."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker import Event, Handlers, Organization, Settings


@dataclass
class Resources:
    """What they share.

    Attributes:
        greeting: what the database said.
        together: met by as many threads as there are slots.
        notes: what has happened, in order.
        lasting: set once a handler goes on for a while.
    """

    greeting: str
    together: threading.Barrier
    notes: Path
    lasting: asyncio.Event


handlers = Handlers[Resources]()


@handlers.lifespan
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    """Connect to a database, and write down when it was left."""
    if settings.get("FAILS") == "at the start":
        raise ValueError("a bad start")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(settings["DATABASE_PORT"]))
    greeting = (await reader.readline()).decode().strip()
    if not greeting:
        raise ConnectionResetError("the database isn't ready")
    slots = int(settings["WORKER_CONCURRENCY"])
    notes = Path(settings["NOTES"])
    lasting = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        if settings.get("FAILS") == "meanwhile":
            group.create_task(fails(lasting))
        yield Resources(greeting, threading.Barrier(slots, timeout=30), notes, lasting)
    if settings.get("FAILS") == "at the end":
        await asyncio.Event().wait()
    while settings.get("FAILS") == "to end":
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    with notes.open("a") as file:  # noqa: ASYNC230  # a local file
        file.write("left\n")
    writer.close()


async def fails(lasting: asyncio.Event) -> None:
    """Fail while a handler runs, with a secret."""
    await lasting.wait()
    raise ValueError(os.environ["DATABASE_PASSWORD"])


@handlers.on("order.updated")
async def greeted(event: Event[Any], organization: Organization, resources: Resources) -> None:
    """Keep what the database said."""
    await organization.state.put("greeting", resources.greeting)


@handlers.on("order.created")
async def meets(event: Event[Any], organization: Organization, resources: Resources) -> None:
    """Wait in a thread until all others do."""
    await asyncio.to_thread(resources.together.wait)


@handlers.on("order.status_changed")
async def lasts(event: Event[Any], organization: Organization, resources: Resources) -> None:
    """Go on for a while after the worker was told to stop."""
    organization.log.info("lasting")
    resources.lasting.set()
    await asyncio.sleep(0.5)
    with resources.notes.open("a") as notes:  # a local file
        notes.write("handled\n")
