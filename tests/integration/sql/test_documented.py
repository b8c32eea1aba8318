"""Facts about the program and the policy that ``worker/README.md`` shows for databases."""

import asyncio
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import create_async_engine

from tests.integration.workplace import Workplace, body
from tests.postgres_server import PostgresServer
from worker.lifespans import Lifespans, Settings
from worker.pipeline.transitions import Settled
from worker.sql import Database

PAGE = Path(__file__).parents[3] / "worker" / "README.md"


def shown(language: str) -> str:
    """The section's first block of code in a language."""
    section = PAGE.read_text(encoding="utf-8").split("## A database, exactly once\n")[1]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "shop_database.py"
    path.write_text(shown("python"), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("shop_database", path)
    assert spec
    assert spec.loader
    module = sys.modules["shop_database"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["shop_database"]


async def test_the_program_writes_each_event_once_and_the_policy_holds(
    redis: Redis, url: str, program: Any, request: pytest.FixtureRequest
) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(program.Base.metadata.create_all)
        await connection.run_sync(Database.metadata.create_all)
    if "postgresql" in url:
        server: PostgresServer = request.getfixturevalue("postgres")
        server.execute(shown("sql"), name="shop", user="app")
    log = Workplace(redis).lines.log
    lifespans = Lifespans(tuple(program.handlers.lifespans()), Settings({"DATABASE_URL": url}), log)
    assert await lifespans.begin(asyncio.Event())
    place = Workplace(redis, program.handlers)
    place.pipeline = replace(place.pipeline, resources=lifespans.resources)
    bodies = [body("evt_1", type="order.created", data={"order_id": number}) for number in (7, 8)]
    assert [await place.handle(each) for each in bodies] == [Settled.DONE, Settled.DUPLICATE]
    (database,) = lifespans.opened
    assert [finding.code for finding in await database.check()] == ["database_usable"]
    await lifespans.end(5)
    async with engine.connect() as connection:
        number = await connection.scalar(select(func.count()).select_from(program.Order))
    assert number == (1 if "sqlite" in url else 0)  # nobody's rows are seen without a name
    if "postgresql" in url:
        server = request.getfixturevalue("postgres")
        assert server.execute("SELECT order_id FROM orders", name="shop").strip() == "7"
    await engine.dispose()
