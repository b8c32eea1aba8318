"""The transaction in which a handler's work is done: nobody but its owner ends it."""

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from shared.errors import HandlerError
from worker.sql.dialects import Kind
from worker.sql.inbox import Entry, stands

_FAILED: Final = "sellfern_failed"
"""Of a connection: a statement has failed since the transaction, or a savepoint, began."""
_CONNECTION: Final = "sellfern_connection"
"""Of a session: the one that it has taken."""
_BEGUN: Final = "sellfern_begun"
"""Of a session: its transaction, in which the inbox's row is."""


class OwnedSession(Session):
    """A session that is lent: it is ended by who made it, once, and by nobody else."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise HandlerError(
            "the session that a handler is given is committed and closed for it: expected no "
            "commit(), rollback() or close(); raise to have nothing written"
        )

    commit = rollback = close = reset = invalidate = _refuse


def enter(session: Session, kind: Kind, entry: Entry, isolation: str | None) -> bool:
    """Begin, and write the inbox's row; whether it was new."""
    options = kind.options(reads=False, isolation=isolation)
    connection = _begin(session, options)
    session.info[_BEGUN] = session.get_transaction()
    return kind.enter(connection, entry)


def see(session: Session, kind: Kind, organization: str) -> None:
    """Begin to read what is an organization's."""
    kind.see(_begin(session, kind.options(reads=True, isolation=None)), organization)


def _begin(session: Session, options: Mapping[str, Any]) -> Connection:
    session.info[_CONNECTION] = connection = session.connection(execution_options=options)
    return connection


def finish(session: Session, kind: Kind, entry: Entry) -> None:
    """Commit, with the row.

    Raises:
        HandlerError: the row wouldn't be committed.
    """
    session.flush()
    if not _is_whole(session, kind, entry):
        raise HandlerError("once: the transaction had ended before `save` returned")
    Session.commit(session)
    Session.close(session)


def _is_whole(session: Session, kind: Kind, entry: Entry) -> bool:
    """Whether what would be committed is what `enter` began: nobody would be told otherwise."""
    if session.get_transaction() is not session.info[_BEGUN]:
        return False
    connection = session.connection()
    # PostgreSQL answers the commit of a transaction that has failed as if all were well.
    if connection.info.get(_FAILED) and not stands(session, entry):
        return False
    return kind.is_begun(connection.connection.driver_connection)


def give_up(session: Session) -> None:
    """Roll back, if there is anything to."""
    try:
        Session.close(session)
    except Exception:  # noqa: BLE001  whatever it is
        # A task that `save` began has a statement under way, and nothing else can be said to the
        # server: the connection would never come back, with the locks that it has.
        session.info[_CONNECTION].close()


def watch(engine: Engine, kind: Kind) -> None:
    """Have it noticed where a statement fails, and nothing takes that back, or ends it."""

    def drop_begun(_: object, record: ConnectionPoolEntry) -> None:
        # asyncpg's adapter takes a rollback that couldn't be said for one that was.
        if record.dbapi_connection is not None and kind.is_begun(record.driver_connection):
            record.invalidate()

    event.listen(engine, "checkin", drop_begun)
    event.listen(engine, "begin", _forget)
    event.listen(engine, "rollback_savepoint", _forget)
    event.listen(engine, "handle_error", _note)


def _forget(connection: Connection, *_: object) -> None:
    connection.info.pop(_FAILED, None)


def _note(failure: ExceptionContext) -> None:
    connection = failure.connection
    if connection is not None and not connection.closed and not connection.invalidated:
        connection.info[_FAILED] = True
