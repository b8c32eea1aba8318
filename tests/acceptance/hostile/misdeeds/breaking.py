"""Handlers whose tasks and callbacks end the loop: the worker ends, with a code and a line."""

import asyncio
import os
import signal
import sys
import time

from tests.acceptance.hostile.misdeeds.forking import fork
from tests.acceptance.hostile.notes import is_first
from tests.acceptance.hostile.row import (
    AGAIN,
    BROKEN,
    HANDLED,
    Family,
    Order,
    crashed,
    failed,
)
from worker import Event, Organization

family = Family(
    "breaking", own=True, leaves=(BROKEN,), logs=("worker_broken",), twice=True, patience=15.0
)

_kept: list[object] = []


async def _exit(code: object = 3, seconds: float = 0.0) -> None:
    await asyncio.sleep(seconds)
    sys.exit(code)  # type: ignore[arg-type]


async def _interrupt() -> None:
    raise KeyboardInterrupt


@family.row(failed("SystemExit"))
async def has_a_child_that_exits(event: Event[Order], organization: Organization) -> None:
    await asyncio.gather(_exit(), asyncio.sleep(5))


@family.row(failed("SystemExit"))
async def has_a_child_in_a_group_that_exits(
    event: Event[Order], organization: Organization
) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_exit())


@family.row(failed("SystemExit"))
async def has_a_grandchild_that_exits(event: Event[Order], organization: Organization) -> None:
    async def child() -> None:
        await asyncio.gather(_exit())

    await asyncio.gather(child())


@family.row(failed("KeyboardInterrupt"))
async def has_a_child_that_interrupts(event: Event[Order], organization: Organization) -> None:
    await asyncio.gather(_interrupt())


@family.row(HANDLED)
async def leaves_a_child_that_exits(event: Event[Order], organization: Organization) -> None:
    """By then there is nothing left to charge."""
    _kept.append(asyncio.create_task(_exit(seconds=0.3)))


@family.row(HANDLED, *AGAIN)
async def has_a_callback_that_exits(event: Event[Order], organization: Organization) -> None:
    """Whose a callback is may be unknown; then nobody is charged."""
    if is_first(event):
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        await asyncio.sleep(0.5)


@family.row(crashed(abandoned=3), crashed(abandoned=4))
async def has_a_callback_that_exits_each_time(
    event: Event[Order], organization: Organization
) -> None:
    """Nobody is charged, but those that ran then become suspects, until it is alone."""
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await asyncio.sleep(0.5)


@family.row(HANDLED, *AGAIN)
async def has_a_timer_that_interrupts(event: Event[Order], organization: Organization) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    if is_first(event):
        asyncio.get_running_loop().call_later(0.05, interrupt)
        await asyncio.sleep(0.5)


# Whoever ends the loop's own tasks ends the worker, or it goes on: but it is no zombie.


@family.row(HANDLED, *AGAIN, failed("Cancelled|cancelled"), may_stay=True, logs=())
async def cancels_every_task(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(0.5)


@family.row(HANDLED, *AGAIN, may_stay=True, logs=())
async def cancels_every_other_task(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.5)


@family.row(HANDLED, *AGAIN, may_stay=True, logs=())
async def stops_the_loop(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.5)


@family.row(HANDLED, *AGAIN, may_stay=True, logs=())
async def stops_the_loop_and_returns(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        asyncio.get_running_loop().stop()


# These aren't broken: they are what an operator does, too.


@family.row(HANDLED, leaves=(0,), logs=("draining",), twice=False)
async def terminates_itself(event: Event[Order], organization: Organization) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.1)


@family.row(HANDLED, leaves=(0,), logs=("draining",), twice=False)
async def interrupts_itself(event: Event[Order], organization: Organization) -> None:
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(0.1)


@family.row(HANDLED, leaves=(), logs=(), twice=False, settings={"LEASE_SECONDS": "10s"})
async def suspends_itself(event: Event[Order], organization: Organization) -> None:
    """Whoever was suspended himself has seen nobody stand still."""
    child = fork()
    if not child:
        time.sleep(1.8)
        os.kill(os.getppid(), signal.SIGCONT)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSTOP)
    os.waitpid(child, 0)
