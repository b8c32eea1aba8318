"""Facts about children that a program forks: they do nothing to it."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance.process import ROOT, end_of, environment
from tests.acceptance.test_worker_process import handled
from tests.acceptance.worker_process import running
from tests.integration.jobs import NOTHING, account
from tests.integration.workplace import Workplace, body

PROGRAM = """
import asyncio, os, signal, socket, sys, threading
import uvloop
from aiohttp import ClientSession, web
from shared.program import forking
from shared.observe import logs

loop_name, act = sys.argv[1:]
STARTS = {"asyncio": asyncio.run, "uvloop": uvloop.run}
told = []

async def child(request):
    mine = os.getpid()
    # Written with the next turn of the loop: by the child, too, if it ever gets there.
    request.app["peer"].write(b"once ")
    number = await asyncio.create_task(fork()) if act == "task" else await fork()
    if os.getpid() != mine:
        return web.Response(text="from the child")
    _, status = await asyncio.to_thread(os.waitpid, number, 0)
    return web.Response(text=str(os.waitstatus_to_exitcode(status)))

async def fork():
    if act == "thread":
        return await asyncio.to_thread(fork_and_die)
    number = os.fork()
    if number:
        if act == "early":
            os.read(there[0], 1)
            os.kill(number, signal.SIGTERM)
            os.write(on[1], b"..")  # the second is for cat
        return number
    match act:
        case "early":
            threading.Event().wait()
        case "term" | "int":
            os.kill(os.getpid(), signal.SIGTERM if act == "term" else signal.SIGINT)
            threading.Event().wait()
        case "await":
            await asyncio.get_running_loop().create_future()
        case "sleep":
            await asyncio.sleep(0)
        case "exit":
            sys.exit(3)
        case "own":
            os._exit(own())
        case "end":
            assert forking.GUARD.is_child
            forking.end(SystemExit(7))
    return 0

def fork_and_die():
    if number := os.fork():
        return number
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()

def own():
    "A loop of its own, with connections of its own."
    async def work():
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        print("own loop", flush=True)
    STARTS[loop_name](work())
    return 9

there, on = os.pipe(), os.pipe()

def be_told_before_the_guard():
    os.write(there[1], b".")
    os.read(on[0], 1)

async def main():
    if act == "early":
        os.register_at_fork(after_in_child=be_told_before_the_guard)
    forking.guard()
    assert not forking.GUARD.is_child
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.append, "SIGTERM")
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, told.append, "SIGINT")
    left, right = socket.socketpair()
    reader, kept = await asyncio.open_connection(sock=left)
    app = web.Application()
    also_kept, app["peer"] = await asyncio.open_connection(sock=right)
    app.add_routes([web.get("/", child)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{site.port}") as answer:
            print("child", await answer.text(), flush=True)
    app["peer"].write(b"end")
    print("peer", (await reader.readuntil(b"end")).decode(), flush=True)
    process = await asyncio.create_subprocess_exec(
        "cat", stdin=-1, stdout=-1, preexec_fn=os.setpgrp
    )
    print("cat", (await process.communicate(b"fine"))[0].decode(), told, flush=True)
    await runner.cleanup()

logs.configure(level="info", fmt="json")
STARTS[loop_name](main())
"""

ENDS = {
    "return": 70,
    "await": 70,
    "sleep": 70,
    "task": 70,
    "exit": 70,
    "term": -signal.SIGTERM,
    "early": -signal.SIGTERM,
    "thread": -signal.SIGTERM,
    "int": 70,  # KeyboardInterrupt, as Python's own handler raises it
    "own": 9,
    "end": 7,
}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("act", ENDS)
async def test_a_child_takes_neither_its_parents_signals_nor_connections_nor_loop(
    loop: str, act: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", PROGRAM, loop, act, cwd=ROOT, stdout=PIPE, stderr=PIPE
    )
    ended = await end_of(process)
    said = ["own loop"] if act == "own" else []
    said += [f"child {ENDS[act]}", "peer once end", "cat fine []"]
    assert ended.stdout.splitlines() == said, ended.stderr
    assert ended.code == 0
    assert ended.stderr.count("forked_child_strayed") == (ENDS[act] == 70)


@pytest.mark.parametrize("act", ["terminate", "return", "await", "task", "exit", "raise"])
async def test_a_handlers_child_ends_and_its_worker_goes_on(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, act: str
) -> None:
    environ = environment(
        redis_server.url, tmp_path, WORKER_HANDLERS="tests.acceptance.forking_handlers:handlers"
    )
    place = Workplace(redis)
    async with running(environ) as (worker,):
        await place.accept(*(body(data={"act": act if n == 5 else ""}) for n in range(10)))
        (ended,) = await worker.logged("child_ended")
        await handled(redis, 10)
        await place.accept(body(data={}))
        await handled(redis, 11)
        assert worker.is_alive
        assert worker.events("draining") == []
        # A handler that returns in its child has done what it forked it for.
        assert ended["code"] != 0 or act in {"return", "task"}
    assert int(await redis.get(keys.state("org_a", "handled")) or 0) == 11
    assert await account(redis) == NOTHING
