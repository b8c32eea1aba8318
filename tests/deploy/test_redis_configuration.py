"""The configuration of deploy/redis, as a real Redis and a real Sentinel understand it."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from shared.queue.writer import Accepted, Queue
from shared.redis.connection import REDIS_ERRORS, open_redis
from shared.redis.durability import Durability, Mode
from shared.settings.redis_url import RedisUrl
from tests.acceptance.process import environment, run, run_command, until
from tests.deploy.deployed_redis import (
    REDIS,
    DeployedRedis,
    deployed_sentinel,
    password,
    sentinel_url,
)
from tests.integration.jobs import delivery
from tests.integration.sentinels import IMPATIENT, PATIENCE
from tests.tools import tool

PATIENT = ("SENTINEL SET", "sellfern", "down-after-milliseconds", 30_000)
SINCE_7_2 = (" +waitaof", " +client|setinfo")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
        ("save", ""),
        ("maxmemory", "1073741824"),
        ("maxmemory-policy", "noeviction"),
        ("enable-debug-command", "no"),
        ("masteruser", "replica"),
        ("masterauth", password("replica")),
    ],
)
async def test_redis_reads_the_file_as_it_is_meant(
    configured: DeployedRedis, name: str, value: str
) -> None:
    async with configured.client_of() as admin:
        assert (await admin.config_get(name))[name] == value


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeployedRedis]:
    with DeployedRedis(tmp_path_factory.mktemp("configured")) as server:
        yield server


async def test_a_changed_password_holds_after_a_restart_and_data_stays(tmp_path: Path) -> None:
    with DeployedRedis(tmp_path) as server:
        async with server.client_of("worker") as redis:
            await redis.set("sellfern:wake", "v")
        (tmp_path / "secrets" / "worker").write_text("another")
        server.restart()
        async with Redis(port=server.port, username="worker", password="another") as redis:
            assert await redis.get("sellfern:wake") == b"v"
        assert (tmp_path / "data" / "users.acl").stat().st_mode & 0o077 == 0
        assert (tmp_path / "data" / "secrets.conf").stat().st_mode & 0o077 == 0


def debians_redis(folder: Path) -> DeployedRedis:
    """Redis 7.0, whose users lack the words that it doesn't know."""
    server = DeployedRedis(folder, server=tool("redis-server"))
    users = (REDIS / "users.acl").read_text()
    for word in SINCE_7_2:
        users = users.replace(word, "")
    server.allow(users)
    return server


async def test_what_scripts_have_written_is_there_after_a_restart(tmp_path: Path) -> None:
    """Redis reads its own file as the user `default`, and leaves out what that one may not do."""
    for deployed in (DeployedRedis(tmp_path / "bundled"), debians_redis(tmp_path / "debian")):
        with deployed as server:
            async with server.client_of("ingress") as redis:
                queue = Queue(Partition.only(redis), Durability(Mode.MEMORY))
                assert await queue.enqueue([delivery(b"one", "org_a")]) == [Accepted.NEW]
            server.kill()
            server.start()
            async with server.client_of() as admin:
                assert await admin.zcard(keys.ACCEPTED) == 1
                assert await admin.hget(keys.COUNTERS, "accepted") == b"1"


@pytest.mark.parametrize("secret", ["two words", 'a "quote"', "back\\slash"])
def test_a_password_that_redis_could_not_write_down_is_refused(tmp_path: Path, secret: str) -> None:
    server = DeployedRedis(tmp_path)
    (tmp_path / "secrets" / "sentinel").write_text(secret)
    ended = subprocess.run(
        [*("/usr/bin/env", *server._words(0))], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "sentinel: expected a password without spaces, quotes or backslashes" in ended.stderr
    assert secret not in ended.stderr


def test_more_lines_than_an_old_password_and_a_new_one_are_refused(tmp_path: Path) -> None:
    server = DeployedRedis(tmp_path)
    (tmp_path / "secrets" / "worker").write_text("one\r\n\ntwo\nthree\n")
    ended = subprocess.run(
        [*("/usr/bin/env", *server._words(0))], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    expected = "a password, or two while one is changed"
    assert f"worker: expected {expected}, got 3 lines" in ended.stderr


async def test_of_two_passwords_both_are_taken_and_a_server_shows_the_new_one(
    tmp_path: Path,
) -> None:
    with DeployedRedis(tmp_path / "one") as one:
        other = DeployedRedis(tmp_path / "other", primary=one.port)
        for place in ("one", "other"):
            (tmp_path / place / "secrets" / "replica").write_text("old\r\nnew")
        one.restart()
        for secret in ("old", "new"):
            async with Redis(port=one.port, username="replica", password=secret) as redis:
                assert await redis.ping()
        with other:
            assert 'masterauth "new"\n' in (tmp_path / "other/data/secrets.conf").read_text()
            async with one.client_of() as admin:
                await until(lambda: _has_replica(admin))


async def test_a_reload_that_redis_refuses_says_so_and_changes_nothing(tmp_path: Path) -> None:
    """As where somebody has put the new password in the place of the old one."""
    with DeployedRedis(tmp_path) as server:
        for user in ("operator", "worker"):
            (tmp_path / "secrets" / user).write_text("another")
        words = server._words(server.port)
        start = ("sh", str(REDIS / "start.sh"), "reload", "-p", str(server.port))
        told = ("/usr/bin/env", *words[: words.index("sh")])
        ended = await run_command(*told, *start, environ=dict(os.environ))
        assert ended.code == 2
        assert ended.stderr.startswith("error: expected OK, got")
        assert "WRONGPASS" in ended.stderr
        assert "another" not in ended.stderr
        async with server.client_of("worker") as redis:
            assert await redis.ping()


async def test_redis_7_0_takes_the_users_without_the_words_that_it_does_not_know(
    tmp_path: Path,
) -> None:
    with debians_redis(tmp_path) as server:
        url = server.url_of("ingress")
        asserted = environment(url, tmp_path, DURABILITY_ASSERTED="1")
        checked = await run("ingress", "check", environ=asserted)
        assert checked.code == 0, checked.stdout
        async with server.client_of() as admin:
            old = (await admin.info("server"))["redis_version"] < "7.2"
        checked = await run("ingress", "check", environ=environment(url, tmp_path))
        assert (checked.code != 0) is old


async def test_sentinels_fail_over_with_the_users_that_they_are_given(tmp_path: Path) -> None:
    with DeployedRedis(tmp_path / "one") as one:
        other = DeployedRedis(tmp_path / "other", primary=one.port)
        # Both have to agree, so each has to be let in by the other.
        first, second = (
            deployed_sentinel(tmp_path / name, one.port, quorum=2) for name in ("first", "second")
        )
        with other, first, second:
            worker = sentinel_url("worker", first)
            async with open_redis(RedisUrl(worker)) as redis:
                await until(lambda: _has_replica(redis))
                await redis.set("sellfern:wake", "before")
                await _tell(IMPATIENT, first, second)
                await until(lambda: _know_all(first, second))
                async with other.client_of() as admin:
                    await until(lambda: _is(admin, "before"))
                    one.kill()
                    await until(lambda: _is(redis, "before"), PATIENCE)
                    await redis.set("sellfern:wake", "after")
                    assert await admin.get("sellfern:wake") == b"after"
                # From here a server that answers late on a busy machine would fail over back, or
                # begin anew the time for which the old primary must have been up.
                await _tell(PATIENT, first, second)
            one.start()  # as the primary that it was, until Sentinel makes it a replica
            async with one.client_of() as admin:
                await until(lambda: _is(admin, "after"), PATIENCE)


async def _tell(command: tuple[str | int, ...], *sentinels: DeployedRedis) -> None:
    for sentinel in sentinels:
        async with sentinel.client_of() as asked:
            await asked.execute_command(*command)


async def _know_all(*sentinels: DeployedRedis) -> bool:
    for sentinel in sentinels:
        async with sentinel.client_of("operator") as asked:
            known = (await asked.sentinel_masters())["sellfern"]
            if (known["num-slaves"], known["num-other-sentinels"]) != (1, len(sentinels) - 1):
                return False
    return True


async def _has_replica(redis: Redis) -> bool:
    return bool((await redis.info("replication"))["connected_slaves"] == 1)


async def _is(redis: Redis, value: str) -> bool:
    try:
        return bool(await redis.get("sellfern:wake") == value.encode())
    except REDIS_ERRORS:
        await asyncio.sleep(0.02)
        return False
