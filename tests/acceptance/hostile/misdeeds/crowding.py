"""Misdeeds whose harm shows only in a crowd, or in figures: `test_crowded` has what must hold."""

import time

from tests.acceptance.hostile.row import HANDLED, Family, Order
from worker import Event, Organization

family = Family("crowding")


@family.row(HANDLED)
async def blocks_for_five_seconds(event: Event[Order], organization: Organization) -> None:
    time.sleep(5)


@family.row(HANDLED)
async def blocks_for_a_quarter(event: Event[Order], organization: Organization) -> None:
    time.sleep(0.25)


@family.row(HANDLED)
async def leaves_a_cycle_of_a_mebibyte(event: Event[Order], organization: Organization) -> None:
    cycle: list[object] = [bytearray(1024 * 1024)]
    cycle.append(cycle)


family.returns("the_answer", lambda: 42, HANDLED)
