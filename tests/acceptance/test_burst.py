"""Facts about a worker that handles what waits, and ends: ``worker run --burst``."""

import contextlib
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance import warm
from tests.acceptance.process import ROOT, Program, environment, run
from tests.acceptance.test_lifespan import database
from tests.acceptance.worker_process import running
from tests.conftest import StartRedis
from tests.integration.jobs import NOTHING, account
from tests.integration.workplace import Workplace, body
from tests.ports import free_port
from worker.engine.process import Exit


def scripted(event_id: str, act: str, organization: str = "org_a", **more: object) -> bytes:
    return body(event_id, organization, data={"act": act, **more})


@contextlib.asynccontextmanager
async def begun(environ: dict[str, str]) -> AsyncIterator[Program]:
    """A burst that runs; ended with the block."""
    process = await warm.start(
        *(sys.executable, "-m", "worker", "run", "--burst"),
        cwd=ROOT,
        env=environ,
        stdout=PIPE,
        stderr=PIPE,
    )
    program = Program(process)
    try:
        yield program
    finally:
        await program.stop()


async def burst(environ: dict[str, str]) -> dict[str, Any]:
    """Run one to its end; what it says of it."""
    async with begun(environ) as program:
        assert await program.ended() == 0, program.text
    (told,) = program.events("burst_ended")
    assert program.lines[-1]["event"] == "worker_stopped"
    assert program.events("admin_listening") == program.events("loop_failed") == []
    return told


async def test_what_waits_is_handled_and_the_worker_ends(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    await Workplace(redis).accept(*(scripted(f"evt_{n}", "count") for n in range(300)))
    told = await burst(environment(redis_server.url, tmp_path, WORKER_CONCURRENCY="20"))
    assert (told["handled"], told["retried"], told["dead"], told["left"]) == (300, 0, 0, 0)
    assert await account(redis) == NOTHING
    assert await redis.zcard(keys.WORKERS_SEEN) == 0


async def test_with_nothing_to_do_it_ends_at_once(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    told = await burst(environment(redis_server.url, tmp_path))
    assert (told["handled"], told["left"]) == (0, 0)
    assert await account(redis) == NOTHING


async def test_a_retry_that_is_due_in_a_moment_is_waited_for_and_a_later_one_is_not(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    await Workplace(redis).accept(
        scripted("evt_fails", "fail", times=2),
        scripted("evt_dies", "reject"),
        scripted("evt_later", "later", times=1),
    )
    told = await burst(environment(redis_server.url, tmp_path))
    assert (told["handled"], told["retried"], told["dead"]) == (1, 3, 1)
    assert (told["left"], told["deferred"]) == (1, 1)


async def test_what_is_due_is_handled_though_another_handler_goes_on(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    await Workplace(redis).accept(
        scripted("evt_lasts", "wait", path=str(gate)), scripted("evt_fails", "fail", times=2)
    )
    async with begun(environment(redis_server.url, tmp_path)) as program:
        await program.logged("event_handled", event_id="evt_fails")
        gate.touch()
        assert await program.ended() == 0
    (told,) = program.events("burst_ended")
    assert (told["handled"], told["retried"], told["left"]) == (2, 2, 0)


async def test_what_is_paused_is_left(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    place, environ = Workplace(redis), environment(redis_server.url, tmp_path)
    assert (await run("worker", "pause", "org_b", environ=environ)).code == 0
    await place.accept(scripted("evt_1", "count"))
    await place.accept(scripted("evt_2", "count", "org_b"), organization="org_b")
    told = await burst(environ)
    assert (told["handled"], told["left"], told["parked"]) == (1, 1, 1)


async def test_all_events_of_a_key_are_handled_though_they_wait_for_each_other(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """A turn that can't be decided yet is put off for a moment, which is no reason to end."""
    await Workplace(redis).accept(*(body(f"evt_{n}") for n in range(60)))
    handlers = "tests.acceptance.keyed:handlers"
    environ = environment(redis_server.url, tmp_path, WORKER_HANDLERS=handlers)
    told = await burst(environ)
    assert (told["handled"], told["left"]) == (60, 0)


async def test_starts_at_a_rate_of_some_a_second_are_waited_for(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    environ = environment(redis_server.url, tmp_path)
    endpoints = tmp_path / "endpoints.toml"
    endpoints.write_text(endpoints.read_text().replace("\n\n[[", '\nrate = "10/s"\n\n[[', 1))
    await Workplace(redis).accept(*(scripted(f"evt_{n}", "count") for n in range(10)))
    told = await burst(environ)
    assert (told["handled"], told["left"]) == (10, 0)


async def test_it_neither_waits_for_a_worker_beside_it_nor_takes_its_port(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """As from cron, with the same variables."""
    gate, place = tmp_path / "gate", Workplace(redis)
    environ = environment(redis_server.url, tmp_path, WORKER_ADMIN_PORT=str(free_port()))
    await place.accept(scripted("evt_1", "wait", path=str(gate)))
    async with running(environ) as (worker,):
        await worker.logged("waiting")
        told = await burst(environ)
        assert (told["handled"], told["left"], told["leased"]) == (0, 1, 1)
        gate.touch()
        await worker.logged("event_handled")


async def test_sigterm_drains_it_as_any_worker(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    environ = environment(redis_server.url, tmp_path, WORKER_CONCURRENCY="1")
    await Workplace(redis).accept(
        scripted("evt_1", "wait", path=str(gate)), scripted("evt_2", "count")
    )
    async with begun(environ) as program:
        await program.logged("waiting")
        program.send(signal.SIGTERM)
        await program.logged("draining")
        gate.touch()
        assert await program.ended() == 0
    (told,) = program.events("burst_ended")
    assert (told["handled"], told["left"]) == (1, 1)
    assert len((await account(redis)).queued) == 1


async def test_hooks_are_told_of_its_last_failures(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    await Workplace(redis).accept(body("evt_1", data={"hook": "wait", "path": str(told)}))
    handlers = {"WORKER_HANDLERS": "tests.acceptance.watched:handlers", "MAX_ATTEMPTS": "1"}
    assert (await burst(environment(redis_server.url, tmp_path, **handlers)))["dead"] == 1
    assert told.exists()


async def test_a_lifespan_that_goes_on_for_ever_does_not_keep_it(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    port = free_port()
    environ = environment(
        redis_server.url,
        tmp_path,
        WORKER_HANDLERS="tests.acceptance.resourceful:handlers",
        WORKER_CONCURRENCY="2",
        DATABASE_PORT=str(port),
        NOTES=str(tmp_path / "notes"),
        FAILS="to end",
        DRAIN_SECONDS="1s",
    )
    async with database(port), begun(environ) as program:
        assert await program.ended() == Exit.LEFT
        await program.logged("ended_at_the_deadline")


async def test_a_redis_that_is_away_at_the_start_is_an_error(tmp_path: Path) -> None:
    """Or cron would start one after the other, and all of them would wait."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    ended = await run("worker", "run", "--burst", environ=environment(url, tmp_path))
    assert ended.code == 2
    assert ended.stderr.startswith(
        "error: REDIS_URL: expected a Redis that can be worked with, got "
    )
    assert len(ended.stderr.splitlines()) == 1


async def test_a_redis_that_goes_in_the_midst_is_waited_for(
    fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    gate, server = tmp_path / "gate", fresh_redis_server(appendfsync="always")
    async with Redis.from_url(server.url) as redis:
        await Workplace(redis).accept(scripted("evt_1", "wait", path=str(gate)))
        async with begun(environment(server.url, tmp_path, LEASE_SECONDS="30s")) as program:
            await program.logged("waiting")
            server.kill()
            gate.touch()
            await program.logged("redis_lost")
            server.restart()
            assert await program.ended() == 0
        (told,) = program.events("burst_ended")
        assert (told["handled"], told["left"]) == (1, 0)
