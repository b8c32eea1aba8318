"""Who we are at Redis, as the file of its URL says when a connection is made."""

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from deploy.local.embedded_redis import EmbeddedRedis
from shared.redis.connection import open_redis
from shared.settings.config import CommonSettings
from tests.log_support import captured_log

USER = "rotated"


@pytest.fixture
async def passwords(redis: Redis) -> AsyncIterator[tuple[str, str]]:
    """The two of a user."""
    both = ("the-old-one", "the-new-one")
    await redis.execute_command(
        "ACL", "SETUSER", USER, "on", *(f">{each}" for each in both), "~*", "+@all"
    )
    yield both
    await redis.execute_command("ACL", "DELUSER", USER)


@pytest.fixture
async def opened(
    tmp_path: Path, redis_server: EmbeddedRedis, passwords: tuple[str, str]
) -> AsyncIterator[tuple[Redis, Path]]:
    """A client whose URL is in a file, with the old password at first."""
    file = tmp_path / "redis-url"
    file.write_text(f"redis://{USER}:{passwords[0]}@127.0.0.1:{redis_server.port}/0\n")
    settings = CommonSettings.from_environ({"REDIS_URL_FILE": str(file)})
    async with open_redis(settings.redis_url, socket_timeout=5) as client:
        yield client, file


async def is_let_in(redis: Redis) -> bool:
    """Whether a connection that is made now is."""
    await redis.connection_pool.disconnect()
    return bool(await redis.ping())


async def test_a_new_connection_goes_by_the_file_as_it_is_now(
    opened: tuple[Redis, Path], redis: Redis, passwords: tuple[str, str]
) -> None:
    client, file = opened
    old, new = passwords
    with captured_log() as log:
        assert await is_let_in(client)
        file.write_text(file.read_text().replace(old, new))
        await redis.execute_command("ACL", "SETUSER", USER, f"<{old}")
        assert await client.ping()  # the connection that is there stays
        assert log.events == []
        assert await is_let_in(client)
        assert await is_let_in(client)
    assert log.events == ["redis_url_reread"]


async def test_whoever_is_refused_is_let_in_once_the_file_has_the_right_one(
    opened: tuple[Redis, Path], redis: Redis, passwords: tuple[str, str]
) -> None:
    """As where somebody has dropped the old one too early: no program has to be restarted."""
    client, file = opened
    old, new = passwords
    await redis.execute_command("ACL", "SETUSER", USER, f"<{old}")
    with pytest.raises(AuthenticationError):
        await is_let_in(client)
    file.write_text(file.read_text().replace(old, new))
    assert await is_let_in(client)


async def test_what_is_no_other_login_leaves_the_last_good_one_in_use(
    opened: tuple[Redis, Path], passwords: tuple[str, str]
) -> None:
    client, file = opened
    good = file.read_text()
    with captured_log() as log:
        for text in ("", good[:30], good.replace("/0", "/1"), good * 2, good + "redis://other"):
            file.write_text(text)
            assert await is_let_in(client)
            assert await is_let_in(client)
        file.unlink()
        assert await is_let_in(client)
        file.write_text(good)
        assert await is_let_in(client)
    assert log.events == ["redis_url_refused"] * 6 + ["redis_url_reread"]
    said = [line["error"] for line in log.lines[:-1]]
    place = good.strip().replace(f"{USER}:{passwords[0]}@", "")
    expected = f"REDIS_URL_FILE: expected {place} with any user and password, until the next start"
    assert said[2] == f"{expected}, got {place[:-1]}1 in {file}"
    assert said[5].endswith(f"expected a readable file, got {file} (No such file or directory)")
    assert not any(each in line for line in said for each in passwords)


async def test_a_file_that_hangs_holds_nobody_up_for_long(opened: tuple[Redis, Path]) -> None:
    client, file = opened
    good = file.read_text()
    file.unlink()
    os.mkfifo(file)
    try:
        with captured_log() as log:
            assert await is_let_in(client)
            assert await is_let_in(client)  # without asking again so soon
        (line,) = log.lines
        assert "no answer from the file system" in line["error"]
    finally:
        with suppress(OSError):  # let the thread that asks go
            os.write(os.open(file, os.O_WRONLY | os.O_NONBLOCK), good.encode())
