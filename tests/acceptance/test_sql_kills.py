"""Facts about a database's rows while workers are killed, frozen and sent the same again."""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import select

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from shared.queue.partition import Partition
from tests.acceptance.process import Program, environment, until
from tests.acceptance.sql_handlers import POINTS
from tests.acceptance.worker_process import running
from tests.integration.sql.shop import Line, Shop, opened_shop
from tests.integration.workplace import Workplace, body
from tests.postgres_server import PostgresServer
from worker.operate import revival

KILLS = int(os.environ.get("SQL_KILLS", str(len(POINTS))))
"""Of a worker, for each database: at each point as often."""

WORKERS = 3
PATIENCE = 60.0 + 5.0 * KILLS


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        server.execute("CREATE ROLE app LOGIN")
        server.execute("CREATE DATABASE shop OWNER app")
        yield server


# By the other driver, too, where somebody has the time.
@pytest.fixture(
    params=["asyncpg", "aiosqlite", *(["psycopg"] if "SQL_KILLS" in os.environ else [])]
)
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    if request.param == "aiosqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/shop.db"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        server.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION app", "shop")
        url = server.url(f"+{request.param}", "shop", "app")
    async with opened_shop(url) as shop:
        yield shop


@pytest.fixture
def environ(
    redis: Redis, redis_server: EmbeddedRedis, shop: Shop, tmp_path: Path
) -> dict[str, str]:
    return environment(
        redis_server.url,
        tmp_path,
        WORKER_HANDLERS="tests.acceptance.sql_handlers:handlers",
        WORKER_CONCURRENCY="4",
        MAX_CRASHES="50",  # an innocent neighbour of so many kills is no poison
        DATABASE_URL=shop.url,
        NOTES=str(tmp_path),
    )


async def rows(shop: Shop) -> Counter[str]:
    """How many of each event."""
    async with shop.looking() as connection:
        return Counter((await connection.execute(select(Line.event_id))).scalars())


@contextlib.asynccontextmanager
async def kept_up(environ: dict[str, str]) -> AsyncIterator[None]:
    """Workers, each of which has a successor once it is killed."""
    programs = set[Program]()

    async def keep() -> None:
        while True:
            program = await Program.begin("worker", environ)
            programs.add(program)
            await program.process.wait()

    keeping = [asyncio.create_task(keep()) for _ in range(WORKERS)]
    try:
        yield
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        await asyncio.gather(*(program.stop() for program in programs))


async def test_an_events_row_is_written_once_wherever_its_worker_is_killed(
    redis: Redis, shop: Shop, environ: dict[str, str], tmp_path: Path
) -> None:
    """Beside others that aren't, and with each sent again, and dead ones replayed."""
    plans: list[dict[str, Any]] = [
        {"kill": POINTS[number % len(POINTS)]} for number in range(KILLS)
    ]
    plans += [{"kill": "", "rejects": True} for _ in range(5)]
    plans += [{"kill": ""} for _ in range(20)]
    random.Random(7).shuffle(plans)
    bodies = [body(f"evt_{number}", data=plan) for number, plan in enumerate(plans)]
    resent = [body(f"evt_{number}", data={"kill": ""}) for number in range(len(plans))]
    place = Workplace(redis)
    jobs = await place.accept(*bodies)

    async def is_over() -> bool:
        return int(await redis.zcard(keys.ACCEPTED)) == 0

    async with kept_up(environ):
        await until(is_over, PATIENCE)
        dead = {name.decode() for name in await redis.zrange(keys.dead("org_a"), 0, -1)}
        # One that was killed beside another after its commit goes on without giving up.
        assert dead <= {job for job, plan in zip(jobs, plans, strict=True) if plan.get("rejects")}
        for job in dead:
            await revival.replay_one(Partition.only(redis), job)
        await place.accept(*bodies, *resent)
        await until(is_over, PATIENCE)
    expected = {f"evt_{number}" for number in range(len(plans))}
    assert await rows(shop) == Counter(expected)
    followed = Counter((tmp_path / "followed").read_text().split())
    assert followed.keys() == expected
    assert await redis.zcard(keys.dead("org_a")) == 0
    # Whose neighbour was killed just behind its commit doesn't come by its own point any more.
    killed = _killed(tmp_path)
    assert killed >= KILLS * 3 // 4
    print(f"{shop.url.partition(':')[0]}: {killed} kills, {len(expected)} rows")  # noqa: T201


def _killed(folder: Path) -> int:
    """How often a worker was."""
    return len(list(folder.glob("killed-*")))


async def test_two_workers_with_the_same_event_at_once_write_it_once(
    redis: Redis, shop: Shop, environ: dict[str, str], tmp_path: Path
) -> None:
    """The first is frozen in the midst of its transaction until its lease is over."""
    gate = tmp_path / "gate"
    async with running(environ) as (frozen,):
        await Workplace(redis).accept(body("evt_1", data={"gate": str(gate)}))
        await frozen.logged("in_save")
        frozen.send(signal.SIGSTOP)
        before = await redis.hgetall(keys.CLAIMS)
        async with running(environ) as (other,):

            async def is_claimed_anew() -> bool:
                return await _holder_has_changed(redis, before)

            await until(is_claimed_anew)
            gate.touch()
            frozen.send(signal.SIGCONT)

            async def is_over() -> bool:
                return int(await redis.zcard(keys.ACCEPTED)) == 0

            await until(is_over)
            assert other.is_alive
    assert await rows(shop) == Counter(["evt_1"])


async def _holder_has_changed(redis: Redis, before: dict[bytes, bytes]) -> bool:
    claims = await redis.hgetall(keys.CLAIMS)
    return bool(claims) and claims != before
