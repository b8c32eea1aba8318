"""What a handler does while its worker is told to stop: it ends in time, come what may."""

import asyncio
import contextlib
import hashlib
import sys
import threading
import time

from tests.acceptance.hostile.misdeeds.overrunning import endure
from tests.acceptance.hostile.misdeeds.raising import Panic
from tests.acceptance.hostile.notes import is_first
from tests.acceptance.hostile.row import (
    AGAIN,
    ALMOST,
    BLOCKED,
    DRAINED,
    GIVEN_BACK,
    HANDLED,
    LEFT_LEASES,
    Family,
    Order,
)
from worker import Event, Organization

family = Family(
    "stopping",
    own=True,
    is_told_to_stop=True,
    settings={"HANDLER_TIMEOUT": "60s"},
    patience=15.0,
)


async def _until_cancelled() -> None:
    await asyncio.sleep(3600)


@family.row(GIVEN_BACK)
async def is_told_to_stop(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        await _until_cancelled()


@family.row(HANDLED)
async def ends_in_time(event: Event[Order], organization: Organization) -> None:
    await asyncio.sleep(0.5)


@family.row(GIVEN_BACK)
async def takes_a_moment_to_stop(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        try:
            await _until_cancelled()
        finally:
            await asyncio.sleep(0.2)


@family.row(HANDLED, GIVEN_BACK)
async def returns_when_told_to_stop(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        with contextlib.suppress(asyncio.CancelledError):
            await _until_cancelled()


@family.row(GIVEN_BACK, ALMOST)
async def raises_when_told_to_stop(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        try:
            await _until_cancelled()
        finally:
            raise ValueError("as told")


@family.row(GIVEN_BACK, ALMOST)
async def panics_when_told_to_stop(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        try:
            await _until_cancelled()
        finally:
            raise Panic("as told")


@family.row(GIVEN_BACK, ALMOST)
async def exits_when_told_to_stop(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        try:
            await _until_cancelled()
        finally:
            sys.exit(3)


@family.row(*AGAIN, drained=(DRAINED, LEFT_LEASES))
async def does_not_stop(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        await endure(10.0**9)


@family.row(*AGAIN, drained=(DRAINED, LEFT_LEASES))
async def has_a_child_that_does_not_stop(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        await asyncio.create_task(endure(10.0**9))


@family.row(GIVEN_BACK)
async def waits_for_a_thread_that_does_not_stop(
    event: Event[Order], organization: Organization
) -> None:
    if is_first(event):
        await asyncio.to_thread(time.sleep, 3600)


@family.row(*AGAIN, drained=(BLOCKED, LEFT_LEASES), twice=True)
async def blocks_while_told_to_stop(event: Event[Order], organization: Organization) -> None:
    """The loop can't even hear of it."""
    if is_first(event):
        time.sleep(3600)


@family.row(*AGAIN, drained=(BLOCKED, LEFT_LEASES), twice=True)
async def waits_for_a_lock_while_told_to_stop(
    event: Event[Order], organization: Organization
) -> None:
    if is_first(event):
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()


@family.row(*AGAIN, drained=(BLOCKED, LEFT_LEASES), twice=True)
async def computes_while_told_to_stop(event: Event[Order], organization: Organization) -> None:
    """In C, where Python hears of no signal until that is over."""
    if is_first(event):
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)


@family.row(*AGAIN, drained=(BLOCKED, LEFT_LEASES), twice=True)
async def blocks_when_told_to_stop(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        try:
            await _until_cancelled()
        finally:
            time.sleep(3600)


@family.row(*AGAIN, drained=(DRAINED, LEFT_LEASES))
async def cancels_others_when_told_to_stop(event: Event[Order], organization: Organization) -> None:
    if is_first(event):
        try:
            await _until_cancelled()
        finally:
            for task in asyncio.all_tasks():
                task.cancel()
