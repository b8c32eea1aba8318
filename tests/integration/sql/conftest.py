"""Databases for the tests of ``worker.sql``: a real PostgreSQL by both drivers, and SQLite."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.sql.shop import Shop, opened_shop
from tests.postgres_server import PostgresServer

KINDS = ["asyncpg", "psycopg", "aiosqlite"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Give the server that all tests of a process share, with an empty database and its owner."""
    with PostgresServer() as server:
        server.execute("CREATE ROLE app LOGIN")
        server.execute("CREATE DATABASE shop OWNER app")
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """Give the URL of that, as a user without any privilege beyond it."""
    with psycopg.connect(postgres.url(name="shop")) as admin:
        # A database of its own for each test would take a second each.
        admin.execute("DROP SCHEMA public CASCADE")
        admin.execute("CREATE SCHEMA public AUTHORIZATION app")
    return postgres.url(name="shop", user="app")


def url_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if kind == "aiosqlite":
        return f"sqlite+aiosqlite:///{folder}/shop.db"
    url: str = request.getfixturevalue("postgres_url")
    return url.replace("postgresql:", f"postgresql+{kind}:")


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of an empty database, of each kind in turn."""
    return url_of(request.param, tmp_path, request)


@pytest.fixture
async def shop(url: str) -> AsyncIterator[Shop]:
    """Give a database with the tables of a shop."""
    async with opened_shop(url) as shop:
        yield shop


@pytest.fixture(params=KINDS[:2])
async def postgres_shop(postgres_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    """Give the same on PostgreSQL only."""
    driver = f"postgresql+{request.param}:"
    async with opened_shop(postgres_url.replace("postgresql:", driver)) as shop:
        yield shop


@pytest.fixture
async def sqlite_shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """Give the same on SQLite only."""
    async with opened_shop(f"sqlite+aiosqlite:///{tmp_path}/shop.db") as shop:
        yield shop
