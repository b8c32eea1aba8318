"""All misdeeds."""

from typing import Final

from tests.acceptance.hostile.misdeeds import (
    blocking,
    breaking,
    cancelling,
    context,
    crowding,
    forking,
    leaving,
    lingering,
    meddling,
    overrunning,
    raising,
    returning,
    sticking,
    stopping,
    storing,
)
from tests.acceptance.hostile.row import Family, named

SHARED: Final[tuple[Family, ...]] = (
    raising.family,
    returning.family,
    cancelling.family,
    overrunning.family,
    lingering.family,
    storing.family,
    context.family,
    forking.family,
)
"""A worker bears them one after the other, and goes on."""

OWN: Final[tuple[Family, ...]] = (
    lingering.to_the_end,
    sticking.family,
    meddling.family,
    breaking.family,
    blocking.family,
    leaving.family,
)
"""Each gets a worker of its own: it ends, or something outlives the event."""

STOPPING: Final = stopping.family
"""What a handler does while its worker is told to stop."""

ROWS: Final = named((*SHARED, *OWN, STOPPING, crowding.family))
