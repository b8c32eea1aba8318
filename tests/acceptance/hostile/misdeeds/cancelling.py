"""Handlers that cancel, themselves or others: that is a failure, unless the worker did it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Generator
from typing import Any, cast

from tests.acceptance.hostile.row import HANDLED, Family, Order, failed, rejected
from worker import Event, Organization, Reject, Retry

family = Family("cancelling")

_CANCELLED = failed("CancelledError|cancelled")


def _myself() -> "asyncio.Task[Any]":
    return cast("asyncio.Task[Any]", asyncio.current_task())


@family.row(_CANCELLED)
async def cancels_itself(event: Event[Order], organization: Organization) -> None:
    _myself().cancel()
    await asyncio.sleep(10)


@family.row(_CANCELLED)
async def cancels_itself_with_a_text(event: Event[Order], organization: Organization) -> None:
    _myself().cancel("as told")
    await asyncio.sleep(10)


@family.row(HANDLED, _CANCELLED)
async def cancels_itself_and_returns(event: Event[Order], organization: Organization) -> None:
    _myself().cancel()


@family.row(failed("ValueError|CancelledError|cancelled"))
async def cancels_itself_and_raises(event: Event[Order], organization: Organization) -> None:
    _myself().cancel()
    raise ValueError("as told")


@family.row(HANDLED)
async def cancels_itself_and_goes_on(event: Event[Order], organization: Organization) -> None:
    for _ in range(1000):
        _myself().cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(10)
    await asyncio.sleep(0.05)
    await organization.state.get("something")


@family.row(failed("took longer"))
async def cancels_itself_goes_on_and_overruns(
    event: Event[Order], organization: Organization
) -> None:
    _myself().cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(10)
    await asyncio.sleep(3600)


@family.row(failed("took longer"))
async def uncancels_itself_and_overruns(event: Event[Order], organization: Organization) -> None:
    for _ in range(10):
        _myself().uncancel()
    await asyncio.sleep(3600)


@family.row(HANDLED)
async def forgives_a_cancellation_in_time(event: Event[Order], organization: Organization) -> None:
    _myself().cancel()
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        _myself().uncancel()


@family.row(_CANCELLED)
async def is_cancelled_by_its_child(event: Event[Order], organization: Organization) -> None:
    me = _myself()

    async def child() -> None:
        me.cancel()

    await asyncio.gather(child(), asyncio.sleep(10))


@family.row(_CANCELLED)
async def is_cancelled_by_a_callback(event: Event[Order], organization: Organization) -> None:
    asyncio.get_running_loop().call_later(0.01, _myself().cancel)
    await asyncio.sleep(10)


@family.row(_CANCELLED)
async def is_cancelled_in_a_read(event: Event[Order], organization: Organization) -> None:
    asyncio.get_running_loop().call_soon(_myself().cancel)
    for number in range(1000):
        await organization.state.get(f"key/{number}")


@family.row(_CANCELLED)
async def awaits_a_cancelled_future(event: Event[Order], organization: Organization) -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@family.row(_CANCELLED)
async def awaits_a_cancelled_child(event: Event[Order], organization: Organization) -> None:
    child = asyncio.create_task(asyncio.sleep(10))
    await asyncio.sleep(0)
    child.cancel()
    await child


@family.row(failed("TimeoutError"))
async def sets_a_limit_of_its_own(event: Event[Order], organization: Organization) -> None:
    async with asyncio.timeout(0.05):
        await asyncio.sleep(10)


@family.row(failed("TimeoutError"))
async def waits_for_what_does_not_come(event: Event[Order], organization: Organization) -> None:
    await asyncio.wait_for(asyncio.sleep(10), 0.05)


async def _group(error: BaseException) -> None:
    async def child() -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        group.create_task(child())
        await asyncio.sleep(10)


@family.row(failed("ExceptionGroup"))
async def has_a_child_that_fails(event: Event[Order], organization: Organization) -> None:
    await _group(ValueError("as told"))


@family.row(failed("BaseExceptionGroup|GeneratorExit"))
async def has_a_child_that_panics(event: Event[Order], organization: Organization) -> None:
    await _group(GeneratorExit("as told"))


@family.row(failed("ExceptionGroup|retry"))
async def has_a_child_that_wants_a_retry(event: Event[Order], organization: Organization) -> None:
    await _group(Retry(after=0))


@family.row(rejected("as told"))
async def has_a_child_that_rejects(event: Event[Order], organization: Organization) -> None:
    await _group(Reject("as told"))


class _Yields(Awaitable[None]):
    def __init__(self, what: object) -> None:
        self._what = what

    def __await__(self) -> Generator[Any, Any, None]:
        yield self._what


@family.row(failed("RuntimeError"))
async def yields_what_is_no_future(event: Event[Order], organization: Organization) -> None:
    await _Yields(42)


@family.row(failed("RuntimeError"))
async def awaits_itself(event: Event[Order], organization: Organization) -> None:
    await _Yields(_myself())


@family.row(failed("RuntimeError"))
async def awaits_a_future_of_another_loop(event: Event[Order], organization: Organization) -> None:
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


@family.row(failed("RuntimeError"))
async def runs_a_loop_in_the_loop(event: Event[Order], organization: Organization) -> None:
    work = asyncio.sleep(0)
    try:
        asyncio.run(work)
    finally:
        work.close()


@family.row(failed("RuntimeError"))
async def runs_the_loop_again(event: Event[Order], organization: Organization) -> None:
    work = asyncio.sleep(0)
    try:
        asyncio.get_running_loop().run_until_complete(work)
    finally:
        work.close()


@family.row(failed("RuntimeError"))
async def closes_the_loop(event: Event[Order], organization: Organization) -> None:
    asyncio.get_running_loop().close()
