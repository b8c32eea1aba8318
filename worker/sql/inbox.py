"""The inbox: whose work a database has committed, a row for each event and part."""

from typing import Final, NamedTuple

from sqlalchemy import (
    Column,
    DateTime,
    Index,
    MetaData,
    Table,
    Text,
    func,
    select,
)
from sqlalchemy.orm import Session

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
    names = (TABLE.c.organization, TABLE.c.event_id, TABLE.c.part)
    found = select(1).where(*(name == value for name, value in zip(names, entry, strict=True)))
    return session.execute(found).scalar() is not None
