"""What a real Redis refuses, and how it is reached."""

import asyncio
import shutil
from urllib.parse import quote

from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError

from deploy.local.embedded_redis import EmbeddedRedis
from shared.redis.connection import REDIS_ERRORS, open_redis, translate
from shared.redis.primary_pool import PrimaryConnection, PrimaryPool
from shared.redis.wire import Wire, mended
from shared.settings.redis_url import RedisUrl
from tests.conftest import StartRedis

PASSWORD = "p@ss:w/rd?#%&= ü"


async def code_of(redis: Redis, *command: object) -> str:
    """With which code a command is refused, or OK."""
    try:
        await redis.execute_command(*command)
    except REDIS_ERRORS as exc:
        return translate(exc).code
    return "OK"


async def refused(redis: Redis, *command: object) -> str:
    """Send it until it is refused; with which code."""
    async with asyncio.timeout(20):
        while (code := await code_of(redis, *command)) == "OK":
            await asyncio.sleep(0.01)
    return code


async def test_a_full_redis(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None, maxmemory="100kb")
    async with open_redis(RedisUrl(server.url)) as redis:
        assert await code_of(redis, "SET", "k", "v") == "redis_out_of_memory"


async def test_a_replica_and_one_that_lost_its_primary(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None, replicaof=("127.0.0.1", 1))
    async with open_redis(RedisUrl(server.url)) as redis:
        assert await code_of(redis, "SET", "k", "v") == "redis_readonly"
        await redis.config_set("replica-serve-stale-data", "no")
        assert await code_of(redis, "GET", "k") == "redis_unreachable"


class Found(PrimaryPool):
    """A pool for whom the primary is at one place, whatever that is by now."""

    def __init__(self, port: int) -> None:
        kind = mended(PrimaryConnection)
        super().__init__(connection_class=kind, max_connections=1, timeout=20)
        self._port = port

    async def _find(self) -> tuple[str, int]:
        return "127.0.0.1", self._port


async def test_who_waits_for_replicas_of_what_becomes_one_is_told_so(
    fresh_redis_server: StartRedis,
) -> None:
    """As after each fail-over, by a primary that has heard of it late."""
    server = fresh_redis_server(appendfsync=None)
    pool = Found(server.port)
    wire = Wire(Redis(connection_pool=pool))
    async with Redis(port=server.port) as admin, asyncio.timeout(20):
        waiting = asyncio.create_task(wire.execute_commands(("SET", "k", "v"), ("WAIT", 1, 0)))
        while not (await admin.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0.01)
        await admin.replicaof("127.0.0.1", 1)
        _, refusal = await waiting
        assert translate(refusal).code == "redis_readonly"
        assert isinstance(refusal, ReadOnlyError)  # by which its connection is used no more
    await pool.aclose()


async def test_a_primary_with_too_few_replicas(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None, arguments={"min-replicas-to-write": "1"})
    async with open_redis(RedisUrl(server.url)) as redis:
        assert await code_of(redis, "SET", "k", "v") == "not_replicated"


async def test_a_redis_whose_disk_is_gone(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None)
    async with open_redis(RedisUrl(server.url)) as redis:
        await redis.config_set("save", "3600 1")
        shutil.rmtree(server.folder)
        await redis.bgsave()
        assert await refused(redis, "SET", "k", "v") == "redis_not_persisting"


async def test_a_redis_busy_with_a_script(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None, arguments={"busy-reply-threshold": "1"})
    async with open_redis(RedisUrl(server.url)) as redis:
        endless = asyncio.create_task(code_of(redis, "EVAL", "while true do end", 0))
        assert await refused(redis, "GET", "k") == "redis_busy"
        await redis.script_kill()
        assert await endless == "redis_error"
        assert await code_of(redis, "GET", "k") == "OK"


async def test_a_redis_that_does_not_answer(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None)
    async with open_redis(RedisUrl(server.url), socket_timeout=1.0) as redis:
        assert await code_of(redis, "GET", "k") == "OK"
        server.freeze()
        assert await code_of(redis, "GET", "k") == "redis_timeout"
        server.thaw()
        # The late answer to the first must not be taken for one to the second.
        assert await redis.echo("mine") == b"mine"


async def test_a_password_with_every_kind_of_character(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None, arguments={"requirepass": PASSWORD})
    host = f"127.0.0.1:{server.port}/0"
    logins = {
        "": "redis_refused_login",
        ":wrong@": "redis_refused_login",
        "nobody:wrong@": "redis_refused_login",
        f":{quote(PASSWORD, safe='')}@": "OK",
        f"default:{quote(PASSWORD, safe='')}@": "OK",
    }
    for login, code in logins.items():
        url = RedisUrl(f"redis://{login}{host}")
        assert PASSWORD not in str(url)
        async with open_redis(url) as redis:
            assert await code_of(redis, "GET", "k") == code


async def test_a_user_who_may_not(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None)
    async with open_redis(RedisUrl(server.url)) as admin:
        await admin.execute_command("ACL", "SETUSER", "reader", "on", ">x", "~*", "+@read")
    url = RedisUrl(server.url.replace("redis://", "redis://reader:x@"))
    async with open_redis(url) as redis:
        assert await code_of(redis, "GET", "k") == "OK"
        assert await code_of(redis, "SET", "k", "v") == "redis_permission"


async def test_a_redis_behind_a_file(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None, arguments={"unixsocket": "redis.sock"})
    url = RedisUrl(f"unix://{server.folder}/redis.sock?db=3")
    async with open_redis(url) as redis, open_redis(RedisUrl(server.url)) as elsewhere:
        await redis.set("k", "v")
        assert await redis.get("k") == b"v"
        assert await elsewhere.get("k") is None  # that is database 0


async def test_a_closed_one_leaves_no_connection_behind(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None)
    async with open_redis(RedisUrl(server.url), connections=1) as watching:
        async with open_redis(RedisUrl(server.url), connections=3) as redis:
            await asyncio.gather(*(redis.ping() for _ in range(20)))
            assert len(await watching.client_list()) <= 1 + 3
        async with asyncio.timeout(20):
            while len(await watching.client_list()) > 1:
                await asyncio.sleep(0.01)


async def test_tls_where_none_is_spoken(redis_server: EmbeddedRedis) -> None:
    url = RedisUrl(redis_server.url.replace("redis://", "rediss://"))
    async with open_redis(url, socket_timeout=0.2) as redis:
        assert await code_of(redis, "GET", "k") in {"redis_timeout", "redis_unreachable"}
