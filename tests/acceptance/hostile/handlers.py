"""The registry of the workers under test: one handler does all misdeeds, and all good deeds."""

import asyncio
import decimal
from collections import Counter
from contextvars import ContextVar
from typing import Any

import structlog

from tests.acceptance.hostile.notes import note
from tests.acceptance.hostile.row import Order
from tests.acceptance.hostile.table import ROWS
from worker import Event, Handlers, Organization

handlers = Handlers()

LEAKING: ContextVar[str] = ContextVar("leaking", default="")
"""Every event sets it and none resets it: whoever finds it set sees another event's context."""

_arrived: Counter[str] = Counter()
_complete: dict[str, asyncio.Event] = {}


@handlers.on("*")
async def act(event: Event[Order], organization: Organization) -> Any:
    """Write down that it begins, change the state, and do as the event says."""
    note("start", event, organization=organization.id)
    _look_for_leaks(event)
    await organization.state.increment(f"applied/{event.id}")
    match event.data.do:
        case "count":
            await organization.state.get("something")
            await asyncio.sleep(event.data.seconds)
        case "meet":
            await _meet(event.id.rpartition("_")[0], event.data.party)
        case name:
            return await ROWS[name].act(event, organization)
    return None


def _look_for_leaks(event: Event[Order]) -> None:
    known = structlog.contextvars.get_contextvars()
    if LEAKING.get() or known or decimal.getcontext().prec != 28:
        note("leak", event, of=LEAKING.get(), log=repr(known), prec=decimal.getcontext().prec)
    LEAKING.set(event.id)


async def _meet(place: str, party: int) -> None:
    """End once so many are here at the same time, which takes as many free slots."""
    complete = _complete.setdefault(place, asyncio.Event())
    _arrived[place] += 1
    if _arrived[place] == party:
        complete.set()
    await complete.wait()
