"""The inbox: whose work a database has committed, a row for each event and part."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Index,
    MetaData,
    Table,
    Text,
    delete,
    func,
    inspect,
    select,
    tuple_,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement

from shared.errors import SettingsError
from worker.opened import Known
from worker.sql.dialects import Kind, kind_of, read_url, reading, where, why

METADATA: Final = MetaData()

TABLE: Final = Table(
    "sellfern_inbox",
    METADATA,
    Column("organization", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("part", Text, primary_key=True, server_default=""),
    # Of the transaction's beginning: it is told apart from others by days, not by seconds.
    Column("committed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    sqlite_with_rowid=False,
)
# By the time, since whoever prunes looks for the oldest: without it, at all of them.
Index("sellfern_inbox_committed_at", TABLE.c.committed_at)

_ROW: Final = (TABLE.c.organization, TABLE.c.event_id, TABLE.c.part)

_AT_ONCE: Final = 500
_MOST_BATCHES: Final = 200
"""A look; the next one goes on where this one stops."""
_PAUSE: Final = 0.02
"""Seconds between two: handlers need the database, too, and one of SQLite has one writer."""


class Entry(NamedTuple):
    """What names a row.

    Attributes:
        organization: its id.
        event_id: Sellfern's.
        part: of the event's work; empty where there is one only.
    """

    organization: str
    event_id: str
    part: str


def stands(session: Session, entry: Entry) -> bool:
    """Whether this transaction sees the row, and so is the one that wrote it."""
    found = select(1).where(*(name == value for name, value in zip(_ROW, entry, strict=True)))
    return session.execute(found).scalar() is not None


def is_there(connection: Connection) -> bool:
    """Whether the table is."""
    return inspect(connection).has_table(TABLE.name)


# Made, for those who have no migrations


def statements(url: str) -> str:
    """What makes it, to be run by others.

    Raises:
        SettingsError: the URL is none.
    """
    dialect = create_async_engine(read_url(url)).dialect
    made: list[DDLElement] = [CreateTable(TABLE), *map(CreateIndex, TABLE.indexes)]
    return "\n".join(f"{str(each.compile(dialect=dialect)).strip()};" for each in made)


async def create(url: str) -> bool:
    """Make it; ``False``: it was there.

    Raises:
        SettingsError: the URL is none, or the database didn't let it.
    """
    engine = create_async_engine(read_url(url))
    # On SQLite, too, the table and its index are one transaction then.
    kind_of(engine.url, engine.dialect.paramstyle).prepare(engine.sync_engine)
    try:
        with suppress(DBAPIError):  # somebody else may make it just now
            return await _made(engine)
        return await _made(engine)
    except Exception as exc:  # of the driver, the system or SQLAlchemy
        expected = f"to make a table in {where(engine.url)}"
        raise SettingsError("database", expected, why(exc)[:300]) from exc
    finally:
        await engine.dispose()


async def _made(engine: AsyncEngine) -> bool:
    async with engine.begin() as connection:
        if await connection.run_sync(is_there):
            return False
        await connection.run_sync(METADATA.create_all, checkfirst=False)
        return True


# Pruned


class Pruning:
    """One database's.

    Args:
        engine: where the inbox is.
        kind: of the database.
    """

    def __init__(self, engine: AsyncEngine, kind: Kind) -> None:
        self._engine = engine
        self._kind = kind
        self._kept = 0  # of the oldest, from which the next look goes on

    async def run(
        self,
        are_over: Callable[[Sequence[Known]], Awaitable[Sequence[bool]]],
        older_than: float,
    ) -> int:
        """Remove the rows that are older than so many seconds and whose events are over.

        An event that is dead, or under way, may run again however old it is: without its row it
        would be written twice.
        """
        gone = 0
        for _ in range(_MOST_BATCHES):
            rows = await self._oldest(older_than)
            if not rows:
                self._kept = 0
                break
            over = await are_over([(organization, event) for organization, event, _ in rows])
            going = [row for row, is_over in zip(rows, over, strict=True) if is_over]
            await self._remove(going)
            gone += len(going)
            self._kept += len(rows) - len(going)
            await asyncio.sleep(_PAUSE)
        return gone

    async def _oldest(self, older_than: float) -> list[tuple[str, str, str]]:
        old = TABLE.c.committed_at < self._kind.before(older_than)
        found = select(*_ROW).where(old).order_by(TABLE.c.committed_at, *_ROW)
        async with reading(self._engine, self._kind) as connection:
            rows = await connection.execute(found.offset(self._kept).limit(_AT_ONCE))
            return [(organization, event, part) for organization, event, part in rows]

    async def _remove(self, rows: list[tuple[str, str, str]]) -> None:
        if rows:
            async with self._engine.begin() as connection:
                await connection.execute(delete(TABLE).where(tuple_(*_ROW).in_(rows)))
