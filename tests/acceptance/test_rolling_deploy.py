"""Facts about a deploy in which programs of an earlier version run beside these."""

import asyncio
import sys
from pathlib import Path
from typing import Final

import msgspec
import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.job import job_id
from tests.acceptance.earlier import unpack
from tests.acceptance.ingress_process import IngressProcess, ingress
from tests.acceptance.process import ROOT, Ended, environment, run_command, until
from tests.acceptance.worker_process import running
from tests.integration.jobs import NOTHING, account, counters, nothing_is_left
from tests.integration.workplace import body
from worker import Handlers

NUMBER: Final = 60

without_status_changes = Handlers()
without_status_changes.ignore("order.updated")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the source of the earlier version."""
    folder = tmp_path_factory.mktemp("earlier")
    unpack(folder)
    return folder


async def deliver(receiver: IngressProcess, first: int, number: int) -> None:
    for n in range(first, first + number):
        act = ["count", "fail", "count"][n % 3]
        signed = body(f"evt_{n}", data={"act": act, "times": 1})
        assert (await receiver.deliver(signed)).status == 202


async def all_handled(redis: Redis, number: int) -> None:
    async def is_so() -> bool:
        return (await counters(redis)).get("handled", 0) >= number

    await until(is_so)
    await until(lambda: nothing_is_left(redis))
    assert await redis.get(keys.state("org_a", "handled")) == str(number).encode()


async def test_an_earlier_worker_handles_what_this_ingress_accepts(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, earlier: Path
) -> None:
    environ = environment(redis_server.url, tmp_path)
    async with ingress(environ) as receiver, running(environ, folder=earlier):
        await deliver(receiver, 0, NUMBER)
        await all_handled(redis, NUMBER)


async def test_this_worker_handles_what_an_earlier_ingress_accepts(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, earlier: Path
) -> None:
    environ = environment(redis_server.url, tmp_path)
    async with ingress(environ, folder=earlier) as receiver, running(environ):
        await deliver(receiver, 0, NUMBER)
        await all_handled(redis, NUMBER)


async def test_workers_of_both_versions_share_the_work_and_finish_what_the_other_began(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, earlier: Path
) -> None:
    environ = environment(redis_server.url, tmp_path, WORKER_CONCURRENCY="10")
    async with ingress(environ) as receiver, running(environ) as (now,):
        async with running(environ, folder=earlier) as (before,):
            await deliver(receiver, 0, NUMBER)
            await asyncio.gather(now.logged("event_handled"), before.logged("event_handled"))
            before.process.kill()  # its leases run out, and this version takes them over
            await before.ended()
        await deliver(receiver, NUMBER, NUMBER)
        await all_handled(redis, 2 * NUMBER)


async def test_what_a_newer_version_wrote_waits_for_it_and_never_dies(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """The rule: a version may add arguments behind those of a payload record, nothing else."""
    signed = body("evt_1")
    job = job_id("org_a", signed)
    environ = environment(redis_server.url, tmp_path, MAX_ATTEMPTS="1", MAX_CRASHES="1")
    async with ingress(environ) as receiver:
        assert (await receiver.deliver(signed)).status == 202
        raw = await redis.get(keys.payload(job))
        record = msgspec.msgpack.decode(raw)
        record["a"].append({"added": "later"})
        await redis.set(keys.payload(job), jobs.serialize(record))
        async with running(environ) as (worker,):
            await worker.logged("event_waiting", times=2)
            assert worker.events("event_dead") == []
            assert await redis.hexists(keys.UNHANDLED, job)
            await redis.set(keys.payload(job), raw)  # as if one that knows it were there now
            await all_handled(redis, 1)
    assert not await redis.exists(keys.UNHANDLED)


async def test_an_event_whose_handler_only_new_workers_have_waits_for_one(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    environ = environment(redis_server.url, tmp_path)
    handlers = f"{__name__}:without_status_changes"
    async with ingress(environ) as receiver:
        async with running({**environ, "WORKER_HANDLERS": handlers}) as (old,):
            signed = body("evt_1", type="order.status_changed")
            assert (await receiver.deliver(signed)).status == 202
            await old.logged("event_waiting")
        async with running(environ):
            await all_handled(redis, 1)


async def commanded(folder: Path, environ: dict[str, str], *words: str) -> Ended:
    """Run a command of the version in that folder."""
    command = (sys.executable, "-m", "worker", "dead-letters", *words)
    ended = await run_command(*command, environ=environ, folder=folder)
    assert ended.code == 0, ended.stderr
    return ended


async def bury_and_hold(redis: Redis, environ: dict[str, str], signed: bytes) -> None:
    """Let an event die, be revived once by a redelivery, and be held once."""
    async with ingress(environ) as receiver, running(environ) as (worker,):
        for event, times in (("event_dead", 1), ("event_dead", 2), ("event_held", 1)):
            assert (await receiver.deliver(signed)).status == 202
            await worker.logged(event, times=times)

            async def is_gone() -> bool:
                return await account(redis) == NOTHING

            await until(is_gone)


async def test_an_earlier_version_reads_and_replays_a_letter_that_was_held(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, earlier: Path
) -> None:
    """And what it leaves, this version goes on with."""
    environ = environment(redis_server.url, tmp_path, MAX_ATTEMPTS="1")
    signed = body("evt_1", data={"act": "reject"})
    job = job_id("org_a", signed)
    await bury_and_hold(redis, environ, signed)
    shown = await commanded(earlier, environ, "show", job, "--json")
    assert (shown.json[0]["reason"], shown.json[0]["attempts"]) == ("rejected", 1)

    async with running(environ, folder=earlier) as (before,):
        await commanded(ROOT, environ, "replay", job, "--yes", "--wait", "0")
        await before.logged("event_dead")
        await commanded(earlier, environ, "replay", job, "--yes")
        await before.logged("event_dead", times=2)
    async with running(environ) as (now,):
        await commanded(ROOT, environ, "replay", job, "--yes", "--wait", "0")
        await now.logged("event_dead")
    (letter,) = (await commanded(ROOT, environ, "list", "--json")).json
    assert (letter["job"], letter["held"]) == (job, 0)


async def test_a_redelivery_that_an_earlier_worker_takes_over_runs_as_ever(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, earlier: Path
) -> None:
    environ = environment(redis_server.url, tmp_path, MAX_ATTEMPTS="1")
    signed = body("evt_1", data={"act": "reject"})
    await bury_and_hold(redis, environ, signed)
    async with ingress(environ) as receiver:
        async with running(environ, folder=earlier) as (before,):
            assert (await receiver.deliver(signed)).status == 202
            await before.logged("event_dead")
        async with running(environ) as (now,):
            assert (await receiver.deliver(signed)).status == 202
            await now.logged("event_held")
    await until(lambda: nothing_is_left(redis))
