"""The handlers that the benchmark's workers run: one registry for each kind of work."""

import asyncio
import os
from typing import Any

from tests.bench.peers import gate
from worker import Event, Handlers, Organization, Retry, Throttled

LOUD = "org_loud"
"""The organization whose handlers hang in `hanging`."""

QUIET = "org_quiet"
"""The organization that is looked at beside others."""

idle = Handlers()
throttled = Handlers()
sleeping = Handlers()
hanging = Handlers()
postponing = Handlers()


@idle.on("*")
async def do_nothing(event: Event[Any], organization: Organization) -> None:
    """Handle at once."""


@sleeping.on("*")
async def sleep(event: Event[Any], organization: Organization) -> None:
    """Take as long as a call of somebody's API."""
    await asyncio.sleep(0.1)


@throttled.on("*")
async def refuse_or_not(event: Event[Any], organization: Organization) -> None:
    """Find the loud organization's own system busy, for an hour."""
    if organization.id == LOUD:
        raise Throttled(3600)


@postponing.on("*")
async def postpone_or_not(event: Event[Any], organization: Organization) -> None:
    """Have all but the quiet organization's events wait for an hour."""
    if organization.id != QUIET:
        raise Retry(after=3600)


@hanging.on("*")
async def hang_or_not(event: Event[Any], organization: Organization) -> None:
    """Never return for the loud organization."""
    if organization.id == LOUD:
        await asyncio.Event().wait()


# The worker imports its handlers last before it starts: here it can be held until all are ready.
if "BENCH_GATE" in os.environ:
    gate.wait()
