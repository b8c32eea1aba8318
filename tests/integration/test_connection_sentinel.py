"""A primary that is found through Sentinel, before and after a fail-over."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from shared.redis.connection import REDIS_ERRORS, open_redis, translate
from shared.redis.sentinel import SentinelPool
from shared.settings.redis_url import RedisUrl
from tests.conftest import StartRedis
from tests.integration.sentinels import PATIENCE, SERVICE, Fleet, fleet
from worker.engine import arq_functions

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched() -> AsyncIterator[Fleet]:
    with fleet() as found:
        await found.until_watched()
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def servers(watched: Fleet) -> Fleet:
    """As no test before has left them: its fail-over may go on after it has seen what it wanted."""
    await watched.until_settled()
    return watched


async def port_of(redis: Redis) -> int:
    """The port of the server that answers."""
    return int((await redis.config_get("port"))["port"])


async def written(redis: Redis, name: str) -> str:
    """Write until it works; the codes of what went wrong before that."""
    codes = []
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await redis.set(name, "v")
            except REDIS_ERRORS as exc:
                codes.append(translate(exc).code)
                await asyncio.sleep(0.02)
            else:
                return " ".join(dict.fromkeys(codes))


async def test_the_primary_is_found_and_its_replica_is_not_written_to(servers: Fleet) -> None:
    primary = await servers.primary()
    async with open_redis(RedisUrl(servers.url)) as redis:
        await asyncio.gather(*(redis.set(f"k{n}", "v") for n in range(20)))
        assert await port_of(redis) == primary.port
        assert await redis.dbsize() == 20


async def test_a_sentinel_that_is_away_is_passed_over(servers: Fleet) -> None:
    url = RedisUrl(f"redis+sentinel://127.0.0.1:1,{servers.hosts}/{SERVICE}/2")
    async with open_redis(url) as redis:
        assert await written(redis, "k") == ""
        assert redis.connection_pool.connection_kwargs["db"] == 2


async def test_none_is_forgotten_where_many_ask_at_once_and_one_is_away(servers: Fleet) -> None:
    """It would be missed once it is the only one that is back."""
    url = RedisUrl(f"redis+sentinel://127.0.0.1:1,{servers.hosts}/{SERVICE}")
    async with open_redis(url, connections=8) as redis:
        await asyncio.gather(*(redis.ping() for _ in range(8)))
        pool = redis.connection_pool
        assert isinstance(pool, SentinelPool)
        ports = [each.connection_pool.connection_kwargs["port"] for each in pool._finder.sentinels]
    assert sorted(ports) == sorted([1, *(each.port for each in servers.sentinels)])


async def test_a_service_that_no_sentinel_knows(servers: Fleet) -> None:
    url = RedisUrl(f"redis+sentinel://{servers.hosts}/another")
    async with open_redis(url) as redis:
        with pytest.raises(REDIS_ERRORS) as caught:
            await redis.ping()
    assert translate(caught.value).code == "redis_no_primary"


async def test_a_primary_that_is_demoted_while_it_lives_is_left(servers: Fleet) -> None:
    old = await servers.primary()
    async with open_redis(RedisUrl(servers.url), connections=3) as redis:
        await asyncio.gather(*(redis.set(f"k{n}", "v") for n in range(20)))
        async with Redis(port=servers.sentinels[0].port) as sentinel:
            await sentinel.execute_command("SENTINEL FAILOVER", SERVICE)
        async with asyncio.timeout(PATIENCE):
            while await servers.primary() is old or await port_of_primary(redis) == old.port:
                await written(redis, "after")
        await servers.until_settled()
        ports = await asyncio.gather(*(port_of(redis) for _ in range(20)))
        assert set(ports) == {(await servers.primary()).port}
        assert await written(redis, "k") == ""


async def port_of_primary(redis: Redis) -> int:
    """The port of the server that answers, or that of none while nobody does."""
    try:
        return await port_of(redis)
    except REDIS_ERRORS:
        return 0


async def test_a_sentinel_that_names_a_replica_is_not_believed(
    servers: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary = await servers.primary()
    replica = next(server for server in servers.servers if server is not primary)
    async with Redis(port=replica.port) as asked, open_redis(RedisUrl(servers.url)) as redis:
        while (await asked.role())[3] != b"connected":
            await asyncio.sleep(0.02)
        monkeypatch.setattr(redis.connection_pool, "primary", found(replica.port))
        with pytest.raises(REDIS_ERRORS) as caught:
            await redis.get("k")
    assert translate(caught.value).code == "redis_readonly"


async def test_a_connection_whose_server_becomes_a_replica_is_used_no_more(
    servers: Fleet, fresh_redis_server: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = fresh_redis_server(appendfsync=None)
    url = RedisUrl(servers.url)
    async with Redis(port=former.port) as admin, open_redis(url, connections=1) as redis:
        with monkeypatch.context() as lying:
            lying.setattr(redis.connection_pool, "primary", found(former.port))
            assert await port_of(redis) == former.port
        assert await port_of(redis) == former.port
        await admin.execute_command("REPLICAOF", "127.0.0.1", servers.servers[0].port)
        with pytest.raises(REDIS_ERRORS) as caught:
            await redis.set("k", "v")
        assert translate(caught.value).code == "redis_readonly"
        assert await port_of(redis) == (await servers.primary()).port


def found(port: int) -> Callable[[], Awaitable[tuple[str, int]]]:
    """What Sentinel would say if the primary were there."""

    async def say() -> tuple[str, int]:
        return "127.0.0.1", port

    return say


async def test_a_closed_pool_leaves_no_connection_to_a_sentinel_behind(servers: Fleet) -> None:
    async with Redis(port=servers.sentinels[0].port, client_name="watching") as watching:
        before = await named_clients(watching)
        for _ in range(5):
            async with open_redis(RedisUrl(servers.url)) as redis:
                await redis.ping()
        async with asyncio.timeout(PATIENCE):
            while await named_clients(watching) > before:
                await asyncio.sleep(0.02)


async def named_clients(sentinel: Redis) -> int:
    """How many clients that are no Sentinels a Sentinel has."""
    clients = await sentinel.client_list()
    return sum(not client["name"].startswith("sentinel-") for client in clients)


async def test_after_a_failover_the_same_pool_goes_on_with_the_new_primary(servers: Fleet) -> None:
    old = await servers.primary()
    async with open_redis(RedisUrl(servers.url), socket_timeout=0.5) as redis:
        arq = arq_functions.arq_redis(redis.connection_pool)
        await asyncio.gather(*(redis.set(f"k{n}", "v") for n in range(20)))
        old.kill()
        codes = await written(redis, "after")
        assert codes
        assert set(codes.split()) <= {"redis_unreachable", "redis_timeout", "redis_no_primary"}
        async with asyncio.timeout(PATIENCE):
            while (new := await servers.primary()) is old:  # one Sentinel hears of it from another
                await asyncio.sleep(0.02)
            # Both share the pool; on a busy machine an answer may come later than it is waited for.
            for client in (redis, arq):
                while not (port := await port_of_primary(client)):
                    await asyncio.sleep(0.02)
                assert port == new.port
