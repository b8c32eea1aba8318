"""Facts about what handlers share, from before the first claim to after the last settlement."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance.process import ROOT, Program, environment, run, until
from tests.acceptance.worker_process import running
from tests.integration.jobs import account, counters
from tests.integration.workplace import Workplace, body
from tests.ports import free_port
from worker.engine.process import Exit

NAME = "tests.acceptance.resourceful.resources"
SLOTS = 16
"""More than Python's own pool has threads on two processors."""


@contextlib.asynccontextmanager
async def database(port: int, greeting: str = "welcome") -> AsyncIterator[None]:
    """A server that greets whoever connects; where it has nothing to say it hangs up."""
    writers: list[asyncio.StreamWriter] = []

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if greeting:
            writer.write(f"{greeting}\n".encode())
            await writer.drain()
        else:
            writer.close()

    try:
        async with await asyncio.start_server(greet, "127.0.0.1", port):
            yield
    finally:
        for writer in writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def environ(redis_server: EmbeddedRedis, tmp_path: Path, port: int) -> dict[str, str]:
    notes = tmp_path / "notes"
    notes.touch()
    return environment(
        redis_server.url,
        tmp_path,
        WORKER_HANDLERS="tests.acceptance.resourceful:handlers",
        WORKER_CONCURRENCY=str(SLOTS),
        ORGANIZATION_CONCURRENCY=str(SLOTS),
        DATABASE_PORT=str(port),
        NOTES=str(notes),
    )


async def handled(redis: Redis, number: int) -> None:
    async def enough() -> bool:
        return (await counters(redis)).get("handled", 0) >= number

    await until(enough)


async def test_what_can_not_be_reached_yet_is_waited_for(
    redis: Redis, environ: dict[str, str], port: int
) -> None:
    await Workplace(redis).accept(body("evt_1", "org_a"))
    worker = await Program.begin("worker", environ)
    try:
        await worker.logged("resources_awaited")
        reply = await worker.admin("/readyz")
        assert reply.status == 503
        (problem,) = json.loads(reply.body)["problems"]
        assert problem["code"] == "resources_awaited"
        assert (
            "tests.acceptance.resourceful.resources: ConnectionRefusedError" in problem["message"]
        )
        assert (await worker.admin("/livez")).status == 200
        async with database(port, greeting=""):
            await worker.logged(
                "resources_awaited", error="ConnectionResetError: the database isn't ready"
            )
        assert len((await account(redis)).queued) == 1
        async with database(port):
            await worker.logged("resources_found")
            await handled(redis, 1)
        assert await redis.get(keys.state("org_a", "greeting")) is not None

        async def ready() -> bool:
            return (await worker.admin("/readyz")).status == 200

        await until(ready)  # the answer is kept for a moment
    finally:
        await worker.stop()


async def test_it_is_left_once_all_is_settled(
    redis: Redis, environ: dict[str, str], port: int, tmp_path: Path
) -> None:
    await Workplace(redis).accept(body("evt_1", "org_a", type="order.status_changed"))
    async with database(port), running(environ) as (worker,):
        await worker.logged("lasting")
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
    assert (tmp_path / "notes").read_text() == "handled\nleft\n"
    assert (await counters(redis)).get("handled") == 1


async def test_what_hangs_at_its_end_is_cut_short(environ: dict[str, str], port: int) -> None:
    environ |= {"FAILS": "at the end", "DRAIN_SECONDS": "1s"}
    async with database(port), running(environ) as (worker,):
        worker.send(signal.SIGTERM)
        began = asyncio.get_running_loop().time()
        assert await worker.ended() == 0
        assert asyncio.get_running_loop().time() - began < 6
        (line,) = worker.events("lifespan_cut_short", level="error")
        assert "resourceful.py" in line["traceback"]


async def test_a_task_of_it_that_fails_ends_the_worker_in_order(
    redis: Redis, environ: dict[str, str], port: int
) -> None:
    """A task group around the ``yield`` cancels the task that began it: the worker's own."""
    await Workplace(redis).accept(body("evt_1", "org_a", type="order.status_changed"))
    environ |= {"FAILS": "meanwhile", "DATABASE_PASSWORD": "hunter2-hunter2"}
    async with database(port), running(environ) as (worker,):
        assert await worker.ended() == Exit.BROKEN
        (failed,) = worker.events("lifespan_failed", level="error")
        assert "ValueError: ***" in failed["traceback"]
        assert len(worker.events("worker_broken", level="error")) == 1
        assert worker.lines[-1]["event"] == "worker_stopped"
        assert "hunter2" not in worker.text
    assert len((await account(redis)).queued) == 1


async def test_a_stop_ends_the_waiting(environ: dict[str, str]) -> None:
    worker = await Program.begin("worker", environ)
    try:
        await worker.logged("resources_awaited")
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
    finally:
        await worker.stop()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"FAILS": "at the start"},
            (
                f"error: WORKER_HANDLERS: expected a lifespan that begins: {NAME}, "
                f"got ValueError: a bad start\n"
            ),
        ),
        (
            {"DATABASE_PORT": ""},
            (
                "error: DATABASE_PORT: expected a value, which the handlers' lifespan asks for, "
                "got nothing\n"
            ),
        ),
    ],
)
async def test_any_other_failure_is_one_error_and_the_end(
    environ: dict[str, str], changes: dict[str, str], said: str
) -> None:
    ended = await run("worker", environ={**environ, **changes})
    assert ended.code == 2
    assert said in ended.stdout + ended.stderr
    assert ('raise ValueError("a bad start")' in ended.stderr) == ("FAILS" in changes)
    checked = await run("worker", "check", environ={**environ, **changes})
    assert checked.code == 2
    assert said.removeprefix("error: ").strip() in checked.stdout


async def test_a_check_begins_and_ends_it(environ: dict[str, str], port: int) -> None:
    async with database(port):
        checked = await run("worker", "check", environ=environ)
    assert (checked.code, checked.stderr) == (0, "")
    assert "tests.acceptance.resourceful.resources: can begin" in checked.stdout
    assert Path(environ["NOTES"]).read_text() == "left\n"  # noqa: ASYNC240


async def test_there_is_a_thread_for_each_slot(
    redis: Redis, environ: dict[str, str], port: int
) -> None:
    events = [body(f"evt_{n}", "org_a", type="order.created") for n in range(SLOTS)]
    await Workplace(redis).accept(*events)
    async with database(port), running(environ):
        await handled(redis, SLOTS)  # each waits in its thread for all the others


async def test_sigterm_ends_a_worker_whose_handlers_hang_as_they_are_imported(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """As the first process of a container it would not end by itself."""
    begun = tmp_path / "begun"
    text = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)\n"
    (tmp_path / "hanging.py").write_text(text)
    environ |= {"WORKER_HANDLERS": "hanging:handlers", "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    program = await Program.begin("worker", environ)

    async def is_begun() -> bool:
        return begun.exists()

    await until(is_begun)
    program.send(signal.SIGTERM)
    assert await program.ended() == 128 + signal.SIGTERM


TOLD = """\
import atexit, os, signal
from worker import Handlers, cli

handlers = Handlers()
tell = os.kill, os.getpid(), signal.SIGTERM

@handlers.on("order.updated")
async def act(event, organization): ...

"""
AT_THE_START = "cli.doubts = lambda _: tell[0](*tell[1:])\n"
AT_THE_END = "atexit.register(*tell)\n"


@pytest.mark.parametrize(("text", "code"), [(AT_THE_START, 128 + signal.SIGTERM), (AT_THE_END, 0)])
async def test_sigterm_before_a_worker_listens_or_once_it_has_stopped_leaves_it_its_own_code(
    environ: dict[str, str], tmp_path: Path, text: str, code: int
) -> None:
    """As the first process of a container it would not hear the one, and the other says nothing."""
    (tmp_path / "told.py").write_text(TOLD + text)
    environ |= {"WORKER_HANDLERS": "told:handlers", "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    assert (await run("worker", "run", "--burst", environ=environ)).code == code
