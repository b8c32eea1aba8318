"""Handlers that take longer than they may: cancelled, again if need be, and then declared stuck."""

import asyncio
import contextlib
import sys
import time

from tests.acceptance.hostile.misdeeds.raising import Panic
from tests.acceptance.hostile.row import HANDLED, Family, Order, failed
from worker import Event, Organization, Reject

family = Family("overrunning", patience=12.0)

TOO_LONG = failed("took longer than 1 s")
STUCK = failed("took longer than 1 s and didn't end when it was cancelled")


@family.row(TOO_LONG)
async def sleeps(event: Event[Order], organization: Organization) -> None:
    await asyncio.sleep(3600)


@family.row(TOO_LONG)
async def awaits_what_nobody_sets(event: Event[Order], organization: Organization) -> None:
    await asyncio.get_running_loop().create_future()


@family.row(TOO_LONG)
async def turns_the_loop_without_end(event: Event[Order], organization: Organization) -> None:
    while True:
        await asyncio.sleep(0)


@family.row(TOO_LONG)
async def shields_what_it_awaits(event: Event[Order], organization: Organization) -> None:
    await asyncio.shield(asyncio.sleep(3600))


@family.row(TOO_LONG)
async def reads_the_state_without_end(event: Event[Order], organization: Organization) -> None:
    number = 0
    while True:
        number += 1
        await organization.state.get(f"key/{number}")


@family.row(TOO_LONG)
async def cleans_up_for_a_moment(event: Event[Order], organization: Organization) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.1)


@family.row(TOO_LONG)
async def swallows_one_cancellation(event: Event[Order], organization: Organization) -> None:
    """The second one ends it."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)
    await asyncio.sleep(3600)


@family.row(HANDLED, TOO_LONG)
async def returns_when_it_is_cancelled(event: Event[Order], organization: Organization) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)


@family.row(failed("ValueError|took longer"))
async def raises_when_it_is_cancelled(event: Event[Order], organization: Organization) -> None:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        raise ValueError("as told") from None


@family.row(failed("Panic|took longer"))
async def panics_when_it_is_cancelled(event: Event[Order], organization: Organization) -> None:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        raise Panic from None


@family.row(failed("SystemExit|took longer"))
async def exits_when_it_is_cancelled(event: Event[Order], organization: Organization) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        sys.exit(3)


@family.row(failed("took longer"), failed("Reject"), HANDLED)
async def returns_a_value_when_it_is_cancelled(
    event: Event[Order], organization: Organization
) -> type:
    try:
        await asyncio.sleep(3600)
    finally:
        return int  # noqa: B012  # it swallows the cancellation


@family.row(TOO_LONG)
async def is_cancelled_with_a_child_that_fails(
    event: Event[Order], organization: Organization
) -> None:
    async def child() -> None:
        await asyncio.sleep(3600)

    async with asyncio.TaskGroup() as group:
        group.create_task(child())
        group.create_task(child())


async def endure(until: float) -> None:
    """Swallow every cancellation until a time of the monotonic clock."""
    while (left := until - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(left)


_LATE = ("handler_stuck", "handler_ended_late")


@family.row(STUCK, logs=_LATE)
async def swallows_for_a_while(event: Event[Order], organization: Organization) -> None:
    await endure(time.monotonic() + 2.2)


@family.row(STUCK, logs=_LATE)
async def swallows_for_a_while_and_raises(event: Event[Order], organization: Organization) -> None:
    await endure(time.monotonic() + 2.2)
    raise Panic("late")


@family.row(STUCK, logs=_LATE)
async def swallows_for_a_while_and_rejects(
    event: Event[Order], organization: Organization
) -> Reject:
    await endure(time.monotonic() + 2.2)
    return Reject("late")


@family.row(STUCK, logs=_LATE)
async def has_a_child_that_swallows(event: Event[Order], organization: Organization) -> None:
    await asyncio.create_task(endure(time.monotonic() + 2.2))


@family.row(STUCK, logs=_LATE)
async def cleans_up_for_too_long(event: Event[Order], organization: Organization) -> None:
    until = time.monotonic() + 2.2
    try:
        await asyncio.sleep(3600)
    finally:
        await endure(until)
