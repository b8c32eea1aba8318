"""Handlers that never end, whatever is done to them: their slots are gone, the worker isn't."""

import asyncio
import contextlib
import time
from dataclasses import replace

from tests.acceptance.hostile.misdeeds.overrunning import STUCK, endure
from tests.acceptance.hostile.notes import note
from tests.acceptance.hostile.row import ANY_NUMBER, HALF_STUCK, Family, Order, failed
from worker import Event, Organization

_FOR_EVER = 10.0**9

# Two attempts take two slots; a worker of which fewer than half are stuck goes on.
family = Family("sticking", own=True, stuck=2, logs=("handler_stuck",), patience=12.0)


@family.row(STUCK)
async def swallows_for_ever(event: Event[Order], organization: Organization) -> None:
    await endure(_FOR_EVER)


@family.row(STUCK)
async def swallows_for_ever_and_turns_the_loop(
    event: Event[Order], organization: Organization
) -> None:
    while True:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(0.001)


@family.row(
    # It is soon begun again in a worker that is to end.
    replace(failed("didn't end when it was cancelled", reason="blocked"), starts=ANY_NUMBER),
    stuck=0,
    leaves=(HALF_STUCK,),
    twice=True,
    logs=("handler_stuck", "loop_blocked", "worker_stuck"),
    patience=25.0,
)
async def computes_for_ever_and_swallows(event: Event[Order], organization: Organization) -> None:
    """It lets the loop turn, but rarely: one such handler is enough for nobody to get on."""
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.8)
            await asyncio.sleep(0)


@family.row(STUCK)
async def has_a_child_that_swallows_for_ever(
    event: Event[Order], organization: Organization
) -> None:
    await asyncio.create_task(endure(_FOR_EVER))


@family.row(STUCK)
async def waits_for_ever_in_its_finally(event: Event[Order], organization: Organization) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await endure(_FOR_EVER)


@family.row(STUCK, notes=("late StateError",))
async def goes_on_to_write_when_it_is_stuck(
    event: Event[Order], organization: Organization
) -> None:
    """Its state refuses it from then on."""
    await endure(time.monotonic() + 2.2)
    try:
        await organization.state.put("late", event.id)
    except Exception as exc:
        note(f"late {type(exc).__name__}", event)
    await endure(_FOR_EVER)
