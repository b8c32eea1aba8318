"""The transaction in which a handler's work is done: nobody but its owner ends it."""

from typing import Final, NoReturn

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.orm import Session

from shared.errors import HandlerError
from worker.sql.dialects import Kind
from worker.sql.inbox import Entry, stands

_FAILED: Final = "sellfern_failed"
"""Of a connection: a statement has failed since the transaction, or a savepoint, began."""
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
    connection = session.connection(execution_options=options)
    session.info[_BEGUN] = session.get_transaction()
    return kind.enter(connection, entry)


def see(session: Session, kind: Kind, organization: str) -> None:
    """Begin to read what is an organization's."""
    kind.see(
        session.connection(execution_options=kind.options(reads=True, isolation=None)), organization
    )


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
    return kind.is_begun(connection)


def give_up(session: Session) -> None:
    """Roll back, if there is anything to."""
    Session.close(session)


def watch(engine: Engine) -> None:
    """Have it noticed where a statement fails, and nothing takes that back."""
    event.listen(engine, "begin", _forget)
    event.listen(engine, "rollback_savepoint", _forget)
    event.listen(engine, "handle_error", _note)


def _forget(connection: Connection, *_: object) -> None:
    connection.info.pop(_FAILED, None)


def _note(failure: ExceptionContext) -> None:
    connection = failure.connection
    if connection is not None and not connection.closed and not connection.invalidated:
        connection.info[_FAILED] = True
