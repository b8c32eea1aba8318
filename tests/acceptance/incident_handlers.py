"""Handlers that a bad day has: an ERP that is down, and one that keeps its worker's loop."""

import os
import time
from pathlib import Path
from typing import Any

from worker import Event, Handlers, Organization

handlers = Handlers()


@handlers.on("order.created")
async def book(event: Event[Any], organization: Organization) -> None:
    """Tell the ERP."""
    if organization.id == "org_erp":
        raise ConnectionError("erp.example.com refuses connections")


@handlers.on("order.updated")
async def reckon(event: Event[Any], _: Organization) -> None:
    """Work it out, for as long as a file is there, as whoever has forgotten an await would."""
    while event.id == "evt_endless" and Path(os.environ["INCIDENT_GOES_ON"]).exists():  # noqa: ASYNC240  # on purpose
        time.sleep(0.05)  # noqa: ASYNC251  # on purpose
