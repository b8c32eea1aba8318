"""A program that forks while it answers a request, with a child that does as the program is told.

python -m tests.acceptance.forking_parent asyncio sleep
"""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn

import uvloop
from aiohttp import ClientSession, web

from shared.observe import logs
from shared.program import forking

STARTS: Final[dict[str, Callable[[Coroutine[Any, Any, None]], None]]] = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
}
PEER: Final = web.AppKey("peer", asyncio.StreamWriter)
there, on = os.pipe(), os.pipe()
told: list[str] = []


async def answer(request: web.Request) -> web.Response:
    """Fork, and tell how the child has ended."""
    mine = os.getpid()
    # Written with the next turn of the loop: by the child, too, if it ever gets there.
    request.app[PEER].write(b"once ")
    number = await asyncio.create_task(fork()) if act == "task" else await fork()
    if os.getpid() != mine:
        return web.Response(text="from the child")
    _, status = await asyncio.to_thread(os.waitpid, number, 0)
    return web.Response(text=str(os.waitstatus_to_exitcode(status)))


async def fork() -> int:
    """The child's id, or in the child 0."""
    if act == "thread":
        return await asyncio.to_thread(fork_and_die)
    if number := os.fork():
        if act == "early":
            os.read(there[0], 1)
            os.kill(number, signal.SIGTERM)
            os.write(on[1], b"..")  # the second is for cat
        return number
    return await be_child()


async def be_child() -> int:
    """Do what the program is told; 0 where that isn't the child's end."""
    match act:
        case "early":
            threading.Event().wait()
        case "term" | "int":
            die(signal.SIGTERM if act == "term" else signal.SIGINT)
        case "await":
            await asyncio.get_running_loop().create_future()
        case "sleep":
            await asyncio.sleep(0)
        case "exit":
            sys.exit(3)
        case "own":
            own()
            os._exit(9)
        case "end":
            assert forking.GUARD.is_child
            forking.end(SystemExit(7))
    return 0


def fork_and_die() -> int:
    """The same, of a child that nobody but itself ends."""
    number = os.fork()
    if number == 0:
        die(signal.SIGTERM)
    return number


def die(number: signal.Signals) -> NoReturn:
    """End by a signal."""
    os.kill(os.getpid(), number)
    threading.Event().wait()
    raise AssertionError


def own() -> None:
    """Run a loop of its own, with connections of its own."""

    async def work() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        reader, _writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        print("own loop", flush=True)  # noqa: T201

    STARTS[loop](work())


def be_told_before_the_guard() -> None:
    """Take a signal before anything else has run in the child."""
    os.write(there[1], b".")
    os.read(on[0], 1)


async def main() -> None:
    """Print how the child ended, and whether the parent still has what it had."""
    if act == "early":
        os.register_at_fork(after_in_child=be_told_before_the_guard)
    forking.guard()
    assert not forking.GUARD.is_child
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.append, "SIGTERM")
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, told.append, "SIGINT")
    left, right = socket.socketpair()
    reader, _kept = await asyncio.open_connection(sock=left)
    app = web.Application()
    _also_kept, app[PEER] = await asyncio.open_connection(sock=right)
    app.add_routes([web.get("/", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}") as answered:
        print("child", await answered.text(), flush=True)  # noqa: T201
    app[PEER].write(b"end")
    print("peer", (await reader.readuntil(b"end")).decode(), flush=True)  # noqa: T201
    process = await asyncio.create_subprocess_exec(
        "cat", stdin=-1, stdout=-1, preexec_fn=os.setpgrp
    )
    print("cat", (await process.communicate(b"fine"))[0].decode(), told, flush=True)  # noqa: T201
    await runner.cleanup()


if __name__ == "__main__":
    loop, act = sys.argv[1:]
    logs.configure(level="info", fmt="json")
    STARTS[loop](main())
