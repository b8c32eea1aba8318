"""Handlers that write to a database, and may kill their worker on the way: for tests of that."""

import asyncio
import os
import random
import signal
import threading
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import msgspec
from sqlalchemy import event as events
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tests.integration.sql.shop import Line
from worker import Event, Handlers, Organization, Reject, Settings
from worker.sql import Database

POINTS = (
    "before",  # the first statement
    "begun",  # the inbox's row is written
    "written",  # and so is the work
    "committing",  # COMMIT is about to be sent
    "committed",  # its answer has come
    "returned",  # `once` has returned
    "followed",  # what comes after it has been done
    "settling",  # the handler has returned
    "any",  # at whatever moment of all that
)


class Plan(msgspec.Struct):
    """What is to happen.

    Attributes:
        kill: the point at which the worker is killed, the first time.
        rejects: whether the handler gives up after its commit.
        gate: a file before which `save` doesn't end.
    """

    kill: str = ""
    rejects: bool = False
    gate: str = ""


@dataclass
class Resources:
    """What the handlers share.

    Attributes:
        database: they write to it.
        folder: for notes of what happened.
    """

    database: Database
    folder: Path

    def note(self, name: str, text: str) -> None:
        """Add a line to a file."""
        with (self.folder / name).open("a") as file:
            file.write(f"{text}\n")

    def kill(self, event: Event[Plan], point: str) -> None:
        """End this process, if that is the event's point and it hasn't done so before."""
        if event.data.kill != point:
            return
        try:
            (self.folder / f"killed-{event.id}").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


handlers = Handlers[Resources]()
_current: ContextVar[tuple[Resources, Event[Plan]] | None] = ContextVar("current", default=None)


def _kill_current(point: str) -> None:
    current = _current.get()
    if current is not None:
        current[0].kill(current[1], point)


@handlers.lifespan
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    """Open the database, with a kill before each commit and after."""
    async with Database.open(settings["DATABASE_URL"]) as database:
        engine = database._engine.sync_engine
        events.listen(engine, "commit", lambda _: _kill_current("committing"))
        events.listen(Session, "after_commit", lambda _: _kill_current("committed"))
        yield Resources(database, Path(settings["NOTES"]))


@handlers.on("order.updated")
async def write(event: Event[Plan], organization: Organization, resources: Resources) -> None:
    """Write a line once, and note what follows."""

    async def save(session: AsyncSession, event: Event[Plan]) -> None:
        resources.kill(event, "begun")
        session.add(Line(event_id=event.id, organization=organization.id))
        await session.flush()
        resources.kill(event, "written")
        if event.data.gate:
            organization.log.info("in_save")
            while not os.path.exists(event.data.gate):  # noqa: ASYNC240, PTH110  # a local file
                await asyncio.sleep(0.01)

    _current.set((resources, event))
    if event.data.kill == "any":
        seconds = random.uniform(0, 0.02)
        threading.Timer(seconds, resources.kill, (event, "any")).start()
    resources.kill(event, "before")
    is_first = await resources.database.once(event, organization, save)
    resources.kill(event, "returned")
    resources.note("followed", event.id)
    resources.kill(event, "followed")
    if event.data.rejects and is_first:
        raise Reject("after its commit")
    if event.data.kill == "settling":
        asyncio.get_running_loop().call_soon(resources.kill, event, "settling")
