"""Who may tell a Sentinel what: a stranger nothing, for the primary is sent every password."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from tests.acceptance.process import environment, run, until
from tests.deploy.deployed_redis import (
    REDIS,
    DeployedRedis,
    deployed_sentinel,
    password,
    sentinel_url,
)
from tests.integration.sentinels import SERVICE, fleet

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROGRAMS = ("ingress", "worker", "operator")
ACL = "sentinel-users.acl"


@dataclass(frozen=True)
class Place:
    """A primary and a Sentinel as they are shipped."""

    primary: DeployedRedis
    sentinel: DeployedRedis
    folder: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("sentinel_users")
    with (
        DeployedRedis(folder / "primary") as primary,
        deployed_sentinel(folder / "sentinel", primary.port) as sentinel,
    ):
        yield Place(primary, sentinel, folder)


@asynccontextmanager
async def eavesdropper() -> AsyncIterator[tuple[int, bytearray]]:
    """A server that refuses everything: its port, and what it has been told."""
    heard = bytearray()
    talks: list[tuple[asyncio.Task[None] | None, asyncio.StreamWriter]] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append((asyncio.current_task(), writer))
        while part := await reader.read(65536):
            heard.extend(part)
            writer.write(b"-ERR no\r\n")

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], heard
    for _, writer in talks:
        writer.close()
    await asyncio.gather(*(task for task, _ in talks if task), return_exceptions=True)


def takeover(port: int, service: str) -> list[tuple[str | int, ...]]:
    """What has a Sentinel name another primary: its peers' word, or an operator's."""
    another = f"127.0.0.1,1,{'0' * 40},9,{service},127.0.0.1,{port},9"
    return [
        ("PUBLISH", "__sentinel__:hello", another),
        ("SENTINEL", "SET", service, "quorum", 1),
        ("SENTINEL", "REMOVE", service),
        ("SENTINEL", "MONITOR", service, "127.0.0.1", port, 1),
    ]


async def refusals(redis: Redis, port: int, service: str = "sellfern") -> list[type[RedisError]]:
    """What refuses each of these commands."""
    found = []
    for command in takeover(port, service):
        try:
            await redis.execute_command(*command)
        except RedisError as exc:
            found.append(type(exc))
    return found


async def test_a_stranger_who_names_another_primary_gets_no_password(place: Place) -> None:
    environ = environment(sentinel_url("ingress", place.sentinel), place.folder)
    # The primary has no replicas here, and DURABILITY is another test's matter.
    environ["DURABILITY"] = "memory"
    async with eavesdropper() as (port, heard):
        async with Redis(port=place.sentinel.port) as stranger:
            refused = await refusals(stranger, port)
        checked = await run("ingress", "check", environ=environ)
        assert password("ingress").encode() not in heard
        assert refused == [AuthenticationError] * 4
        assert checked.code == 0, checked.stdout
        assert "sentinel_open" not in checked.stdout


@pytest.mark.parametrize("user", PROGRAMS)
async def test_a_program_may_ask_for_the_primary_but_name_none(place: Place, user: str) -> None:
    async with place.sentinel.client_of(user) as redis:
        known = (await redis.sentinel_masters())["sellfern"]
        assert known["port"] == place.primary.port
        assert await refusals(redis, 1) == [NoPermissionError] * 4


async def test_the_operator_may_look_and_fail_over(place: Place) -> None:
    async with place.sentinel.client_of("operator") as redis:
        for command in ("MASTER", "REPLICAS", "SENTINELS"):
            await redis.execute_command("SENTINEL", command, "sellfern")
        with pytest.raises(RedisError, match="NOGOODSLAVE"):
            await redis.execute_command("SENTINEL", "FAILOVER", "sellfern")


async def test_a_password_that_changes_holds_for_the_sentinel_after_a_restart(
    tmp_path: Path,
) -> None:
    with (
        DeployedRedis(tmp_path / "one") as one,
        deployed_sentinel(tmp_path / "sentinel", one.port) as sentinel,
    ):
        for server in ("one", "sentinel"):
            for user in ("sentinel", "worker"):
                (tmp_path / server / "secrets" / user).write_text(f"another-of-{user}")
        for restarted in (one, sentinel):
            restarted.restart()
        secret = "another-of-worker"
        async with Redis(port=sentinel.port, username="worker", password=secret) as redis:
            assert "sellfern" in await redis.sentinel_masters()
        async with one.client_of() as admin:
            await until(lambda: _has_user(admin, "sentinel"))
        written = tmp_path / "sentinel" / "data" / "sentinel.conf"
        assert written.stat().st_mode & 0o077 == 0


async def test_sentinels_that_were_open_get_users_one_after_the_other(tmp_path: Path) -> None:
    """As the page says: whoever comes without a password is let in until the last step."""
    users = (REDIS / ACL).read_text()
    _, *others = users.splitlines(keepends=True)
    with DeployedRedis(tmp_path / "one") as one:
        settled, changing = (
            deployed_sentinel(tmp_path / name, one.port, quorum=2) for name in ("old", "new")
        )
        for sentinel in (settled, changing):
            sentinel.allow("user default on nopass &* +@all\n" + "".join(others), ACL)
        with settled, changing:
            # What an earlier version has left: users in the file that Sentinel writes itself.
            changing.stop()
            written = tmp_path / "new" / "data" / "sentinel.conf"
            lines = [each for each in written.read_text().splitlines() if "users.acl" not in each]
            lines.append("user default on nopass sanitize-payload ~* &* +@all")
            written.write_text("\n".join(lines) + "\n")
            changing.start()
            for client in (Redis(port=changing.port), changing.client_of("worker")):
                async with client as redis:
                    assert "sellfern" in await redis.sentinel_masters()
            changing.allow(users, ACL)
            changing.restart()
            async with Redis(port=changing.port) as stranger:
                assert await refusals(stranger, 1) == [AuthenticationError] * 4
            async with changing.client_of("operator") as redis:
                await until(lambda: _knows_another(redis))


async def _knows_another(sentinel: Redis) -> bool:
    return bool((await sentinel.sentinel_masters())["sellfern"]["num-other-sentinels"] == 1)


async def _has_user(redis: Redis, user: str) -> bool:
    return any(client["user"] == user for client in await redis.client_list())


async def test_an_open_sentinel_has_the_password_sent_wherever_a_stranger_says(
    tmp_path: Path,
) -> None:
    """What the passwords are for; and `check` tells of it."""
    with fleet(replicas=0, sentinels=1) as servers:
        (sentinel,) = servers.sentinels
        url = servers.url.replace("//", "//ingress:spoken-in-clear@")
        async with eavesdropper() as (port, heard), Redis(port=sentinel.port) as stranger:
            assert await refusals(stranger, port, SERVICE) == []
            checked = await run("ingress", "check", environ=environment(url, tmp_path))
        assert b"spoken-in-clear" in heard
        assert warns_of(checked.stdout, sentinel.port)


async def test_a_workers_check_tells_of_an_open_sentinel_as_well(tmp_path: Path) -> None:
    with fleet(replicas=0, sentinels=1) as servers:
        checked = await run("worker", "check", environ=environment(servers.url, tmp_path))
        assert checked.code == 0, checked.stdout
        assert warns_of(checked.stdout, servers.sentinels[0].port)


def warns_of(said: str, port: int) -> bool:
    """Whether `check` warns of the Sentinel on a port, in one line."""
    (line,) = (line for line in said.splitlines() if "sentinel_open" in line)
    return line.startswith("warning redis ") and f"Sentinel 127.0.0.1:{port}: expected" in line
