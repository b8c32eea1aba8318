"""Facts about ``worker check`` and a worker's start, where handlers have a database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.process import environment, run
from tests.postgres_server import PostgresServer


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        server.execute("CREATE ROLE app LOGIN; CREATE ROLE passing LOGIN BYPASSRLS")
        server.execute("CREATE DATABASE shop OWNER app")
        yield server


async def test_what_is_wrong_with_a_database_is_an_error_of_the_check(
    redis: Redis, redis_server: EmbeddedRedis, postgres: PostgresServer, tmp_path: Path
) -> None:
    """From a database without the table, by its command, to a role that policies hold for."""
    environ = environment(
        redis_server.url,
        tmp_path,
        WORKER_HANDLERS="tests.acceptance.sql_handlers:handlers",
        NOTES=str(tmp_path),
        DATABASE_URL=postgres.url(name="shop", user="app"),
    )
    told = await run("worker", "check", environ=environ)
    assert told.code == 2
    assert "python -m worker sql create" in told.stdout

    assert (await run("worker", "sql", "create", environ=environ)).stdout == "made\n"
    told = await run("worker", "check", environ=environ)
    assert "database_usable" in told.stdout

    postgres.execute("GRANT SELECT, INSERT, DELETE ON sellfern_inbox TO passing", name="shop")
    passing = {**environ, "DATABASE_URL": postgres.url(name="shop", user="passing")}
    told = await run("worker", "check", environ=passing)
    assert told.code == 2
    assert "row_security_bypassed" in told.stdout
    assert "passing is a role with BYPASSRLS" in told.stdout
