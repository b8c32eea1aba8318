"""Facts about the way to a database: URLs, drivers, a table that is missing."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.errors import SettingsError
from tests.integration.sql.shop import Shop
from tests.ports import free_port
from tests.postgres_server import PostgresServer
from worker import HandlerError
from worker.cli import main
from worker.lifespans import is_unreachable
from worker.opened import OPENED, Kept
from worker.sql import Database, DatabaseUnavailable, database, inbox
from worker.sql.dialects import read_url


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("postgres://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgresql://u@h/d?sslmode=require", "postgresql+asyncpg://u@h/d?ssl=require"),
        (
            "postgresql+psycopg://u@h/d?sslmode=require",
            "postgresql+psycopg://u@h/d?sslmode=require",
        ),
        ("sqlite:///shop.db", "sqlite+aiosqlite:///shop.db"),
    ],
)
def test_a_url_gets_a_driver_that_is_there(written: str, read: str) -> None:
    assert read_url(written).render_as_string() == read


@pytest.mark.parametrize(
    "wrong", ["", "rubbish secret", "mysql://u:secret@h/d", "postgresql+psycopg2://u:secret@h/d"]
)
def test_what_is_no_url_is_told_without_its_password(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"postgresql\+asyncpg") as caught:
        read_url(wrong)
    assert "secret" not in str(caught.value)


async def test_a_database_that_is_away_is_one_that_is_waited_for(tmp_path: Path) -> None:
    for driver in ("asyncpg", "psycopg"):
        url = f"postgresql+{driver}://u:secret@127.0.0.1:{free_port()}/d"
        with pytest.raises(DatabaseUnavailable) as caught:
            async with Database.open(url):
                pass
        assert is_unreachable(caught.value)
        assert "secret" not in str(caught.value)
    with pytest.raises(DBAPIError) as failed:
        async with Database.open(f"sqlite:///{tmp_path}/nowhere/shop.db"):
            pass
    assert not is_unreachable(failed.value)
    # The driver's thread has something to tell the loop still.
    while any("_connection_worker" in thread.name for thread in threading.enumerate()):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "options",
    [
        {"isolation_level": "AUTOCOMMIT"},
        {"execution_options": {"isolation_level": "AUTOCOMMIT"}},
    ],
)
async def test_connections_that_have_no_transactions_are_refused(
    postgres_shop: Shop, options: dict[str, Any]
) -> None:
    """The inbox's row would be committed before the work."""
    with pytest.raises(HandlerError, match="connections with transactions"):
        async with Database.open(postgres_shop.url, **options):
            pass


async def test_an_isolation_level_without_transactions_is_refused(shop: Shop) -> None:
    for level in ("AUTOCOMMIT", "read committed"):
        with pytest.raises(HandlerError, match="isolation level"):
            await shop.once(isolation=level)
    assert await shop.entries() == set()


async def test_two_that_make_the_inbox_at_once_both_end_well(url: str) -> None:
    """As where several replicas begin with it."""
    assert sorted(await asyncio.gather(*(inbox.create(url) for _ in range(4)))) == [
        *[False] * 3,
        True,
    ]


async def test_no_error_and_no_password_is_told_of_silence(
    postgres_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit's error has no text of its own; libpq's URLs may have passwords anywhere."""

    def time_out(_: AsyncEngine, __: object) -> None:
        raise TimeoutError

    url = f"{postgres_shop.url}&password=hunter-two&sslpassword=hunter-two"
    monkeypatch.setattr(postgres_shop.database, "_engine", create_async_engine(url))
    monkeypatch.setattr(database, "reading", time_out)
    (finding,) = await postgres_shop.database.check()
    assert finding.code == "database_unreachable"
    assert "TimeoutError" in finding.message
    assert "hunter" not in finding.message


async def test_the_worker_knows_of_a_database_while_it_is_open(shop: Shop) -> None:
    opened: list[Kept] = []
    token = OPENED.set(opened)
    try:
        async with Database.open(shop.url) as database:
            assert opened == [database]
        assert opened == []
    finally:
        OPENED.reset(token)


def test_the_inbox_is_made_by_a_command(url: str) -> None:
    run = CliRunner(env={"SHOP_URL": url})
    shown = run.invoke(main, ["sql", "create", "--setting", "SHOP_URL", "--show"])
    assert "CREATE TABLE sellfern_inbox" in shown.output
    assert "CREATE INDEX sellfern_inbox_committed_at" in shown.output
    for said in ("made", "it was there already"):
        done = run.invoke(main, ["sql", "create", "--setting", "SHOP_URL"])
        assert (done.exit_code, done.output.strip()) == (0, said)


def test_what_keeps_the_inbox_from_being_made_is_one_line(postgres: PostgresServer) -> None:
    run = CliRunner()
    done = run.invoke(main, ["sql", "create"], env={"DATABASE_URL": ""})
    assert (done.exit_code, "DATABASE_URL: expected" in done.output) == (2, True)
    away = postgres.url(name="nowhere")
    done = run.invoke(main, ["sql", "create"], env={"DATABASE_URL": away})
    assert (done.exit_code, "does not exist" in done.output) == (2, True)


async def test_a_missing_inbox_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="worker sql create"):
        async with Database.open(f"sqlite:///{tmp_path}/shop.db"):
            pass
