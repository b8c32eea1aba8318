"""Facts about dead letters and both programs as processes: paced, interrupted, seen, gone on."""

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance import warm
from tests.acceptance.process import ROOT, Ended, end_of, environment, run, until
from tests.acceptance.terminal import seen
from tests.acceptance.worker_process import running
from tests.integration.jobs import NOTHING, account, counters
from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization, Reject

MANY = 1200
RATE = 500
STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
REPLAY = ("dead-letters", "replay", "--all", "--yes", "--rate", str(RATE))


async def bury(redis: Redis, number: int) -> None:
    """Let so many events die; the handlers of the worker that is started would count them."""
    handlers = Handlers()

    @handlers.on("*")
    async def rejects(_event: Event[Any], _: Organization) -> Reject:
        return Reject("no such order")

    place = Workplace(redis, handlers)
    signed = [body(f"evt_{n}", data={"act": "count"}) for n in range(number)]
    for start in range(0, number, 200):
        await place.accept(*signed[start : start + 200])
    while claimed := await place.claim(200):
        await asyncio.gather(*(place.run(*each) for each in claimed))


async def interrupted(redis: Redis, environ: dict[str, str], after: int) -> Ended:
    """Begin to replay, press Ctrl-C after so many, and wait for the end."""
    process = await warm.start(
        sys.executable, "-m", "worker", *REPLAY, cwd=ROOT, env=environ, stdout=PIPE, stderr=PIPE
    )

    async def enough() -> bool:
        return int(await redis.hget(keys.COUNTERS, "replayed") or 0) >= after

    try:
        await until(enough)
        process.send_signal(signal.SIGINT)
        return await end_of(process)
    finally:
        if process.returncode is None:
            process.kill()


@pytest.fixture
def environ(redis_server: EmbeddedRedis, tmp_path: Path) -> dict[str, str]:
    """Give the environment of a worker and of the commands."""
    return environment(redis_server.url, tmp_path)


async def test_a_replay_keeps_its_rate_and_loses_none_to_ctrl_c(
    redis: Redis, environ: dict[str, str]
) -> None:
    loop = asyncio.get_running_loop()
    await bury(redis, MANY)
    async with running(environ):
        first = await interrupted(redis, environ, after=300)
        assert first.code == 130, first.stderr
        *_, line = first.stderr.splitlines()  # behind what is logged of the action
        told = re.fullmatch(
            r"interrupted: (\d+) replayed so far; nothing is lost, "
            r"the same command goes on with the rest",
            line,
        )
        assert told
        so_far = (await counters(redis))["replayed"]
        assert so_far - int(told[1]) in {0, 1}  # the one that was under way
        assert so_far < MANY

        began = loop.time()
        screen = STYLES.sub("", await seen("worker", *REPLAY, environ=environ, columns=80))
        took = loop.time() - began
        done = re.search(r"^([\d,]+) replayed\b", screen, re.MULTILINE)
        assert done, screen
        assert took > 0.9 * (int(done[1].replace(",", "")) - 1) / RATE
        assert re.search(r"replaying \S+ +(\d+)/\1 0:00:00", screen)

        async def all_are() -> bool:
            return int(await redis.zcard(keys.ACCEPTED)) == 0

        await until(all_are)
    assert (await counters(redis))["replayed"] == MANY
    values = await redis.mget([keys.state("org_a", f"handled/evt_{n}") for n in range(MANY)])
    assert set(values) == {b"1"}
    assert await redis.exists(keys.BURIED) == 0
    assert await account(redis) == NOTHING


async def test_what_is_meant_fits_a_narrow_terminal(redis: Redis, environ: dict[str, str]) -> None:
    await bury(redis, 12)
    words = ("dead-letters", "discard", "--all", "--dry-run")
    screen = (await seen("worker", *words, environ=environ, columns=50)).splitlines()
    assert len(screen) == 12
    assert max(map(len, screen)) == 50
    assert screen[-2:] == ["  … and 2 more", "would discard 12"]


async def test_a_group_comes_with_what_replays_a_sample_of_it(
    redis: Redis, environ: dict[str, str]
) -> None:
    """The command, for who sits before a terminal; typed, it tells what became of each."""
    await bury(redis, 7)
    screen = STYLES.sub(
        "", await seen("worker", "dead-letters", "groups", environ=environ, columns=99)
    )
    (words,) = re.findall(r"^ +(dead-letters replay --group \S+ --limit 5)$", screen, re.MULTILINE)
    async with running(environ):
        done = await run("worker", *words.split(), "--yes", environ=environ)
    assert done.stdout.endswith("5 replayed: 5 handled\n"), done.stdout + done.stderr
