"""Facts about a start while Redis is away, of both programs: they wait, and say for what."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from tests.acceptance.ingress_process import IngressProcess
from tests.acceptance.process import ENDPOINTS, Program, environment, run, until
from tests.conftest import StartRedis
from tests.ingress_support import Client
from tests.integration.sentinels import SERVICE, EmbeddedSentinel
from tests.integration.workplace import body
from tests.ports import free_port
from tests.tools import tool

PROGRAMS = ("ingress", "worker")
NEVER = {"DRAIN_DELAY": "5m", "DRAIN_SECONDS": "1h"}
"""Whoever drained would not be back within a test's patience."""


@pytest.fixture
def port() -> int:
    """Where Redis will be."""
    return free_port()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@contextlib.asynccontextmanager
async def waiting(
    environ: Mapping[str, str], *programs: str, code: str = "redis_unreachable"
) -> AsyncIterator[list[Program]]:
    """Programs that have said what they wait for, ended with the block."""
    kinds: dict[str, type[Program]] = {"ingress": IngressProcess, "worker": Program}
    begun: list[Program] = []
    try:
        for name in programs:
            begun += [await kinds[name].begin(name, environ)]
        await asyncio.gather(*(each.logged("redis_awaited", code=code) for each in begun))
        yield begun
    finally:
        await asyncio.gather(*(each.stop() for each in begun))


async def is_alive_but_not_ready(program: Program, code: str) -> bool:
    """Whether the probes tell a program that waits from one that is broken, or well."""
    alive, ready = await program.admin("/livez"), await program.admin("/readyz")
    assert alive.status == 200
    assert ready.status == 503
    return [each["code"] for each in ready.json["problems"]] == [code]


async def is_ready(program: Program) -> bool:
    return (await program.admin("/readyz")).status == 200


async def metrics(program: Program) -> str:
    return (await program.admin("/metrics")).body.decode()


async def is_told_up(program: Program) -> bool:
    """Whether it tells that it can read Redis, once its last reading is too old."""
    return "sellfern_redis_up 1.0\n" in await metrics(program)


async def test_both_programs_wait_for_redis_and_go_on_when_it_is_there(
    port: int, fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    url = f"redis://127.0.0.1:{port}/0"
    async with waiting(environment(url, tmp_path), *PROGRAMS) as (receiver, worker):
        assert isinstance(receiver, IngressProcess)
        for program in (receiver, worker):
            await until(
                lambda program=program: is_alive_but_not_ready(program, "redis_unreachable")
            )
            (line,) = program.events("redis_awaited")
            assert (line["level"], line["url"]) == ("warning", url)
            assert line["message"] == "no connection to Redis: connection refused"
        await receiver.logged("ingress_listening")
        refused = await receiver.deliver(body("evt_1", data={"act": "count"}))
        assert (refused.status, refused.code) == (503, "redis_awaited")
        assert int(refused.headers["retry-after"]) > 0
        assert not worker.events("worker_started")
        for program, name in ((receiver, "ingress"), (worker, "worker")):
            assert f'sellfern_build_info{{program="{name}",' in await metrics(program)
        assert "sellfern_redis_up 0.0\n" in await metrics(receiver)  # what is absent tells nobody
        assert "sellfern_redis_up" not in await metrics(worker)

        fresh_redis_server(port=port)
        for program in (receiver, worker):
            (found,) = await program.logged("redis_found")
            assert (found["url"], found["seconds"] > 0) == (url, True)
            await until(lambda program=program: is_ready(program))
            assert len(program.events("redis_awaited")) == 1
        await until(lambda: is_told_up(receiver))
        assert (await receiver.deliver(body("evt_1", data={"act": "count"}))).status == 202
        async with Redis.from_url(url) as redis:
            name = keys.state("org_a", "handled/evt_1")
            await until(lambda: redis.exists(name))


async def test_an_older_redis_that_comes_later_is_asked_for_nothing_that_it_does_not_know(
    port: int, fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    """Redis has WAITAOF since 7.2; the one that a system carries may be 7.0."""
    environ = environment(f"redis://127.0.0.1:{port}/0", tmp_path)
    async with waiting(environ, "ingress") as (receiver,):
        assert isinstance(receiver, IngressProcess)
        fresh_redis_server(port=port, program=tool("redis-server"))
        await receiver.logged("redis_found")
        await until(lambda: is_ready(receiver))
        assert (await receiver.deliver(body("evt_1"))).status == 202


async def test_a_server_that_becomes_the_primary_later_is_waited_for(
    fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    """The name of a host may lead there before a fail-over has."""
    primary = fresh_redis_server()
    replica = fresh_redis_server(replicaof=("127.0.0.1", primary.port))
    environ = environment(replica.url, tmp_path)
    async with waiting(environ, *PROGRAMS, code="redis_readonly") as programs:
        async with Redis.from_url(replica.url) as admin:
            await admin.execute_command("REPLICAOF", "NO", "ONE")
        for program in programs:
            await program.logged("redis_found")
            await until(lambda program=program: is_ready(program))


async def test_sentinels_that_know_no_primary_yet_are_asked_again(
    port: int, fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    with EmbeddedSentinel(f"sentinel monitor {SERVICE} 127.0.0.1 {port} 1\n") as sentinel:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}/0"
        async with Redis(port=sentinel.port) as asked:
            await asked.execute_command(
                "SENTINEL", "SET", SERVICE, "down-after-milliseconds", "200"
            )

            async def is_down() -> bool:
                return "s_down" in (await asked.sentinel_masters())[SERVICE]["flags"]

            await until(is_down)
        environ = environment(url, tmp_path, DURABILITY="memory")  # there is no replica
        async with waiting(environ, *PROGRAMS, code="redis_no_primary") as programs:
            fresh_redis_server(port=port)
            for program in programs:
                await program.logged("redis_found")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("redis://:hidden@127.0.0.1:1/0", "redis_unreachable"),
        ("redis://:hidden@redis.invalid:6379/0", "redis_unreachable"),
        ("redis://:hidden@127.0.0.1:{silent}/0", "redis_timeout"),
    ],
)
async def test_a_stop_while_waiting_ends_both_at_once_and_well(
    silent: int, tmp_path: Path, url: str, code: str
) -> None:
    environ = environment(url.format(silent=silent), tmp_path, **NEVER)
    async with waiting(environ, *PROGRAMS, code=code) as programs:
        receiver = programs[0]
        assert isinstance(receiver, IngressProcess)
        await receiver.logged("ingress_listening")
        async with Client.to(receiver.port):  # a balancer's, that is kept open
            for program, number in zip(programs, (signal.SIGTERM, signal.SIGINT), strict=True):
                program.send(number)
                assert await program.ended() == 0, program.text
        for program, event in zip(programs, ("ingress_stopped", "worker_stopped"), strict=True):
            assert program.lines[-1]["event"] == event
            assert "hidden" not in program.text
            assert "Traceback" not in program.text


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_redis_that_comes_and_is_none_to_use_ends_the_waiting_with_exit_code_2(
    port: int, fresh_redis_server: StartRedis, tmp_path: Path, program: str
) -> None:
    environ = environment(f"redis://127.0.0.1:{port}/0", tmp_path)
    async with waiting(environ, program) as (begun,):
        fresh_redis_server(port=port, arguments={"maxmemory-policy": "allkeys-lru"})
        assert await begun.ended() == 2
        (error,) = [line for line in begun.text.splitlines() if not line.startswith("{")]
        assert error.startswith("error: REDIS_URL: expected a Redis that ")
        assert "maxmemory-policy: expected noeviction, got allkeys-lru" in error


@pytest.mark.parametrize(
    ("program", "setting"),
    [
        ("ingress", "INGRESS_PORT"),
        ("ingress", "INGRESS_ADMIN_PORT"),
        ("worker", "WORKER_ADMIN_PORT"),
    ],
)
async def test_a_port_that_is_taken_is_found_out_though_redis_is_away(
    silent: int, tmp_path: Path, program: str, setting: str
) -> None:
    environ = environment("redis://127.0.0.1:1/0", tmp_path, **{setting: str(silent)})
    ended = await run(program, environ=environ)
    assert ended.code == 2
    assert f"error: {setting}: expected a port free to listen on" in ended.stderr


async def test_commands_do_not_wait(tmp_path: Path) -> None:
    (tmp_path / "endpoints.toml").write_text(ENDPOINTS)
    environ = environment("redis://127.0.0.1:1/0", tmp_path)
    status, check = await asyncio.gather(
        run("worker", "status", environ=environ), run("ingress", "check", environ=environ)
    )
    assert (status.code, check.code) == (2, 2)
    assert "redis_unreachable: no connection to Redis" in status.stderr
    assert "redis_unreachable: redis://127.0.0.1:1/0: no connection to Redis" in check.stdout
