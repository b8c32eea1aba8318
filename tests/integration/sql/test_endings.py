"""Facts about transactions that are broken off, and connections that everybody wants."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.pool import QueuePool

from tests.integration.sql.shop import Shop, event, opened_shop, organization, save, state
from tests.postgres_server import PostgresServer
from worker import Event, HandlerError, StateError


def taken(shop: Shop) -> int:
    """How many connections have not come back."""
    pool = shop.database._engine.pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout()


@pytest.fixture
async def narrow(url: str) -> AsyncIterator[Shop]:
    """A shop with one connection, however many handlers there are."""
    async with opened_shop(url, connections=1) as shop:
        yield shop


async def cancelled(task: "asyncio.Task[Any]", times: int) -> None:
    """Cancel it as a worker does whose handler is over time: again while it goes on."""
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("where", ["sleep", "statement"])
async def test_a_save_that_is_cancelled_leaves_nothing_and_keeps_no_connection(
    narrow: Shop, where: str, times: int
) -> None:
    begun = asyncio.Event()

    async def hang(session: AsyncSession, event: Event[Any]) -> None:
        await save(session, event)
        await session.flush()
        begun.set()
        if where == "sleep":
            await asyncio.sleep(60)
        elif narrow.is_sqlite:
            await session.execute(text(_LONG_IN_SQLITE))
        else:
            await session.execute(text(f"SELECT pg_sleep({seconds})"))

    # Cancelled over and over within a moment, asyncpg hangs up before it has said so to the server,
    # which finds out at the statement's end: the row is locked until then.
    seconds = 60 if times == 1 else 2
    task = asyncio.create_task(narrow.once(do=hang))
    await begun.wait()
    await asyncio.sleep(0.01)
    await cancelled(task, times)
    assert await narrow.once() is True
    assert (taken(narrow), await narrow.lines()) == (0, 1)


_LONG_IN_SQLITE = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000000)
SELECT count(*) FROM n
"""


async def test_who_is_cancelled_while_waiting_for_a_connection_takes_none(narrow: Shop) -> None:
    may_end = asyncio.Event()

    async def hold(session: AsyncSession, event: Event[Any]) -> None:
        await save(session, event)
        await may_end.wait()

    first = asyncio.create_task(narrow.once("evt_1", hold))
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(narrow.once(f"evt_w{number}")) for number in range(3)]
    await asyncio.sleep(0.05)
    await cancelled(waiting[0], 1)
    may_end.set()
    assert [await first, await waiting[1], await waiting[2]] == [True] * 3
    assert (taken(narrow), await narrow.lines("evt_w0")) == (0, 0)


async def test_many_handlers_share_few_connections(url: str) -> None:
    async with opened_shop(url, connections=1 if "sqlite" in url else 2) as shop:

        async def handle(number: int) -> bool:
            ours = organization()
            async with shop.database.session(ours) as session:
                await session.execute(text("SELECT 1"))
            return await shop.database.once(event(f"evt_{number}"), ours, save)

        assert await asyncio.gather(*map(handle, range(50))) == [True] * 50
        assert len(await shop.entries()) == 50


async def test_a_commit_whose_answer_is_lost_is_no_answer(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    """It is neither true nor false: the next attempt finds out."""
    async with lossy_proxy(postgres.socket) as port, opened_shop(postgres_url) as shop:
        lossy = postgres_url.replace("@/", f"@127.0.0.1:{port}/").partition("?")[0]
        for driver in ("asyncpg", "psycopg"):
            by = lossy.replace("postgresql:", f"postgresql+{driver}:")
            async with shop.database.open(by) as database:
                with pytest.raises((DBAPIError, OSError)):
                    await database.once(event(driver), organization(), save)
            assert await shop.lines(driver) == 1
            assert await shop.once(driver) is False
            assert await shop.lines(driver) == 1


@contextlib.asynccontextmanager
async def lossy_proxy(socket: Path) -> AsyncIterator[int]:
    """A port before the server, which passes a COMMIT on and loses the answer."""
    tasks = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        below, above = await asyncio.open_unix_connection(str(socket))
        has_committed = asyncio.Event()

        async def down() -> None:
            while data := await reader.read(65_536):
                if b"COMMIT" in data:
                    has_committed.set()
                above.write(data)
            above.close()

        async def up() -> None:
            while data := await below.read(65_536):
                if has_committed.is_set():
                    break
                writer.write(data)
            writer.transport.abort()

        tasks.add(asyncio.create_task(down()))
        await up()

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server:
        yield server.sockets[0].getsockname()[1]
    for task in tasks:
        task.cancel()


async def test_a_server_that_was_started_again_costs_one_failure_at_the_most(
    postgres_shop: Shop, postgres: PostgresServer
) -> None:
    await asyncio.gather(*(postgres_shop.once(f"evt_{number}") for number in range(5)))
    postgres.stop()
    postgres.start()
    with contextlib.suppress(DBAPIError, OSError):
        await postgres_shop.once("evt_a")
    assert await postgres_shop.once("evt_b") is True


# Who holds a connection doesn't wait for another


async def test_a_session_only_reads(shop: Shop) -> None:
    await shop.once()
    async with shop.database.session(organization()) as session:
        assert (await session.execute(text("SELECT count(*) FROM lines"))).scalar() == 1
        with pytest.raises(DBAPIError):
            await session.execute(text("DELETE FROM lines"))
    assert await shop.lines() == 1
    assert await shop.once("evt_2") is True


async def test_nobody_ends_a_session_from_within(shop: Shop) -> None:
    async with shop.database.session(organization()) as session:
        with pytest.raises(HandlerError, match="committed and closed for it"):
            await session.commit()


async def test_a_session_within_once_is_refused(narrow: Shop) -> None:
    async def look(_: AsyncSession, __: Event[Any]) -> None:
        async with narrow.database.session(organization()):
            pass

    with pytest.raises(HandlerError, match="session: the handler holds a connection"):
        await asyncio.wait_for(narrow.once(do=look), 5)
    assert await narrow.once() is True


async def test_once_within_a_session_or_another_once_is_refused(narrow: Shop) -> None:
    async def again(_: AsyncSession, __: Event[Any]) -> None:
        await narrow.once(part="other")

    with pytest.raises(HandlerError, match="once: the handler holds a connection"):
        await asyncio.wait_for(narrow.once(do=again), 5)
    async with narrow.database.session(organization()):
        with pytest.raises(HandlerError, match="once: the handler holds a connection"):
            await asyncio.wait_for(narrow.once(), 5)
    assert await narrow.once() is True


async def test_a_task_that_outlives_the_block_may_have_a_connection(narrow: Shop) -> None:
    is_over = asyncio.Event()

    async def later() -> bool:
        await is_over.wait()
        return await narrow.once()

    async with narrow.database.session(organization()):
        task = asyncio.create_task(later())
    is_over.set()
    assert await task is True


async def test_a_task_that_outlives_its_save_writes_nothing_and_takes_no_connection(
    narrow: Shop,
) -> None:
    """Its transaction would have no row of the inbox, and nobody would end it."""
    is_over = asyncio.Event()
    tasks = list[asyncio.Task[None]]()

    async def leave_behind(session: AsyncSession, event: Event[Any]) -> None:
        async def later() -> None:
            await is_over.wait()
            await save(session, event)
            await session.flush()

        await save(session, event)
        tasks.append(asyncio.create_task(later()))

    assert await narrow.once(do=leave_behind) is True
    is_over.set()
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        await tasks[0]
    assert (taken(narrow), await narrow.lines()) == (0, 1)


@pytest.mark.parametrize("how", ["save fails", "save returns", "session"])
async def test_a_statement_under_way_at_the_end_keeps_no_connection_and_no_lock(
    narrow: Shop, how: str
) -> None:
    tasks = list[asyncio.Task[Any]]()
    slow = text(_SLOW_IN_SQLITE if narrow.is_sqlite else "SELECT pg_sleep(0.5)")

    async def leave_behind(session: AsyncSession) -> None:
        tasks.append(asyncio.create_task(session.execute(slow)))
        await asyncio.sleep(0.05)
        if how != "save returns":
            raise ValueError(how)

    async def leave_behind_a_row(session: AsyncSession, event: Event[Any]) -> None:
        await save(session, event)
        await session.flush()
        await leave_behind(session)

    async def look() -> None:
        async with narrow.database.session(organization()) as session:
            await leave_behind(session)

    ending = look() if how == "session" else narrow.once(do=leave_behind_a_row)
    if how == "save returns":  # by SQLite one statement waits for the other
        with contextlib.suppress(DBAPIError, HandlerError):
            await ending
    else:
        with pytest.raises(ValueError, match=how):
            await ending
    await asyncio.gather(*tasks, return_exceptions=True)
    for number in range(2):
        await asyncio.wait_for(narrow.once(), 5)
        assert await narrow.once(f"evt_{number}_more") is True
    assert (taken(narrow), await narrow.lines()) == (0, 1)


_SLOW_IN_SQLITE = _LONG_IN_SQLITE.replace("200000000", "1000000")


async def test_two_databases_at_once_are_no_ones_trouble(narrow: Shop) -> None:
    async with (
        opened_shop(narrow.url) as other,
        narrow.database.session(organization()),
        other.database.session(organization()),
    ):
        pass


# The organization's state


async def test_state_and_database_are_not_both_written(shop: Shop) -> None:
    ours = organization(of=state(b"1"))
    await ours.state.put("k", 1)
    with pytest.raises(StateError, match="written to already"):
        await shop.database.once(event(), ours, save)
    assert await shop.lines() == 0
    ours = organization(of=state(b"1"))
    assert await shop.database.once(event(), ours, save) is True
    assert await ours.state.get("k") == 1
    with pytest.raises(StateError, match="a database has this attempt's commit"):
        await ours.state.increment("k")


async def test_what_goes_on_after_its_attempt_writes_nothing(shop: Shop) -> None:
    ours = organization()
    ours.state.close("the handler has ended")
    with pytest.raises(StateError, match="the handler has ended"):
        await shop.database.once(event(), ours, save)
    assert await shop.lines() == 0


async def test_a_call_that_nobody_awaits_is_told(shop: Shop) -> None:
    ours = organization()
    call = shop.database.once(event(), ours, save, part="invoice")
    ours.state.close("the handler has ended")
    assert ours.state.unawaited == "database.once('invoice')"
    call.close()
    assert await shop.lines() == 0


async def test_a_call_that_is_under_way_at_the_handlers_end_is_told(shop: Shop) -> None:
    """Begun by a task that nobody awaits: what becomes of it, nobody would learn."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slowly(session: AsyncSession, event: Event[Any]) -> None:
        begun.set()
        await may_end.wait()

    ours, ended = organization(), organization()
    assert await shop.database.once(event("evt_2"), ended, save) is True
    ended.state.close("the handler has ended")
    assert ended.state.unawaited == ""
    task = asyncio.create_task(shop.database.once(event(), ours, slowly, part="invoice"))
    await begun.wait()
    ours.state.close("the handler has ended")
    assert ours.state.unawaited == "database.once('invoice')"
    may_end.set()
    assert await task is True
