"""Handlers that start processes: a child shares nothing with the worker, and runs nothing of it."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings

from tests.acceptance.hostile.row import HANDLED, Family, Order
from worker import Event, Organization

family = Family("forking")


_WORKER = os.getpid()
_CHILD_SECONDS = 2.0


def fork() -> int:
    """Fork, once: a child that goes on as a worker can't fork again, and ends by itself."""
    if os.getpid() != _WORKER:
        os._exit(1)  # or they would be thousands where nobody holds them
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of a fork beside threads
        child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_REAL, _CHILD_SECONDS)
    return child


async def _reaped(child: int) -> None:
    """Wait until the child has ended; it is killed where it doesn't."""
    try:
        async with asyncio.timeout(0.8):
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                await asyncio.sleep(0.005)
    except TimeoutError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


@family.row(HANDLED)
async def terminates_what_it_forked(event: Event[Order], organization: Organization) -> None:
    """The child inherits the descriptor by which signals wake the loop."""
    child = fork()
    if not child:
        time.sleep(1)
        os._exit(0)
    await asyncio.sleep(0.05)
    os.kill(child, signal.SIGTERM)
    await _reaped(child)


@family.row(HANDLED)
async def interrupts_what_it_forked(event: Event[Order], organization: Organization) -> None:
    child = fork()
    if not child:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(1)
        os._exit(0)
    await asyncio.sleep(0.05)
    os.kill(child, signal.SIGINT)
    await asyncio.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    await _reaped(child)


@family.row(HANDLED)
async def kills_what_it_forked(event: Event[Order], organization: Organization) -> None:
    child = fork()
    if not child:
        time.sleep(1)
        os._exit(0)
    os.kill(child, signal.SIGKILL)
    await _reaped(child)


@family.row(HANDLED)
async def terminates_a_process_of_multiprocessing(
    event: Event[Order], organization: Organization
) -> None:
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1,))
    process.start()
    await asyncio.sleep(0.05)
    process.terminate()
    process.join(0.5)
    assert process.exitcode == -signal.SIGTERM


@family.row(HANDLED)
async def uses_a_process_of_multiprocessing(
    event: Event[Order], organization: Organization
) -> None:
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join(0.8)
    assert process.exitcode == 0


@family.row(HANDLED)
async def terminates_a_program(event: Event[Order], organization: Organization) -> None:
    program = subprocess.Popen(["sleep", "60"])
    program.terminate()
    program.wait(0.8)


@family.row(HANDLED)
async def terminates_a_program_of_the_loop(event: Event[Order], organization: Organization) -> None:
    program = await asyncio.create_subprocess_exec("sleep", "60")
    program.terminate()
    await program.wait()


@family.row(HANDLED)
async def returns_in_what_it_forked(event: Event[Order], organization: Organization) -> None:
    if child := fork():
        await _reaped(child)


@family.row(HANDLED)
async def awaits_in_what_it_forked(event: Event[Order], organization: Organization) -> None:
    """The child goes on with a copy of the worker's loop, if nobody keeps it from that."""
    if child := fork():
        await _reaped(child)
    else:
        await asyncio.sleep(0.01)


@family.row(HANDLED)
async def raises_in_what_it_forked(event: Event[Order], organization: Organization) -> None:
    if child := fork():
        await _reaped(child)
    else:
        raise ValueError("of the child")


@family.row(HANDLED)
async def exits_in_what_it_forked(event: Event[Order], organization: Organization) -> None:
    if child := fork():
        await _reaped(child)
    else:
        sys.exit(0)


@family.row(HANDLED)
async def writes_in_what_it_forked(event: Event[Order], organization: Organization) -> None:
    """The child would use the worker's own connections."""
    child = fork()
    if not child:
        await organization.state.get("something")
        await organization.state.put("of/the/child", 1)
        return
    await _reaped(child)
