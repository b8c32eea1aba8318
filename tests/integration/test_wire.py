"""Facts about a connection that one caller keeps."""

import asyncio

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from deploy.local.embedded_redis import EmbeddedRedis
from shared.redis.connection import open_redis
from shared.redis.primary_pool import PrimaryConnection, PrimaryPool
from shared.redis.wire import Wire
from shared.settings.redis_url import RedisUrl
from tests.conftest import StartRedis


async def connections(redis: Redis) -> set[str]:
    """The clients of a server, but for who asks."""
    mine = await redis.client_id()
    return {client["id"] for client in await redis.client_list() if client["id"] != str(mine)}


@pytest.fixture
def url(redis: Redis) -> RedisUrl:
    """Where the shared server is."""
    where = redis.connection_pool.connection_kwargs
    return RedisUrl(f"redis://{where['host']}:{where['port']}/0")


async def test_a_wire_keeps_one_connection_and_gives_replies_in_order(
    redis: Redis, url: RedisUrl
) -> None:
    before = await connections(redis)
    async with open_redis(url) as client:
        wire = Wire(client)
        assert await wire.execute_command("SET", "a", b"\x00\r\n") == b"OK"
        (mine,) = await connections(redis) - before
        replies = await wire.execute_commands(("GET", "a"), ("INCRBY", "n", 2), ("GET", "none"))
        assert replies == [b"\x00\r\n", 2, None]
        assert await connections(redis) - before == {mine}
    assert mine not in await connections(redis)


async def test_an_error_reply_stands_in_its_place_and_keeps_the_connection(
    redis: Redis, url: RedisUrl
) -> None:
    async with open_redis(url) as client:
        wire = Wire(client)
        before, wrong, after = await wire.execute_commands(
            ("SET", "a", "1"), ("LPUSH", "a", "x"), ("GET", "a")
        )
        assert (before, after) == (b"OK", b"1")
        assert isinstance(wrong, ResponseError)
        first = await wire.execute_command("CLIENT", "ID")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await wire.execute_command("LPUSH", "a", "x")
        assert await wire.execute_command("CLIENT", "ID") == first


async def test_calls_that_overlap_take_turns(url: RedisUrl) -> None:
    async with open_redis(url) as client:
        wire = Wire(client)
        replies = await asyncio.gather(*(wire.execute_command("ECHO", n) for n in range(20)))
        assert replies == [str(n).encode() for n in range(20)]


async def test_a_wider_wire_has_so_many_calls_at_once_and_no_more(
    redis: Redis, url: RedisUrl
) -> None:
    async def blocked() -> int:
        return sum(client["cmd"] == "blpop" for client in await redis.client_list())

    async with open_redis(url) as client:
        wire = Wire(client, width=2)
        calls = [asyncio.create_task(wire.execute_command("BLPOP", "a", 30)) for _ in range(3)]
        while await blocked() < 2:
            await asyncio.sleep(0.001)
        assert await blocked() == 2
        await redis.rpush("a", "x")
        while await blocked() < 2 or not any(call.done() for call in calls):
            await asyncio.sleep(0.001)
        await redis.rpush("a", "x", "x")
        assert await asyncio.gather(*calls) == [[b"a", b"x"]] * 3


async def test_a_large_command_is_written_whole(url: RedisUrl) -> None:
    async with open_redis(url) as client:
        value = b"x" * 8_000_000
        assert await Wire(client).execute_command("ECHO", value) == value


async def test_a_connection_that_ended_meanwhile_is_replaced_before_anything_is_sent(
    redis: Redis, url: RedisUrl
) -> None:
    async with open_redis(url) as client:
        wire = Wire(client)
        first = await wire.execute_command("CLIENT", "ID")
        await redis.execute_command("CLIENT", "KILL", "ID", first)
        while str(first) in await connections(redis):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # for the end to reach this side; later is no failure
        assert await wire.execute_command("CLIENT", "ID") != first


async def test_a_lost_reply_is_an_error_and_the_next_call_has_a_new_connection(
    redis: Redis, url: RedisUrl
) -> None:
    async with open_redis(url) as client:
        wire = Wire(client)
        first = await wire.execute_command("CLIENT", "ID")
        waiting = asyncio.create_task(wire.execute_command("BLPOP", "never", 30))
        while not await redis.execute_command("CLIENT", "KILL", "ID", first):
            await asyncio.sleep(0.001)
        with pytest.raises(RedisConnectionError):
            await waiting
        assert await wire.execute_command("CLIENT", "ID") != first


async def test_who_is_cancelled_leaves_no_reply_behind_for_the_next(url: RedisUrl) -> None:
    async with open_redis(url) as client:
        wire = Wire(client)
        first = await wire.execute_command("CLIENT", "ID")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await wire.execute_command("BLPOP", "never", 30)
        assert await wire.execute_command("ECHO", "mine") == b"mine"
        assert await wire.execute_command("CLIENT", "ID") != first


async def test_a_silent_server_is_a_time_out(url: RedisUrl) -> None:
    async with open_redis(url, socket_timeout=0.05) as client:
        with pytest.raises(RedisTimeoutError, match="Timeout"):
            await Wire(client).execute_command("BLPOP", "never", 30)


async def test_a_replica_ends_the_connection_since_the_primary_is_elsewhere(
    fresh_redis_server: StartRedis,
) -> None:
    server = fresh_redis_server()
    async with open_redis(RedisUrl(server.url)) as client, Redis.from_url(server.url) as operator:
        wire = Wire(client)
        first = await wire.execute_command("CLIENT", "ID")
        await operator.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(ReadOnlyError):
            await wire.execute_command("SET", "a", "1")
        assert await wire.execute_command("CLIENT", "ID") != first


async def test_a_wire_takes_one_of_the_pools_bounded_connections(url: RedisUrl) -> None:
    async with open_redis(url, connections=1, socket_timeout=0.05) as client:
        wire = Wire(client)
        await wire.execute_command("PING")
        with pytest.raises(RedisConnectionError, match="No connection available"):
            await client.ping()


@pytest.mark.parametrize("wired", [True, False])
def test_a_transport_of_uvloop_that_has_just_ended_is_an_error_of_redis(
    redis_server: EmbeddedRedis, *, wired: bool
) -> None:
    """uvloop raises RuntimeError there, which once ended a worker."""

    async def write() -> None:
        async with open_redis(RedisUrl(redis_server.url)) as client:
            connection = await client.connection_pool.get_connection()
            try:
                connection._writer.transport.abort()
                while "closed=True" not in repr(connection._writer.transport):
                    await asyncio.sleep(0)
                if wired:
                    await Wire(client)._write(connection, (("PING",),))
                else:
                    await connection.send_command("PING")
            finally:
                await client.connection_pool.release(connection)

    with pytest.raises(RedisConnectionError, match="has ended"):
        uvloop.run(write())


async def test_once_one_has_learned_of_a_new_primary_none_goes_on_with_the_old_one(
    redis: Redis, fresh_redis_server: StartRedis
) -> None:
    """It answers still, though it may be cut off from all that have left it."""
    where = redis.connection_pool.connection_kwargs
    new = fresh_redis_server(appendfsync=None)

    class Pool(PrimaryPool):
        found = where["host"], where["port"]

        async def _find(self) -> tuple[str, int]:
            return self.found

    pool = Pool(connection_class=PrimaryConnection)
    wire = Wire(Redis(connection_pool=pool), width=2)
    await asyncio.gather(*(wire.execute_command("SET", "k", "old") for _ in range(2)))
    pool.found = "127.0.0.1", new.port
    await pool.release(await pool.get_connection())
    await asyncio.gather(*(wire.execute_command("SET", "k", "new") for _ in range(2)))
    assert await redis.get("k") == b"old"
    await wire.hang_up()
    await pool.aclose()
