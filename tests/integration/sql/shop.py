"""A shop's tables, and the handlers' view of it: what the tests of ``worker.sql`` work on."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool
from structlog import get_logger

from worker import Event, Organization, State
from worker.sql import Database
from worker.sql.dialects import read_url
from worker.sql.inbox import TABLE


class Base(DeclarativeBase):
    """The shop's own tables."""


class Line(Base):
    """What a handler writes of each event: one row too many is seen."""

    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str]
    organization: Mapped[str]


class Stock(Base):
    """What handlers read and write back."""

    __tablename__ = "stock"
    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]


async def save(session: AsyncSession, event: Event[Any]) -> None:
    """One row, as a handler would."""
    session.add(Line(event_id=event.id, organization=event.organization_id))


def event(event_id: str = "evt_1", organization: str = "org_a", attempt: int = 1) -> Event[Any]:
    """An event as a handler gets it."""
    now = datetime.now(UTC)
    return Event(event_id, "order.updated", now, organization, {}, b"{}", attempt, now)


def state(stored: bytes | None = None) -> State:
    """An attempt's, which reads the same under any key."""

    async def read(_: str) -> bytes | None:
        return stored

    return State(read, event_id="evt_1", tombstone=1)


def organization(name: str = "org_a", of: State | None = None) -> Organization:
    """An organization as an attempt's handler gets it."""
    return Organization(name, of or state(), get_logger)


class Shop:
    """A database with these tables, as one worker has it open.

    Attributes:
        url: of the database.
        database: what handlers have.
        engine: another way in, for a look.
    """

    def __init__(self, url: str, database: Database, engine: AsyncEngine) -> None:
        self.url = url
        self.database = database
        self.engine = engine

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    async def once(
        self,
        event_id: str = "evt_1",
        do: Callable[[AsyncSession, Event[Any]], Awaitable[None]] = save,
        *,
        name: str = "org_a",
        **options: Any,
    ) -> bool:
        """One attempt at an event, by a handler that does nothing else."""
        return await self.database.once(event(event_id, name), organization(name), do, **options)

    async def lines(self, event_id: str = "evt_1") -> int:
        """How many rows there are of an event."""
        found = select(func.count()).where(Line.event_id == event_id)
        async with self.looking() as connection:
            return int((await connection.execute(found)).scalar_one())

    async def entries(self) -> set[tuple[str, ...]]:
        """The inbox."""
        columns = (TABLE.c.organization, TABLE.c.event_id, TABLE.c.part)
        async with self.looking() as connection:
            return {tuple(row) for row in await connection.execute(select(*columns))}

    async def execute(self, sql: str) -> None:
        """Change something behind the handlers' backs."""
        async with self.looking() as connection:
            await connection.execute(text(sql))
            await connection.commit()

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[AsyncConnection]:
        """A connection of its own."""
        async with self.engine.connect() as connection:
            yield connection


@contextlib.asynccontextmanager
async def opened_shop(url: str, **options: Any) -> AsyncIterator[Shop]:
    """A shop, with its tables made where they are missing."""
    engine = create_async_engine(read_url(url), poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(Database.metadata.create_all)
    async with Database.open(url, **options) as database:
        yield Shop(url, database, engine)
    await engine.dispose()
