"""Facts about misdeeds among many events: nobody runs twice, and the figures stay bounded."""

import os
import signal
import sys
from asyncio.subprocess import DEVNULL
from collections import Counter
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance import warm
from tests.acceptance.hostile.account import CULPRIT, NEIGHBOUR, metrics
from tests.acceptance.hostile.crew import PATIENCE, SETTINGS, Crew, ends_in_time
from tests.acceptance.hostile.notes import FOLDER, notes
from tests.acceptance.hostile.row import DRAINED, HALF_STUCK
from tests.acceptance.hostile.table import SHARED
from tests.acceptance.process import ROOT, environment, until
from tests.integration.jobs import counters, nothing_is_left
from tests.integration.workplace import Workplace, body

LIMIT = 512 * 1024
"""KiB of memory that the manifest gives a worker."""

MANY = {"WORKER_CONCURRENCY": "100", "ORGANIZATION_CONCURRENCY": "100"}


def names(prefix: str, number: int) -> list[str]:
    return [f"evt_{prefix}_{n}" for n in range(number)]


async def accept(redis: Redis, organization: str, events: list[str], **data: object) -> None:
    signed = [body(name, organization, data=data) for name in events]
    await Workplace(redis).accept(*signed, organization=organization)


def peak_memory(pid: int) -> int:
    """KiB that a process has had at the most."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)


def starts(folder: Path) -> Counter[str]:
    return Counter(line["id"] for line in notes(folder) if line["what"] == "start")


async def counted(redis: Redis, name: str, number: int, patience: float = 15) -> None:
    """Wait until so many have ended so."""

    async def enough() -> bool:
        return (await counters(redis)).get(name, 0) >= number

    try:
        await until(enough, patience * PATIENCE)
    except TimeoutError:
        got = await counters(redis)
        raise AssertionError(f"expected {number} {name}, got {got}") from None


async def applied_once(redis: Redis, organization: str, events: list[str]) -> bool:
    values = await redis.mget([keys.state(organization, f"applied/{name}") for name in events])
    return bool(values == [b"1"] * len(events))


async def test_a_block_longer_than_the_lease_lets_no_neighbour_run_twice(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    settings = {**MANY, "HANDLER_TIMEOUT": "60s", "LEASE_SECONDS": "2s"}
    neighbours = names("n", 60)
    async with Crew.working(redis, redis_server.url, tmp_path, **settings) as crew:
        await accept(redis, NEIGHBOUR, neighbours, seconds=1.0)

        async def all_begun() -> bool:
            return len(starts(tmp_path)) == 60

        await until(all_begun, 10 * PATIENCE)
        await accept(redis, CULPRIT, ["evt_culprit"], do="blocks_for_five_seconds")
        async with Crew.working(redis, redis_server.url, tmp_path, **settings) as other:
            # The other one would take what isn't renewed.
            await counted(redis, "handled", 61)
            worker = await crew.at_work()
            (line,) = await worker.logged("loop_blocked")
            seconds = sum(
                number
                for name, number in (await metrics(worker)).items()
                if "loop_blocked_seconds_total" in name and 'type="order.updated"' in name
            )
            assert crew.codes == other.codes == []
    assert set(starts(tmp_path).values()) == {1}
    assert await applied_once(redis, NEIGHBOUR, neighbours)
    await until(lambda: nothing_is_left(redis))
    assert not (await counters(redis)).get("lease_expired")
    assert 3.0 < seconds < 8.0
    told = {name: line[name] for name in ("event_id", "organization", "type")}
    assert told == {
        "event_id": "evt_culprit",
        "organization": CULPRIT,
        "type": "order.updated",
    }
    assert "act" in line["handler"]
    assert "blocks_for_five_seconds" in line["stack"]
    blamed = {each["event"] for each in (*crew.lines, *other.lines)}
    assert not blamed & {"redis_lost", "redis_timeout", "lease_lost", "event_lost"}


async def test_many_that_block_for_a_moment_are_not_one_that_blocks_for_long(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """All of them in one turn of the loop, which takes longer than one handler may."""
    async with Crew.working(redis, redis_server.url, tmp_path) as crew:
        await accept(redis, CULPRIT, names("n", 8), do="blocks_for_a_quarter")
        await counted(redis, "handled", 8)
        await crew.stop((DRAINED,))
    assert crew.codes == []
    assert set(starts(tmp_path).values()) == {1}
    assert not [line for line in crew.lines if line["event"] == "worker_blocked"]


async def test_a_worker_half_of_whose_slots_are_stuck_leaves(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    neighbours = names("n", 50)
    async with Crew.working(redis, redis_server.url, tmp_path) as crew:
        await accept(redis, CULPRIT, names("stuck", 4), do="swallows_for_ever")
        await accept(redis, NEIGHBOUR, neighbours)
        await counted(redis, "dead:exhausted", 4, 30)
        await counted(redis, "handled", 50)
        await crew.workers[0].logged("worker_stuck")
        await crew.stop((DRAINED, HALF_STUCK))
    assert set(crew.codes) == {HALF_STUCK}
    assert len([line for line in crew.lines if line["event"] == "event_dead"]) == 4
    assert await applied_once(redis, NEIGHBOUR, neighbours)
    await until(lambda: nothing_is_left(redis))


@pytest.mark.usefixtures("executed")
async def test_cycles_of_a_mebibyte_stay_within_the_memory_of_the_manifest(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    async with Crew.working(redis, redis_server.url, tmp_path, **MANY) as crew:
        for n in range(15):
            events = names(str(n), 100)
            await accept(redis, CULPRIT, events, do="leaves_a_cycle_of_a_mebibyte")
        await counted(redis, "handled", 1500, 30)
        worker = await crew.at_work()
        peak = peak_memory(worker.process.pid)
        await crew.stop((DRAINED,))
    assert peak < LIMIT


async def test_a_value_that_nobody_asked_for_is_said_once_a_handler(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    async with Crew.working(redis, redis_server.url, tmp_path) as crew:
        await accept(redis, CULPRIT, names("n", 20), do="returns_the_answer")
        await counted(redis, "handled", 20)
        await accept(redis, CULPRIT, names("m", 20), do="returns_the_answer")
        await counted(redis, "handled", 40)
        await crew.stop((DRAINED,))
    (line,) = [line for line in crew.lines if line["event"] == "handler_returned_value"]
    assert line["level"] == "warning"
    assert "act" in line["handler"]
    assert line["value"] == "int"  # its type, and not what it was


@pytest.mark.skipif(sys.platform != "linux", reason="a pipe of a known size")
async def test_a_log_that_nobody_reads_stops_neither_the_work_nor_the_end(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    events = names("n", 1000)  # about four pipes full
    environ = environment(redis_server.url, tmp_path, **{**SETTINGS, FOLDER: str(tmp_path)})
    unread, stderr = os.pipe()
    worker = await warm.start(
        sys.executable, "-m", "worker", cwd=ROOT, env=environ, stdout=DEVNULL, stderr=stderr
    )
    os.close(stderr)
    try:
        await accept(redis, NEIGHBOUR, events)
        await accept(redis, CULPRIT, names("flood", 3), do="logs_without_end")
        await counted(redis, "handled", 1003)
        worker.send_signal(signal.SIGTERM)
        assert await ends_in_time(worker)
        assert worker.returncode == DRAINED
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
        os.close(unread)
    assert set(starts(tmp_path).values()) == {1}
    assert await applied_once(redis, NEIGHBOUR, events)
    await until(lambda: nothing_is_left(redis))


async def test_all_misdeeds_at_once_are_no_more_than_each_alone(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """Those that a worker bears, two of each, and fifty neighbours' events in their midst."""
    rows = [row for family in SHARED for row in family if all(e.finished for e in row.ends)]
    settings = {**MANY, "HANDLER_TIMEOUT": "5s"}  # all of them share the time of one loop
    neighbours = names("n", 50)
    async with Crew.working(redis, redis_server.url, tmp_path, **settings) as crew:
        for row in rows:
            await accept(redis, CULPRIT, names(row.name, 2), do=row.name)
        await accept(redis, NEIGHBOUR, neighbours)

        async def all_ended() -> bool:
            return int(await redis.zcard(keys.ACCEPTED)) == 0

        await until(all_ended, 60 * PATIENCE)
        assert crew.codes == []
        await until(lambda: nothing_is_left(redis))
        await accept(redis, NEIGHBOUR, names("meet", 100), do="meet", party=100)
        await until(all_ended, 10 * PATIENCE)
        await crew.stop((DRAINED,))
    assert await applied_once(redis, NEIGHBOUR, names("meet", 100))
    begun = starts(tmp_path)
    assert {begun[name] for name in neighbours} == {1}
    assert await applied_once(redis, NEIGHBOUR, neighbours)
