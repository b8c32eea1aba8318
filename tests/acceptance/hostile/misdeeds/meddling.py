"""Handlers that change what belongs to the process: the worker works on, and stops when told."""

import asyncio
import gc
import os
import signal
import socket
import sys
import warnings
from typing import Any, NoReturn

import structlog

from tests.acceptance.hostile.row import HANDLED, Family, Order, failed
from worker import Event, Organization

family = Family("meddling", own=True)


@family.row(HANDLED, settings={"ENDPOINTS_FILE": "relative"})
async def changes_the_directory(event: Event[Order], organization: Organization) -> None:
    os.chdir("/")


@family.row(HANDLED, mute=True)
async def closes_stderr(event: Event[Order], organization: Organization) -> None:
    sys.stderr.close()


@family.row(HANDLED, mute=True)
async def closes_the_descriptor_of_stderr(event: Event[Order], organization: Organization) -> None:
    """The next socket gets its number: a log line written there would end up in it."""
    os.close(2)
    for _ in range(3):
        socket.socket().detach()


@family.row(HANDLED)
async def loses_stderr(event: Event[Order], organization: Organization) -> None:
    sys.stderr = None


@family.row(HANDLED, logs=("signal_taken_back",))
async def ignores_sigterm(event: Event[Order], organization: Organization) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@family.row(HANDLED, logs=("signal_taken_back",))
async def gives_sigterm_back_to_the_system(event: Event[Order], organization: Organization) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@family.row(HANDLED, logs=("signal_taken_back",))
async def handles_sigterm_itself(event: Event[Order], organization: Organization) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))


@family.row(HANDLED)
async def takes_sigterm_from_the_loop(event: Event[Order], organization: Organization) -> None:
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


@family.row(HANDLED)
async def takes_the_descriptor_that_wakes(event: Event[Order], organization: Organization) -> None:
    signal.set_wakeup_fd(-1)


@family.row(HANDLED)
async def blocks_sigterm_in_its_thread(event: Event[Order], organization: Organization) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


@family.row(HANDLED)
async def collects_no_garbage(event: Event[Order], organization: Organization) -> None:
    gc.disable()
    gc.set_threshold(0)


@family.row(failed("RecursionError"))
async def allows_deep_recursion(event: Event[Order], organization: Organization) -> None:
    def deeper() -> None:
        deeper()

    sys.setrecursionlimit(50_000)
    deeper()


@family.row(HANDLED)
async def allows_little_recursion(event: Event[Order], organization: Organization) -> None:
    sys.setrecursionlimit(150)


@family.row(HANDLED)
async def takes_the_task_factory(event: Event[Order], organization: Organization) -> None:
    asyncio.get_running_loop().set_task_factory(None)


@family.row(HANDLED)
async def breaks_the_exception_handler(event: Event[Order], organization: Organization) -> None:
    def fail(*_: Any) -> NoReturn:
        raise ValueError("as told")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(fail)
    loop.call_soon(fail)
    sys.excepthook = sys.unraisablehook = fail


@family.row(HANDLED)
async def debugs_the_loop(event: Event[Order], organization: Organization) -> None:
    asyncio.get_running_loop().set_debug(True)


@family.row(HANDLED)
async def makes_warnings_errors(event: Event[Order], organization: Organization) -> None:
    warnings.simplefilter("error")


@family.row(HANDLED)
async def empties_the_environment(event: Event[Order], organization: Organization) -> None:
    os.environ.clear()


@family.row(HANDLED)
async def lets_threads_wait(event: Event[Order], organization: Organization) -> None:
    sys.setswitchinterval(30)


@family.row(HANDLED)
async def sets_a_limit_for_sockets(event: Event[Order], organization: Organization) -> None:
    socket.setdefaulttimeout(0.001)


@family.row(HANDLED, mute=True)
async def configures_the_log(event: Event[Order], organization: Organization) -> None:
    def fail(*_: Any) -> NoReturn:
        raise ValueError("as told")

    structlog.configure(processors=[fail])
    organization.log.info("never said")


@family.row(HANDLED)
async def forgets_the_loop(event: Event[Order], organization: Organization) -> None:
    asyncio.set_event_loop(None)
    asyncio.set_event_loop_policy(None)
