"""Handlers that leave something behind: tasks, callbacks, threads."""

import asyncio
import atexit
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.acceptance.hostile.misdeeds.overrunning import TOO_LONG, endure
from tests.acceptance.hostile.misdeeds.raising import Panic
from tests.acceptance.hostile.notes import note
from tests.acceptance.hostile.row import HANDLED, Family, Order
from worker import Event, Organization

family = Family("lingering")
to_the_end = Family("lingering to the end", own=True)

_kept: list[Any] = []


def _leave(work: Coroutine[Any, Any, Any]) -> None:
    _kept.append(asyncio.create_task(work))


async def _raise(error: BaseException, seconds: float = 0.0) -> None:
    await asyncio.sleep(seconds)
    raise error


@family.row(HANDLED)
async def leaves_a_child_that_fails(event: Event[Order], organization: Organization) -> None:
    _leave(_raise(ValueError("as told")))
    _leave(_raise(ValueError("as told"), 0.05))


@family.row(HANDLED)
async def leaves_a_child_that_panics(event: Event[Order], organization: Organization) -> None:
    _leave(_raise(Panic("as told")))
    _leave(_raise(Panic("as told"), 0.05))


@family.row(HANDLED)
async def leaves_a_child_that_nobody_keeps(event: Event[Order], organization: Organization) -> None:
    asyncio.create_task(_raise(ValueError("as told"), 0.05))


@family.row(HANDLED)
async def leaves_a_child_that_sleeps(event: Event[Order], organization: Organization) -> None:
    _leave(asyncio.sleep(3600))


@family.row(HANDLED)
async def leaves_a_child_that_cancels_it(event: Event[Order], organization: Organization) -> None:
    """It comes too late: the task may do another event's work by then, which it mustn't hit."""
    me = asyncio.current_task()
    assert me is not None

    async def child() -> None:
        for _ in range(100):
            me.cancel()
            await asyncio.sleep(0.001)

    _leave(child())


@family.row(HANDLED, notes=("late StateError",))
async def leaves_a_child_that_writes(event: Event[Order], organization: Organization) -> None:
    async def child() -> None:
        await asyncio.sleep(0.1)
        try:
            await organization.state.put("late", 1)
        except Exception as exc:
            note(f"late {type(exc).__name__}", event)

    _leave(child())


@family.row(HANDLED, notes=("late",))
async def leaves_a_child_that_reads_and_logs(
    event: Event[Order], organization: Organization
) -> None:
    async def child() -> None:
        await asyncio.sleep(0.1)
        organization.log.info("late")
        try:
            await organization.state.get("something")
        finally:
            note("late", event)

    _leave(child())


def _fail(error: BaseException) -> None:
    raise error


@family.row(HANDLED)
async def leaves_callbacks_that_fail(event: Event[Order], organization: Organization) -> None:
    loop = asyncio.get_running_loop()
    loop.call_soon(_fail, ValueError("as told"))
    loop.call_soon_threadsafe(_fail, Panic("as told"))
    loop.call_later(0.05, _fail, Panic("as told"))
    done = loop.create_future()
    done.add_done_callback(lambda _: _fail(Panic("as told")))
    done.set_result(None)


@family.row(HANDLED)
async def leaves_threads_that_fail(event: Event[Order], organization: Organization) -> None:
    threading.Thread(target=_fail, args=(ValueError("as told"),)).start()
    threading.Thread(target=_fail, args=(Panic("as told"),)).start()
    threading.Thread(target=sys.exit, args=(3,)).start()


@family.row(HANDLED)
async def leaves_an_exception_that_nobody_asked_for(
    event: Event[Order], organization: Organization
) -> None:
    asyncio.get_running_loop().create_future().set_exception(Panic("as told"))


@family.row(HANDLED)
async def leaves_what_fails_when_it_goes(event: Event[Order], organization: Organization) -> None:
    class Bad:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            raise Panic("as told")

    Bad()


@family.row(HANDLED)
async def leaves_a_program_that_runs(event: Event[Order], organization: Organization) -> None:
    none = asyncio.subprocess.DEVNULL
    await asyncio.create_subprocess_exec("sleep", "5", stdin=none, stdout=none, stderr=none)


# What is still there when the worker is told to stop mustn't keep it.


@to_the_end.row(HANDLED)
async def leaves_a_child_that_swallows_for_ever(
    event: Event[Order], organization: Organization
) -> None:
    _leave(endure(10.0**9))


@to_the_end.row(HANDLED)
async def leaves_a_child_that_turns_the_loop(
    event: Event[Order], organization: Organization
) -> None:
    async def child() -> None:
        while True:
            try:
                await asyncio.sleep(0.001)
            except BaseException:
                pass

    _leave(child())


@to_the_end.row(HANDLED)
async def leaves_a_generator_that_does_not_close(
    event: Event[Order], organization: Organization
) -> None:
    async def endless() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await endure(10.0**9)

    numbers = endless()
    await anext(numbers)
    _kept.append(numbers)


@to_the_end.row(HANDLED)
async def leaves_a_thread_that_hangs(event: Event[Order], organization: Organization) -> None:
    threading.Thread(target=time.sleep, args=(3600,)).start()


@to_the_end.row(HANDLED)
async def leaves_a_daemon_thread_that_hangs(
    event: Event[Order], organization: Organization
) -> None:
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()


@to_the_end.row(HANDLED)
async def leaves_a_call_in_the_loops_executor(
    event: Event[Order], organization: Organization
) -> None:
    _kept.append(asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600))


@to_the_end.row(TOO_LONG, patience=12.0)
async def awaits_a_thread_that_hangs(event: Event[Order], organization: Organization) -> None:
    await asyncio.to_thread(time.sleep, 3600)


@to_the_end.row(HANDLED)
async def leaves_a_call_in_an_executor_of_its_own(
    event: Event[Order], organization: Organization
) -> None:
    ThreadPoolExecutor().submit(time.sleep, 3600)


@to_the_end.row(HANDLED)
async def leaves_a_hook_for_the_exit_that_hangs(
    event: Event[Order], organization: Organization
) -> None:
    atexit.register(time.sleep, 3600)


@to_the_end.row(HANDLED)
async def leaves_a_hook_for_the_exit_that_fails(
    event: Event[Order], organization: Organization
) -> None:
    atexit.register(_fail, Panic("as told"))
    atexit.register(sys.exit, 9)


@to_the_end.row(HANDLED)
async def leaves_a_thread_that_never_rests(event: Event[Order], organization: Organization) -> None:
    def spin() -> None:
        while True:
            pass

    threading.Thread(target=spin, daemon=True).start()
