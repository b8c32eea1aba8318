"""Facts about workers as processes: crashes, stops, signals, Redis going away."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance.process import PATIENCE, environment, until
from tests.acceptance.worker_process import running
from tests.conftest import StartRedis
from tests.integration.jobs import NOTHING, account, counters
from tests.integration.workplace import Workplace, body


async def handled(redis: Redis, number: int) -> None:
    """Wait until so many events have been handled."""

    async def enough() -> bool:
        return (await counters(redis)).get("handled", 0) >= number

    await until(enough)


def scripted(event_id: str, act: str, organization: str = "org_a", **more: object) -> bytes:
    return body(event_id, organization, data={"act": act, **more})


async def state(redis: Redis, key: str) -> int:
    return int(await redis.get(keys.state("org_a", key)) or 0)


@pytest.fixture
async def own(fresh_redis_server: StartRedis) -> AsyncIterator[tuple[EmbeddedRedis, Redis]]:
    server = fresh_redis_server(appendfsync="always")
    async with Redis.from_url(server.url) as redis:
        yield server, redis


async def test_a_killed_workers_events_run_again_within_a_lease_and_commit_once(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    signed = [scripted(f"evt_{n}", "wait", path=str(gate)) for n in range(20)]
    await Workplace(redis).accept(*signed)
    environ = environment(redis_server.url, tmp_path, ORGANIZATION_CONCURRENCY="50")
    async with running(environ) as (first,):
        await first.logged("waiting", 20)
        first.send(signal.SIGKILL)
        await first.ended()
        gate.touch()
        started = asyncio.get_running_loop().time()
        async with running(environ):
            await handled(redis, 20)
            assert asyncio.get_running_loop().time() - started < 1 + PATIENCE / 2
    assert await state(redis, "handled") == 20
    assert await account(redis) == NOTHING
    assert (await counters(redis))["lease_expired"] == 20


@pytest.mark.parametrize("then", ["", "fail", "reject"])
async def test_a_worker_that_slept_past_its_lease_changes_nothing_any_more(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, then: str
) -> None:
    """Whether the late one wants to commit, to retry or to bury."""
    gate = tmp_path / "gate"
    place = Workplace(redis)
    environ = environment(redis_server.url, tmp_path)
    async with running(environ) as (sleeper,):
        # The first attempt is the sleeper's; the other worker's is the first with an outcome.
        await place.accept(scripted("evt_1", "wait", path=str(gate), then=then, times=1))
        await sleeper.logged("waiting")
        sleeper.send(signal.SIGSTOP)
        gate.touch()
        async with running(environ):

            async def ended() -> bool:
                return int(await redis.zcard(keys.ACCEPTED)) == 0

            await until(ended)
            before = await counters(redis)
            sleeper.send(signal.SIGCONT)
            lines = await sleeper.logged("event_lost")
            assert lines[0]["event_id"] == "evt_1"
    assert await counters(redis) == before
    assert await state(redis, "handled/evt_1") == (0 if then == "reject" else 1)
    assert before.get("dead", 0) == (1 if then == "reject" else 0)
    assert await account(redis) == NOTHING


async def test_a_job_that_kills_its_worker_is_buried_and_its_neighbours_are_handled(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    signed = [scripted(f"evt_{n}", "count") for n in range(30)]
    signed.insert(3, scripted("evt_bad", "kill"))
    await Workplace(redis).accept(*signed)
    environ = environment(redis_server.url, tmp_path)

    async def all_ended() -> bool:
        ended = await counters(redis)
        return ended.get("handled") == 30 and ended.get("dead:crashed") == 1

    async with asyncio.timeout(60):
        while not await all_ended():
            async with running(environ) as (worker,):
                ending = asyncio.create_task(worker.process.wait())
                while not ending.done() and not await all_ended():
                    await asyncio.wait([ending], timeout=0.05)
                ending.cancel()
    assert await state(redis, "handled") == 30
    assert await account(redis) == NOTHING


async def test_sigterm_lets_handlers_finish_and_gives_the_others_back(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    place = Workplace(redis)
    await place.accept(
        scripted("evt_soon", "wait", path=str(gate)),
        scripted("evt_never", "wait", path=str(tmp_path / "nothing")),
    )
    environ = environment(redis_server.url, tmp_path, DRAIN_SECONDS="1s", LEASE_SECONDS="30s")
    async with running(environ) as (worker,):
        await worker.logged("waiting", 2)
        worker.send(signal.SIGTERM)
        await worker.logged("draining")
        assert (await worker.admin("/readyz")).json["problems"][0]["code"] == "draining"
        gate.touch()
        await handled(redis, 1)
        assert await worker.ended() == 0
        await worker.logged("event_released")
    found = await account(redis)
    assert len(found.queued) == 1
    assert found.running == {}
    ((claim, _),) = await place.claim()
    assert (claim.attempts, claim.claims) == (0, 0)
    assert await redis.zcard(keys.WORKERS_SEEN) == 0


async def test_a_second_signal_ends_a_worker_at_once(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    await Workplace(redis).accept(scripted("evt_1", "wait", path=str(tmp_path / "nothing")))
    async with running(environment(redis_server.url, tmp_path)) as (worker,):
        await worker.logged("waiting")
        worker.send(signal.SIGTERM)
        await worker.logged("draining")
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 1


async def test_redis_killed_and_restarted_is_survived(
    own: tuple[EmbeddedRedis, Redis], tmp_path: Path
) -> None:
    server, redis = own
    place = Workplace(redis)
    async with running(environment(server.url, tmp_path)) as (worker,):
        await place.accept(*(scripted(f"evt_{n}", "count") for n in range(10)))
        await handled(redis, 10)
        server.kill()
        await worker.logged("redis_lost")
        server.restart()
        await place.accept(*(scripted(f"evt_{n}", "count") for n in range(10, 20)))
        await handled(redis, 20)
        assert worker.process.returncode is None
        assert len([line for line in worker.lines if line["event"] == "redis_lost"]) < 6
    assert await state(redis, "handled") == 20
    assert await account(redis) == NOTHING


async def test_a_frozen_redis_is_survived(own: tuple[EmbeddedRedis, Redis], tmp_path: Path) -> None:
    server, redis = own
    place = Workplace(redis)
    async with running(environment(server.url, tmp_path)) as (worker,):
        server.freeze()
        lines = await worker.logged("redis_lost")
        assert lines[0]["code"] == "redis_timeout"
        server.thaw()
        await place.accept(*(scripted(f"evt_{n}", "count") for n in range(10)))
        await handled(redis, 10)
    assert await account(redis) == NOTHING


async def test_forgotten_scripts_and_a_full_redis_are_survived(
    own: tuple[EmbeddedRedis, Redis], tmp_path: Path
) -> None:
    server, redis = own
    place = Workplace(redis)
    await place.accept(*(scripted(f"evt_{n}", "count") for n in range(50)))
    await redis.config_set("maxmemory", 1)
    async with running(environment(server.url, tmp_path)):
        await handled(redis, 50)
        await redis.config_set("maxmemory", 0)
        await redis.script_flush()
        await place.accept(scripted("evt_more", "count"))
        await handled(redis, 51)
    assert await account(redis) == NOTHING


async def test_two_workers_share_the_work_and_each_event_commits_once(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    async with running(environment(redis_server.url, tmp_path), 2) as workers:
        place = Workplace(redis)
        for start in range(0, 1000, 100):
            signed = [scripted(f"evt_{n}", "count") for n in range(start, start + 100)]
            await place.accept(*signed)
            await place.accept(*signed)
        await handled(redis, 1000)
        for worker in workers:
            assert any(line["event"] == "event_handled" for line in worker.lines)
    assert await state(redis, "handled") == 1000
    assert await account(redis) == NOTHING


async def test_caps_retries_and_kills_leave_the_running_counters_at_zero(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    place = Workplace(redis)
    for n in range(10):
        organization = f"org_{n}"
        signed = [
            scripted(f"evt_{k}", "fail" if k % 5 == 0 else "count", organization, times=2)
            for k in range(100)
        ]
        await place.accept(*signed, organization=organization)
    environ = environment(redis_server.url, tmp_path, ORGANIZATION_CONCURRENCY="3")
    async with running(environ):
        for share in (150, 300, 450):
            async with running(environ) as (victim,):
                await handled(redis, share)
                victim.send(signal.SIGKILL)
                await victim.ended()
        await handled(redis, 1000)
    assert await account(redis) == NOTHING
    ended = await counters(redis)
    assert ended["handled"] == 1000
