"""Facts about deploy/recovery.md: its commands, typed as they stand, do what it says."""

import asyncio
import contextlib
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis as Client
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from deploy.local.embedded_redis import EmbeddedRedis, RedisServerError, find_redis_server
from shared.queue import keys
from tests.acceptance.ingress_process import IngressProcess, ingress
from tests.acceptance.pages import Terminal, Typed, commands
from tests.acceptance.process import ROOT, Program, environment, until
from tests.acceptance.worker_process import running
from tests.deploy.deployed_redis import DeployedRedis
from tests.deploy.test_valkey import valkey_server
from tests.integration.workplace import body
from tests.tools import tool

__all__ = ["valkey_server"]

PAGE: Final = "deploy/recovery.md"
COMMANDS: Final = commands(PAGE)
MAKE, LOOK, ASIDE, BACK, STATUS, PARTITIONS, CHECK, LETTERS, BROKEN = COMMANDS[1:10]
PLAIN: Final = COMMANDS[-1]
_PASSING: Final = re.compile(
    r"sellfern:(workers|workers:seen|told-marks|slots|marker|wake|recount|queue:health-check)"
    r"|arq:.*cron.*"
)


def test_the_page_is_typed_here_from_its_beginning_to_its_end() -> None:
    here = (MAKE, LOOK, ASIDE, BACK, STATUS, PARTITIONS, CHECK, LETTERS, BROKEN)
    assert [
        "export STATE_DIR=/var/lib/redis BACKUPS=/var/backups/sellfern",
        *here,
        *(CHECK, "python -m worker check", PLAIN),
    ] == COMMANDS


class Site:
    """One machine with Redis, both programs and an operator who has the page before him.

    Args:
        folder: for all of it.
        server: its Redis.
    """

    def __init__(self, folder: Path, server: DeployedRedis) -> None:
        self.server = server
        self._state, self._backups = folder / "data", folder / "backups"
        self.environ = {
            user: self._environment(folder, user) for user in ("ingress", "worker", "operator")
        }
        self._folder = folder

    def _environment(self, folder: Path, user: str) -> dict[str, str]:
        places = {"STATE_DIR": str(self._state), "BACKUPS": str(self._backups)}
        paths = f"{Path(sys.executable).parent}:{tool('redis-cli').parent}:{os.environ['PATH']}"
        tools = {"REDIS_SERVER": str(find_redis_server()), "PATH": paths}
        return environment(self.server.url_of(user), folder, **places, **tools)

    def type(self, command: str, answer: str = "", user: str = "operator") -> None:
        """Type a command of the page; it has to succeed, and to answer so."""
        assert command in COMMANDS
        with Terminal(ROOT, self.environ[user], self._folder) as terminal:
            terminal.type_all([Typed(command, answer)])

    async def there(self) -> dict[bytes, Any]:
        """All that is in Redis, but for what programs say again and again."""
        async with self.server.client_of() as redis:
            found: dict[bytes, Any] = {}
            for name in await redis.keys():
                if not _PASSING.fullmatch(name.decode()):
                    found[name] = await _read(redis, name)
            return found

    async def handled(self, **times: int) -> None:
        """Wait until handlers of the organization that isn't paused have counted so."""
        begin = keys.state("org_a", "handled/")

        async def so_often() -> bool:
            async with self.server.client_of() as redis:
                names = sorted([name async for name in redis.scan_iter(f"{begin}*")])
                found = [int(await redis.get(name)) for name in names]
                return dict(zip(names, found, strict=True)) == expected

        expected = {f"{begin}{event_id}".encode(): number for event_id, number in times.items()}
        await until(so_often)

    async def known(self, since: int) -> None:
        """Wait until both programs have looked at Redis often enough to judge it."""

        async def is_known() -> bool:
            return await self.beats() >= since + 8

        await until(is_known)

    async def beats(self) -> int:
        """How often programs have looked at Redis."""
        async with self.server.client_of() as redis:
            return int(await redis.hget(keys.MARKER, "beats") or 0)


async def _read(redis: Redis, name: bytes) -> Any:
    commands: dict[bytes, tuple[str | int | bytes, ...]] = {
        b"string": ("GET", name),
        b"hash": ("HGETALL", name),
        b"zset": ("ZRANGE", name, 0, -1, "WITHSCORES"),
        b"set": ("SMEMBERS", name),
        b"list": ("LRANGE", name, 0, -1),
    }
    return await redis.execute_command(*commands[await redis.type(name)])


async def accept(receiver: IngressProcess, *event_ids: str, waits: bool = False) -> None:
    """Deliver events, which are accepted; of an organization that is paused, or of the other."""
    endpoint, organization = ("bolt", "org_b") if waits else ("acme", "org_a")
    for event_id in event_ids:
        signed = body(event_id, organization, data={"act": "count"})
        secret = f"whsec_{organization[-1]}"
        assert (await receiver.deliver(signed, endpoint=endpoint, secret=secret)).status == 202


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A running Redis, as ``start.sh`` starts it."""
    with DeployedRedis(tmp_path) as server:
        yield Site(tmp_path, server)


async def test_a_backup_is_put_back_and_a_lost_redis_begins_anew(site: Site) -> None:
    async with site.server.client_of() as admin:
        await admin.hset(keys.ORGANIZATIONS, f"{keys.PAUSE}org_b", "by an operator")
    async with ingress(site.environ["ingress"]) as receiver, running(site.environ["worker"]):
        await accept(receiver, "evt_1", "evt_2")
        await accept(receiver, "evt_w1", "evt_w2", "evt_w3", waits=True)
        await site.handled(evt_1=1, evt_2=1)
        async with site.server.client_of() as admin:  # an hour passes until it is needed
            await admin.hset(keys.MARKER, "at", str(time.time() - 3600))
        kept = await _backed_up(site)
        site.type(LOOK, r"^of 20\d\d-\d\d-\d\d .* UTC: 3 unfinished events, \d+ keys$")
        await accept(receiver, "evt_3")
        await accept(receiver, "evt_w4", waits=True)
        await site.handled(evt_1=1, evt_2=1, evt_3=1)
    site.server.stop()
    site.type(ASIDE)
    site.type(BACK)
    site.server.start()
    async with site.server.client_of() as admin:
        await admin.hset(keys.MARKER, "at", str(time.time() - 3600))
    assert await site.there() == kept
    site.type(STATUS, r"^no program has looked at Redis since 20\d\d-.*: of what came later it ha")
    site.type(PARTITIONS, r"^ +0 +127\.0\.0\.1:")
    begun = await site.beats()
    async with (
        ingress(site.environ["ingress"]) as receiver,
        running(site.environ["worker"]) as (worker,),
    ):
        site.type(CHECK, "^ok +redis +durable", user="ingress")
        site.type(LETTERS, "Dead letters: none")
        unwatched = await _first_told("redis_unwatched", receiver, worker)
        assert 3500 < unwatched["seconds"] < 3700
        # What was lost is new, should it come again; what was there is known.
        await accept(receiver, "evt_1", "evt_3")
        await site.handled(evt_1=1, evt_2=1, evt_3=1)
        await site.known(begun)
        await _lose(site)
        await accept(receiver, "evt_new")
        await site.handled(evt_new=1)
        for program in (receiver, worker):
            (line,) = await program.logged("redis_emptied")
            assert line["events"] == 3
        site.type(STATUS, "^nothing is left of what Redis had at 20.*: 3 unfinished events, all m")
        site.type(CHECK, "^ok +redis +durable", user="ingress")
        site.type("python -m worker check", "^ok +redis +usable", user="worker")


async def _first_told(event: str, *programs: Program) -> dict[str, Any]:
    """What the program has said of it that was the first one."""
    told: list[dict[str, Any]] = []

    async def is_told() -> bool:
        told.extend(line for each in programs for line in each.events(event))
        return bool(told)

    await until(is_told)
    return told[0]


async def _backed_up(site: Site) -> dict[bytes, Any]:
    """Make a backup of a moment at which nothing changes; what was there."""
    async with asyncio.timeout(60):
        while True:
            before = await site.there()
            site.type(MAKE, "/backups/20")
            if await site.there() == before:
                return before


async def _lose(site: Site) -> None:
    """Lose all, and let it begin anew."""
    site.server.stop()
    site.type(BROKEN)
    site.server.start()


def test_a_backup_is_whole_while_the_file_is_compacted(tmp_path: Path) -> None:
    """Redis ends files, begins others and removes the old ones meanwhile."""
    data = tmp_path / "data"
    data.mkdir()
    environ = {**os.environ, "STATE_DIR": str(data), "BACKUPS": str(tmp_path / "backups")}
    is_over = threading.Event()

    def write(server: EmbeddedRedis) -> None:
        with Client.from_url(server.url) as redis:
            while not is_over.is_set():
                redis.incr("number")
                with contextlib.suppress(ResponseError):  # one is under way
                    redis.bgrewriteaof()

    with (
        EmbeddedRedis(folder=data) as server,
        Client.from_url(server.url) as redis,
        ThreadPoolExecutor() as threads,
    ):
        writing = threads.submit(write, server)
        try:
            for _ in range(5):
                before = int(redis.get("number") or 0)
                with Terminal(ROOT, environ, tmp_path) as terminal:
                    terminal.type_all([Typed(MAKE, "/backups/20")])
                (made,) = (tmp_path / "backups").iterdir()
                assert before <= _number_in(made) <= int(redis.get("number") or 0)
                shutil.rmtree(made)
        finally:
            is_over.set()
        writing.result()
        assert not list(data.glob(".backup*"))


def _number_in(backup: Path) -> int:
    with EmbeddedRedis(folder=backup) as server, Client.from_url(server.url) as redis:
        return int(redis.get("number") or 0)


@pytest.fixture(scope="module")
def servers(valkey_server: Path) -> dict[str, Path]:
    """The versions that the page's table names."""
    return {
        "Redis 7.0": tool("redis-server"),
        "Redis 8.2": find_redis_server(),
        "Valkey 9.1": valkey_server,
    }


@pytest.mark.parametrize("old", ["Redis 7.0", "Redis 8.2", "Valkey 9.1"])
def test_another_version_starts_on_the_files_as_the_table_says(
    servers: dict[str, Path], tmp_path: Path, old: str
) -> None:
    written = tmp_path / "written"
    written.mkdir()
    _write(written, servers[old])
    table = (ROOT / PAGE).read_text()
    (row,) = re.findall(rf"^\| {old} \| (.*?) \| (starts|doesn't)", table, re.MULTILINE)
    for new in row[0].split(", "):
        assert _starts(written, servers[new], tmp_path) is (row[1] == "starts"), new
    environ = {**os.environ, "STATE_DIR": str(written), "REDIS_SERVER": str(servers[old])}
    with Terminal(ROOT, environ, tmp_path) as terminal:
        terminal.type_all([Typed(PLAIN, "^$")])
    for program in servers.values():
        assert _starts(written, program, tmp_path), program


def _write(folder: Path, program: Path) -> None:
    """One of each kind, compacted once, as all files are after a while."""
    with EmbeddedRedis(folder=folder, program=program) as server:
        with Client.from_url(server.url) as redis:
            redis.set("text", "a", px=3_600_000)
            redis.hset("hash", mapping={"a": "1", "b": "2"})
            redis.zadd("places", {"a": 1.5, "b": 2})
            redis.sadd("set", "a")
            redis.rpush("list", "a", "b")
            redis.bgrewriteaof()
            while redis.info("persistence")["aof_rewrite_in_progress"]:
                time.sleep(0.01)
        server.stop()


def _starts(written: Path, program: Path, folder: Path) -> bool:
    """Whether a version reads all of it."""
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(written, copy)
    server = EmbeddedRedis(folder=copy, program=program)
    try:
        with server, Client.from_url(server.url) as redis:
            assert redis.dbsize() == 5
            assert 0 < redis.pttl("text") <= 3_600_000
            assert redis.zrange("places", 0, -1, withscores=True) == [(b"a", 1.5), (b"b", 2.0)]
            return True
    except RedisServerError:
        return False
