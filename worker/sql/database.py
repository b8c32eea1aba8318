"""A handler's database: its transactions, each of an event's work with its row of the inbox."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Final, Literal, Self, TypeVar, cast, get_args
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from shared.errors import HandlerError, SellfernError, SettingsError
from shared.program.findings import Finding
from worker.events import Event, Organization
from worker.opened import OPENED, Known
from worker.sql.dialects import Kind, kind_of, read_url, reading, where, why
from worker.sql.inbox import METADATA, TABLE, Entry, Pruning, is_there
from worker.sql.transaction import OwnedSession, enter, finish, give_up, see, watch
from worker.state import State

Data = TypeVar("Data")
Isolation = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]

_MOST_RUNS: Final = 6
"""Of a transaction that others stand in the way of, before its event waits as for any failure."""
_FIRST_PAUSE: Final = 0.01
"""Seconds, of which a share by chance; twice as many each time."""


class DatabaseUnavailable(SellfernError, ConnectionError):
    """The database can't be reached just now."""


class Database:
    """A database that handlers write to, open for as long as the worker runs.

    Attributes:
        metadata: the inbox's table, for Alembic: ``target_metadata = [Base.metadata,
            Database.metadata]``.
    """

    metadata = METADATA

    def __init__(self, engine: AsyncEngine, kind: Kind) -> None:
        self._engine = engine
        self._kind = kind
        self._pruning = Pruning(engine, kind)
        # By the state, which is the attempt's own, and goes with it.
        self._parts: WeakKeyDictionary[State, set[str]] = WeakKeyDictionary()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, url: str | URL, *, connections: int | None = None, **options: Any
    ) -> AsyncIterator[Self]:
        """Connect, and close at the end of the block.

        Args:
            url: such as ``postgresql://user:password@host/name`` or ``sqlite:///path``; a driver
                may be named (``postgresql+psycopg://``). One in memory has no inbox: nobody else
                can make it there.
            connections: kept at the most; 20 for PostgreSQL, 1 for SQLite. Handlers wait for one.
            options: of SQLAlchemy's ``create_async_engine``.

        Raises:
            SettingsError: the URL is none, its driver isn't installed, or the inbox's table is
                missing.
            DatabaseUnavailable: nobody answers there, or not yet.
        """
        parsed = read_url(url)
        engine = create_async_engine(parsed, **{**_pool(parsed, connections), **options})
        kind = kind_of(parsed, engine.dialect.paramstyle)
        kind.prepare(engine.sync_engine)
        watch(engine.sync_engine, kind)
        database = cls(engine, kind)
        try:
            await database._reach()
            with _noted(database):
                yield database
        finally:
            await asyncio.shield(engine.dispose())

    def once(
        self,
        event: Event[Data],
        organization: Organization,
        save: Callable[[AsyncSession, Event[Data]], Awaitable[None]],
        *,
        part: str = "",
        isolation: Isolation | None = None,
    ) -> Coroutine[Any, Any, bool]:
        """Do an event's work in one transaction with its row of the inbox, so exactly once.

        The handler goes on either way: whatever follows is at-least-once, since a worker may die
        after the commit, and the next attempt comes by here again.

        Args:
            event: whose work it is.
            organization: as the handler got it; row-level security lets ``save`` see its rows only.
            save: does the work; it is run anew where others stood in its way (a serialization
                failure, a deadlock, a locked database), so all that it does should be in the
                session that it is given, which is committed for it.
            part: tells apart what one event has done in several transactions.
            isolation: of this transaction; without it, the database's own.

        Returns:
            Whether it is committed by now by this call; ``False``: an earlier attempt had.

        Raises:
            HandlerError: this attempt has done this part already, or holds a connection of this
                database; ``save`` is no coroutine function, or ended the transaction.
            StateError: the attempt has written to the organization's state, or has ended. Two
                commits can't be one. From here on nothing can be written there, and what was read
                there isn't checked at the commit.
            Exception: what ``save`` raised, and whatever the database did: nothing is written
                then, unless the answer to the commit was lost, and the next attempt finds out.
        """

        async def once(part: str) -> bool:
            if isolation is not None and isolation not in get_args(Isolation):
                levels = ", ".join(get_args(Isolation))
                raise HandlerError(f"once: expected an isolation level of {levels}")
            if event.organization_id != organization.id:
                raise HandlerError(f"once: expected an event of {organization.id}, got {event.id}")
            entry = Entry(organization.id, event.id, part)
            with self._as_first(organization.state, part), self._holding("once"):
                return await self._run_again(lambda: self._run(entry, event, save, isolation))

        call: Any = once(part)
        # Nothing would be written, and nobody told, where the `await` is missing.
        call.__qualname__ = "Database.once"
        organization.state.note(call)
        return cast("Coroutine[Any, Any, bool]", call)

    @contextlib.asynccontextmanager
    async def session(self, organization: Organization) -> AsyncIterator[AsyncSession]:
        """A read-only session, which row-level security lets see the organization's rows only.

        Raises:
            HandlerError: the handler holds a connection of this database already.
        """
        with self._holding("session"):
            session = self._new_session()
            try:
                await session.run_sync(see, self._kind, organization.id)
                yield session
            finally:
                await _given_up(session)

    # By whoever looks after it

    async def check(self) -> list[Finding]:
        """What of it isn't as it has to be, for ``worker check``; one that is fine if all is."""
        try:
            async with reading(self._engine, self._kind) as connection:
                problems = await connection.run_sync(self._problems)
        except Exception as exc:  # noqa: BLE001  of the driver, the system or SQLAlchemy
            problems = [("database_unreachable", why(exc))]
        database = where(self._engine.url)
        if not problems:
            return [Finding("ok", "database", "database_usable", f"{database}: can be worked with")]
        return [
            Finding("error", "database", code, f"{database}: {what}") for code, what in problems
        ]

    def _problems(self, connection: Connection) -> list[tuple[str, str]]:
        problems = list(self._kind.problems(connection))
        if not is_there(connection):
            what = f"no table {TABLE.name}; `python -m worker sql create` makes it"
            problems.insert(0, ("inbox_missing", what))
        return problems

    async def prune(
        self,
        are_over: Callable[[Sequence[Known]], Awaitable[Sequence[bool]]],
        *,
        older_than: float,
    ) -> int:
        """Remove rows of the inbox, a bounded number of them; how many.

        Args:
            are_over: tells of events, by organization and id, whether they can't run again.
            older_than: seconds; younger rows stay whatever it tells.
        """
        return await self._pruning.run(are_over, older_than)

    async def _reach(self) -> None:
        try:
            async with reading(self._engine, self._kind) as connection:
                is_ready = await connection.run_sync(is_there)
                driver = (await connection.get_raw_connection()).driver_connection
                has_begun = self._kind.is_begun(driver)
        except Exception as exc:
            if self._kind.is_unreachable(exc):
                raise DatabaseUnavailable(f"{where(self._engine.url)}: {why(exc)}") from exc
            raise
        if not has_begun:  # the inbox's row would be committed before the work
            raise HandlerError("Database.open: expected connections with transactions")
        if not is_ready:
            expected = f"the table {TABLE.name} (`python -m worker sql create` makes it)"
            raise SettingsError(where(self._engine.url), expected, "none")

    # One run

    async def _run_again(self, run: Callable[[], Awaitable[bool]]) -> bool:
        """Run it until nobody stands in its way, or has too often."""
        for pause in _pauses():
            try:
                return await run()
            except DBAPIError as exc:
                if pause is None or not self._kind.is_passing(exc):
                    raise
            await asyncio.sleep(pause)
        raise AssertionError  # the last of them has returned or raised

    async def _run(
        self,
        entry: Entry,
        event: Event[Data],
        save: Callable[[AsyncSession, Event[Data]], Awaitable[None]],
        isolation: Isolation | None,
    ) -> bool:
        session = self._new_session()
        is_finished = False
        try:
            if not await session.run_sync(enter, self._kind, entry, isolation):
                return False
            await _saved(save, session, event)
            await session.run_sync(finish, self._kind, entry)
            is_finished = True
        finally:
            if not is_finished:
                await _given_up(session)
        return True

    def _new_session(self) -> AsyncSession:
        return AsyncSession(
            self._engine,
            sync_session_class=OwnedSession,
            # What was read or written stays readable after the commit: a lazy load needs a loop.
            expire_on_commit=False,
            # Or a task that has outlived `save` would begin a transaction that nobody ends.
            close_resets_only=False,
        )

    # What can't be

    @contextlib.contextmanager
    def _as_first(self, state: State, part: str) -> Iterator[None]:
        """Have a second call be an error: it would be skipped without a word."""
        parts = self._parts.setdefault(state, set())
        if part in parts:
            raise HandlerError(
                f"once: part {part!r} of this event is done, or under way, in this attempt; "
                "expected a `part` of its own"
            )
        state.commit_elsewhere()
        parts.add(part)
        try:
            yield
        except BaseException:
            parts.discard(part)  # nothing is committed, or the inbox knows
            raise

    @contextlib.contextmanager
    def _holding(self, what: str) -> Iterator[None]:
        """Have who waits for a connection hold none: all might, with none left."""
        outer = _HELD.get()
        each = outer
        while each is not None:
            if each.database is self and each.is_open:
                raise HandlerError(
                    f"{what}: the handler holds a connection of this database already, and would "
                    "wait for another; expected it after the block or `save` that does"
                )
            each = each.outer
        held = _Held(self, outer)
        _HELD.set(held)
        try:
            yield
        finally:
            held.is_open = False
            _HELD.set(outer)


class _Held:
    """A connection that some code holds; what it starts meanwhile inherits it."""

    __slots__ = ("database", "is_open", "outer")

    def __init__(self, database: Database, outer: "_Held | None") -> None:
        self.database = database
        self.outer = outer
        self.is_open = True


_HELD: Final[ContextVar[_Held | None]] = ContextVar("sellfern_held", default=None)


async def _saved(
    save: Callable[[AsyncSession, Event[Data]], Awaitable[None]],
    session: AsyncSession,
    event: Event[Data],
) -> None:
    work: object = save(session, event)
    if not isinstance(work, Awaitable):
        raise HandlerError(f"once: expected `save` to be async def, got {type(work).__name__}")
    result = await work
    if isinstance(result, BaseException):  # a handler may return these, so this may as well
        raise result


async def _given_up(session: AsyncSession) -> None:
    """Roll back, though the handler be cancelled meanwhile: the connection has to go back."""
    await asyncio.shield(asyncio.create_task(session.run_sync(give_up)))


def _pauses() -> Iterator[float | None]:
    """Seconds to wait after each run; ``None`` after the last."""
    for number in range(_MOST_RUNS - 1):
        yield random.uniform(0.5, 1.0) * _FIRST_PAUSE * 2**number  # noqa: S311  no secret
    yield None


def _pool(url: URL, connections: int | None) -> dict[str, Any]:
    size = connections or kind_of(url, "").connections
    # Whoever waits for one is bounded by HANDLER_TIMEOUT.
    return {"pool_size": size, "max_overflow": 0, "pool_timeout": None}


@contextlib.contextmanager
def _noted(database: Database) -> Iterator[None]:
    """Have the worker know of it while it is open."""
    opened = OPENED.get()
    if opened is None:
        yield
        return
    opened.append(database)
    try:
        yield
    finally:
        opened.remove(database)
