"""Handlers that set what others would see, in the context of their task or in the log."""

import asyncio
import decimal
import logging
import random

import structlog

from tests.acceptance.hostile.row import HANDLED, Family, Order, failed
from worker import Event, Organization

family = Family("context")


class _Unspeakable:
    def __str__(self) -> str:
        raise ValueError("no text for you")

    __repr__ = __str__


def _spoil() -> None:
    structlog.contextvars.bind_contextvars(secret="of org_a")
    decimal.getcontext().prec = 3


@family.row(HANDLED)
async def leaves_its_context(event: Event[Order], organization: Organization) -> None:
    """Every event of these tests looks whether it finds another's."""
    _spoil()


@family.row(HANDLED)
async def leaves_its_context_after_a_pause(event: Event[Order], organization: Organization) -> None:
    await asyncio.sleep(0.02)
    _spoil()
    await organization.state.get("something")
    _spoil()


@family.row(failed("ValueError"))
async def leaves_its_context_and_fails(event: Event[Order], organization: Organization) -> None:
    _spoil()
    raise ValueError("as told")


@family.row(failed("took longer"), patience=12.0)
async def leaves_its_context_and_overruns(event: Event[Order], organization: Organization) -> None:
    _spoil()
    await asyncio.sleep(3600)


@family.row(HANDLED)
async def leaves_its_context_in_a_callback(event: Event[Order], organization: Organization) -> None:
    asyncio.get_running_loop().call_soon(_spoil)
    await asyncio.sleep(0.01)


@family.row(HANDLED, mute=True)
async def logs_without_end(event: Event[Order], organization: Organization) -> None:
    """More than the log may hold back for a slow reader, so lines may be dropped."""
    for number in range(3000):
        organization.log.info("flood", number=number, text="x" * 500)


@family.row(HANDLED)
async def logs_odd_things(event: Event[Order], organization: Organization) -> None:
    log = organization.log
    log.info("odd", value=_Unspeakable(), level="mine", timestamp="mine", number=2**100)
    log.info("odd \udcff", text="\udcff\x1b[31m", many=[[[[[[[[[[[[1]]]]]]]]]]]])
    log.warning("odd", exc_info=ValueError("\udcff"), text="x" * 50_000)  # a reader may refuse more
    log.info("odd", nan=float("nan"), keys={1: 2, None: 3, (4,): 5})
    logging.getLogger("hers").warning("%d %s", "no number", _Unspeakable())


@family.row(failed(""), HANDLED)
async def logs_by_a_wrong_call(event: Event[Order], organization: Organization) -> None:
    organization.log.info()  # type: ignore[call-arg]


@family.row(HANDLED)
async def silences_the_standard_library(event: Event[Order], organization: Organization) -> None:
    logging.disable()
    logging.shutdown()
    logging.getLogger().handlers.clear()


@family.row(HANDLED)
async def seeds_what_is_drawn(event: Event[Order], organization: Organization) -> None:
    random.seed(1)
