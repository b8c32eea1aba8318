"""What differs between the databases: how a transaction begins, and which errors pass."""

import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from importlib.util import find_spec
from typing import Any, Final, Protocol

from sqlalchemy import ColumnElement, Connection, Engine, event, func, literal, make_url, text
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import await_only

from shared.errors import SettingsError

READS: Final = "sellfern_reads"
"""The execution option of a transaction that only reads."""

_SETTING: Final = "sellfern.organization"
"""What row-level security policies ask for."""

_PASSING_STATES: Final = {"40001", "40P01"}
"""A serialization failure, a deadlock."""
_AWAY_STATES: Final = ("08", "53", "57P")
_PASSING_CODES: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

_NEEDED: Final = "postgresql+asyncpg://…, postgresql+psycopg://… or sqlite+aiosqlite:///…"


class Kind(Protocol):
    """One of the databases."""

    connections: int
    """Kept where nobody says how many."""

    def prepare(self, engine: Engine) -> None:
        """Have its connections do as is needed here."""

    def options(self, *, reads: bool, isolation: str | None) -> Mapping[str, Any]:
        """Execution options of a transaction."""

    def enter(self, connection: Connection, row: tuple[str, str, str]) -> bool:
        """Write the row of the inbox; whether it was new. It is the transaction's first word."""

    def see(self, connection: Connection, organization: str) -> None:
        """Let a transaction that only reads see this organization's rows."""

    def is_begun(self, driver: Any) -> bool:
        """Whether a driver's connection is within a transaction, as far as it knows unasked."""

    def before(self, seconds: float) -> ColumnElement[datetime]:
        """So long ago, by the database's own clock."""

    def is_passing(self, error: DBAPIError) -> bool:
        """Whether the same may work a moment later."""

    def is_unreachable(self, error: BaseException) -> bool:
        """Whether it is away, which may mend itself."""

    def problems(self, connection: Connection) -> Iterator[tuple[str, str]]:
        """What its role may do too much or too little of, as a code and words."""


class PostgreSQL:
    """PostgreSQL, by asyncpg or psycopg.

    Args:
        paramstyle: the driver's.
    """

    connections = 20

    def __init__(self, paramstyle: str) -> None:
        self._is_asyncpg = paramstyle == "numeric_dollar"
        one, two, three = ("$1", "$2", "$3") if self._is_asyncpg else ("%s",) * 3
        # Row and organization in one round trip: a statement of its own for the setting would cost
        # as much as all of this. The setting is gone with the transaction.
        self._enter = (  # only its own words are put in
            "INSERT INTO sellfern_inbox (organization, event_id, part) "  # noqa: S608
            f"VALUES (set_config('{_SETTING}', {one}, true), {two}, {three}) "
            "ON CONFLICT DO NOTHING"
        )

    def prepare(self, engine: Engine) -> None:
        """Nothing is needed."""

    def options(self, *, reads: bool, isolation: str | None) -> Mapping[str, Any]:
        """Read-only is the server's own word."""
        options: dict[str, Any] = {"postgresql_readonly": True} if reads else {}
        return options if isolation is None else {**options, "isolation_level": isolation}

    def enter(self, connection: Connection, row: tuple[str, str, str]) -> bool:
        """One row or none; whoever else writes it just now is waited for."""
        return connection.exec_driver_sql(self._enter, tuple(row)).rowcount == 1

    def see(self, connection: Connection, organization: str) -> None:
        """Until the transaction's end."""
        connection.execute(_SEE, {"organization": organization})

    def is_begun(self, driver: Any) -> bool:
        """By what the server's last answer said; asyncpg doesn't tell of one that has failed."""
        if self._is_asyncpg:
            return bool(driver.is_in_transaction())
        return str(driver.info.transaction_status.name) == "INTRANS"

    def before(self, seconds: float) -> ColumnElement[datetime]:
        """By the time at which the transaction began."""
        return func.now() - literal(timedelta(seconds=seconds))

    def is_passing(self, error: DBAPIError) -> bool:
        """By SQLSTATE, which both drivers tell."""
        return getattr(error.orig, "sqlstate", None) in _PASSING_STATES

    def is_unreachable(self, error: BaseException) -> bool:
        """Nobody listens; or it starts, stops or is full."""
        # SQLAlchemy 2.0 passes the driver's own errors on where no connection was made.
        state = getattr(getattr(error, "orig", error), "sqlstate", None)
        # psycopg knows no state of a connection that it didn't get.
        unknown = state is None and isinstance(error, OperationalError)
        return isinstance(error, OSError) or unknown or str(state).startswith(_AWAY_STATES)

    def problems(self, connection: Connection) -> Iterator[tuple[str, str]]:
        """Rights on the inbox that are missing, and ways past row-level security."""
        missing = connection.execute(_RIGHTS).scalars().all()
        if missing:
            yield "inbox_not_granted", f"the role may not {', '.join(missing)} on sellfern_inbox"
        name, is_superuser, bypasses = connection.execute(_ROLE).one()
        if is_superuser or bypasses:
            role = "a superuser" if is_superuser else "a role with BYPASSRLS"
            what = f"{name} is {role}, for whom row-level security doesn't hold"
            yield "row_security_bypassed", f"{what}: expected a role that is neither"
        for table in connection.execute(_UNFORCED).scalars():
            what = f"the role owns {table}, whose policies hold for others only"
            yield "row_security_not_forced", f"{what}: ALTER TABLE {table} FORCE ROW LEVEL SECURITY"


_SEE = text(f"SELECT set_config('{_SETTING}', :organization, true)")
_ROLE = text("SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")

# Whoever owns a table, or may do as its owner does, passes its policies by unless they are forced.
_UNFORCED = text(
    "SELECT oid::regclass::text FROM pg_class "
    "WHERE relrowsecurity AND NOT relforcerowsecurity AND pg_has_role(relowner, 'USAGE') ORDER BY 1"
)
# Of no table there are no rights to be missed.
_RIGHTS = text(
    "SELECT name FROM unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) AS name "
    "WHERE NOT has_table_privilege(to_regclass('sellfern_inbox'), name)"
)


class SQLite:
    """SQLite, by aiosqlite. It has no row-level security, and one writer at a time."""

    connections = 1  # more of them would wait for one another in their threads, in no order

    def prepare(self, engine: Engine) -> None:
        """Begin transactions by our own word: Python's driver does so before the first write."""
        event.listen(engine, "connect", _leave_transactions_to_us)
        event.listen(engine, "begin", _begin)
        event.listen(engine, "handle_error", _interrupt)

    def options(self, *, reads: bool, isolation: str | None) -> Mapping[str, Any]:  # noqa: ARG002
        """Told to `_begin`; all of its transactions are serializable."""
        return {READS: reads}

    def enter(self, connection: Connection, row: tuple[str, str, str]) -> bool:
        """One row or none."""
        insert = (
            "INSERT OR IGNORE INTO sellfern_inbox (organization, event_id, part) VALUES (?,?,?)"
        )
        return connection.exec_driver_sql(insert, tuple(row)).rowcount == 1

    def see(self, connection: Connection, organization: str) -> None:
        """There is nothing to set."""

    def is_begun(self, driver: Any) -> bool:
        """It may have rolled back by itself."""
        return bool(driver.in_transaction)

    def before(self, seconds: float) -> ColumnElement[datetime]:
        """As the default of the column writes it."""
        return func.datetime("now", f"-{seconds:.0f} seconds")

    def is_unreachable(self, error: BaseException) -> bool:
        """A file is there or isn't; but somebody may be busy with it."""
        return isinstance(error, DBAPIError) and self.is_passing(error)

    def is_passing(self, error: DBAPIError) -> bool:
        """By the primary code, the lower byte."""
        code = getattr(error.orig, "sqlite_errorcode", 0)
        return code & 0xFF in _PASSING_CODES

    def problems(self, connection: Connection) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """None: it has no roles."""
        return iter(())


def _leave_transactions_to_us(connection: Any, _record: object) -> None:
    connection.isolation_level = None


def _interrupt(failure: ExceptionContext) -> None:
    """Break a statement off whose caller was cancelled: its thread would go on, with its lock."""
    connection = failure.connection
    if isinstance(failure.original_exception, Exception) or connection is None:
        return
    driver: Any = connection.connection.driver_connection
    await_only(driver.interrupt())
    # To close isn't enough: SQLite keeps the transaction for as long as anybody knows the cursor.
    await_only(driver.rollback())


def _begin(connection: Connection) -> None:
    reads = connection.get_execution_options().get(READS, False)
    if connection.info.get(READS, False) is not reads:
        connection.exec_driver_sql(f"PRAGMA query_only = {int(reads)}")
        connection.info[READS] = reads
    # A lock that is taken at the first write can't be waited for: two that have read would wait for
    # each other.
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def read_url(url: str | URL) -> URL:
    """A URL with a driver that is there.

    Raises:
        SettingsError: it is none, of another database, or the driver isn't installed. It shows
            nothing of what could be a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError("database URL", _NEEDED, "a text that is no URL") from None
    backend, _, named = parsed.drivername.partition("+")
    if backend == "postgres":  # as many hosts write it
        backend = "postgresql"
    drivers = _DRIVERS.get(backend, ())
    if not drivers or named not in ("", *drivers):
        raise SettingsError("database URL", _NEEDED, f"{parsed.drivername}://…")
    wanted = [each for each in drivers if each == (named or each)]
    driver = next((each for each in wanted if find_spec(each)), None)
    if driver is None:
        names = " or ".join(wanted)
        raise SettingsError("database URL", f"{names} to be installed", "no such package")
    return _for_driver(parsed.set(drivername=f"{backend}+{driver}"), driver)


_DRIVERS: Final = {"postgresql": ("asyncpg", "psycopg"), "sqlite": ("aiosqlite",)}


def _for_driver(url: URL, driver: str) -> URL:
    """With libpq's name of what asyncpg calls ``ssl``: hosts give their URLs out with it."""
    mode = url.query.get("sslmode")
    if driver != "asyncpg" or mode is None:
        return url
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})


def kind_of(url: URL, paramstyle: str) -> Kind:
    """The database that a URL leads to."""
    return SQLite() if url.get_backend_name() == "sqlite" else PostgreSQL(paramstyle)


def where(url: URL) -> str:
    """Which database; libpq's parameters may hold a password as well as the user's place does."""
    secret = [name for name in url.query if name.lower().endswith(("password", "secret"))]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def why(error: BaseException) -> str:
    """The first line of what an error says, or its name: a time limit's says nothing."""
    lines = f"{error}".splitlines()
    return lines[0] if lines else type(error).__name__


@asynccontextmanager
async def reading(engine: AsyncEngine, kind: Kind) -> AsyncIterator[AsyncConnection]:
    """A connection that only reads: on SQLite it waits for no writer."""
    async with engine.connect() as connection:
        await connection.execution_options(**kind.options(reads=True, isolation=None))
        yield connection
