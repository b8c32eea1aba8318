"""Facts about replays whose process is killed: they are shown, and a console goes on with them."""

import contextlib
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from aiohttp import ClientSession, CookieJar
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance import warm
from tests.acceptance.process import ROOT, Program, environment, until
from tests.integration.console.letters import bury
from tests.integration.console.site import Site
from tests.integration.jobs import counters, reach
from worker.operate.actions import last
from worker.operate.runs import Run, read_all

NUMBER: Final = 60
_ENDS: Final = ("stopped: ", "finished: ")
CONFIRM: Final = "/dead-letters/confirm?verb=replay&all=1"


@contextlib.asynccontextmanager
async def console(environ: dict[str, str]) -> AsyncIterator[tuple[Program, Site]]:
    """The console as a process, and a browser."""
    async with program(environ, "console") as found:
        (line,) = await found.logged("console_listening")
        async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
            yield found, Site(session, line["port"])


@contextlib.asynccontextmanager
async def program(environ: dict[str, str], *words: str) -> AsyncIterator[Program]:
    command = (sys.executable, "-m", "worker", *words)
    found = Program(await warm.start(*command, cwd=ROOT, env=environ, stdout=PIPE, stderr=PIPE))
    try:
        yield found
    finally:
        await found.stop()


async def test_a_killed_consoles_run_and_a_killed_commands_go_on_in_another_console(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    for name in ("org_a", "org_b"):
        await bury(redis, name, NUMBER)
    environ = environment(redis_server.url, tmp_path, CONSOLE_PORT="0")
    typed = ("dead-letters", "replay", "--organization", "org_b", "--yes", "--rate", "10")

    async def states() -> list[tuple[str, bool]]:
        return sorted((run.state, run.seen > 5) for run in await read_all(reach(redis)))

    async def are_going() -> bool:
        return await states() == [("running", True)] * 2

    async def are_left() -> bool:
        return await states() == [("interrupted", True)] * 2

    async with console(environ) as (first, site), program(environ, *typed) as command:
        await site.confirm(f"{CONFIRM}&organization=org_a", rate="10")
        await until(are_going)
        for each in (first, command):
            each.send(signal.SIGKILL)
            assert await each.ended() == -signal.SIGKILL
    await until(are_left)
    async with console(environ) as (_, site):
        listed = (await site.get("/dead-letters")).text
        for run in await read_all(reach(redis)):
            assert run.id in listed
            shown = await site.get(f"/runs/{run.id}")
            assert "doesn&#39;t reach Redis. Nothing is lost." in shown.text
            assert f"by a {run.by}" in shown.text or f"in a {run.by}" in shown.text
            await site.post(f"/runs/{run.id}/go-on", shown.fields)
        await until(lambda: are_replayed(redis))
        for run in await read_all(reach(redis)):
            assert (run.taken_up, run.taken_up_from, run.times) == ("local", "127.0.0.1", 2)
            await site.post(f"/runs/{run.id}/stop", (await site.get(f"/runs/{run.id}")).fields)
    ends = [each for each in await last(reach(redis)) if each.outcome.startswith(_ENDS)]
    assert [(each.by, each.who) for each in ends] == [("console", "local")] * 2


async def are_replayed(redis: Redis) -> bool:
    """Whether each has been, once: what is replayed twice counts twice."""
    number = (await counters(redis))["replayed"]
    assert number <= 2 * NUMBER
    return number == 2 * NUMBER


async def test_a_commands_run_is_shown_and_stopped_by_a_console(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    await bury(redis, "org_a", 50)
    environ = environment(redis_server.url, tmp_path, CONSOLE_PORT="0", LOGNAME="grace")
    typed = ("dead-letters", "replay", "--all", "--yes", "--rate", "1")

    async def going() -> Run | None:
        return next(iter(await read_all(reach(redis))), None)

    async def is_going() -> bool:
        return (run := await going()) is not None and run.seen > 0

    async with console(environ) as (_, site), program(environ, *typed) as command:
        await until(is_going)
        run = await going()
        assert run is not None
        shown = await site.get(f"/runs/{run.id}")
        assert "by grace, by a command" in shown.text
        await site.post(f"/runs/{run.id}/stop", shown.fields)
        assert await command.ended() == 2
        assert "stopped by local; nothing is lost" in command.text
        assert "stopped" in (await site.get(f"/runs/{run.id}")).text
