"""Handlers that let the loop stand still: said soon, and charged once it is too long."""

import asyncio
import ctypes
import threading
import time

from tests.acceptance.hostile.notes import is_first
from tests.acceptance.hostile.row import (
    AGAIN,
    BLOCKED,
    HANDLED,
    Ending,
    Family,
    Order,
    failed,
)
from worker import Event, Organization

family = Family(
    "blocking",
    own=True,
    leaves=(BLOCKED,),
    logs=("loop_blocked", "worker_blocked"),
    twice=True,  # what ended in the loop's last turn, before its commit was sent
    patience=20.0,
)

_CHARGED = Ending(
    ("^event_retried .*blocked the worker for", "^event_dead blocked .*blocked the worker for"),
    "blocked",
    attempts=2,
)


@family.row(_CHARGED)
async def blocks_for_ever(event: Event[Order], organization: Organization) -> None:
    time.sleep(3600)


@family.row(_CHARGED)
async def spins_for_ever(event: Event[Order], organization: Organization) -> None:
    while True:
        try:
            pass
        except BaseException:
            pass


@family.row(_CHARGED)
async def waits_for_its_own_lock(event: Event[Order], organization: Organization) -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@family.row(_CHARGED)
async def has_a_child_that_blocks(event: Event[Order], organization: Organization) -> None:
    async def child() -> None:
        time.sleep(3600)

    await asyncio.gather(child())


class _BlocksWhenSaid(Exception):
    def __str__(self) -> str:
        time.sleep(3600)
        return ""


@family.row(_CHARGED)
async def raises_something_whose_text_blocks(
    event: Event[Order], organization: Organization
) -> None:
    raise _BlocksWhenSaid


@family.row(_CHARGED)
async def blocks_when_it_is_cancelled(event: Event[Order], organization: Organization) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        time.sleep(3600)


@family.row(HANDLED, *AGAIN)
async def leaves_a_child_that_blocks(event: Event[Order], organization: Organization) -> None:
    async def child() -> None:
        await asyncio.sleep(0.2)
        time.sleep(3600)

    if is_first(event):
        asyncio.create_task(child())


@family.row(HANDLED, *AGAIN)
async def leaves_a_callback_that_blocks(event: Event[Order], organization: Organization) -> None:
    """Whose it is may be unknown; then nobody is charged."""
    if is_first(event):
        asyncio.get_running_loop().call_later(0.2, time.sleep, 3600)


@family.row(HANDLED, leaves=(), logs=("loop_blocked",), twice=False)
async def blocks_for_a_moment(event: Event[Order], organization: Organization) -> None:
    time.sleep(0.7)


@family.row(
    HANDLED,
    Ending(("^event_lost", "^event_handled"), starts=2),
    failed("stopped renewing", reason="crashed"),
    leaves=(),
    logs=(),
    twice=True,
    settings={"HANDLER_TIMEOUT": "30s"},
)
async def keeps_the_interpreter_to_itself(event: Event[Order], organization: Organization) -> None:
    """As a slow extension, or a regular expression that backtracks: no watchdog runs meanwhile."""
    if is_first(event):
        ctypes.PyDLL(None).sleep(4)
