"""Handlers that return, or raise, strange things, among them their wishes for a retry or an end."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any, NoReturn

from tests.acceptance.hostile.row import HANDLED, Ending, Family, failed, rejected
from worker import Reject, Retry
from worker.outcomes import Dead, Done

family = Family("returning")

_ASKED = failed("asked for a retry")
_FOR_EVER = (failed("after|Retry|seconds"),)
"""A time that no clock has is refused."""


class _Unspeakable:
    def __str__(self) -> str:
        raise ValueError("no text for you")

    __repr__ = __str__


class _Hollow(Retry):
    """Forgets what its base class needs."""

    def __init__(self) -> None:
        pass


class _Changed(Reject):
    @property
    def why(self) -> object:
        raise ValueError("no reason")

    @why.setter
    def why(self, why: object) -> None:
        pass


class _Array:
    """As NumPy's: comparing or weighing it is an error."""

    def __bool__(self) -> NoReturn:
        raise ValueError("the truth value is ambiguous")

    def __eq__(self, other: object) -> NoReturn:
        raise ValueError("compared")

    __hash__ = None  # type: ignore[assignment]


class _Classless:
    @property
    def __class__(self) -> type:
        raise ValueError("no class for you")


class _Liar:
    """Says that it is a Reject, and isn't."""

    __class__ = Reject  # type: ignore[assignment]


async def _coroutine() -> None:
    pass


async def _asynchronously() -> AsyncIterator[int]:
    yield 1


def _generator() -> Iterator[int]:
    yield 1


def _done(result: Any = None) -> "asyncio.Future[Any]":
    future = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


def _with_after(after: Any) -> Retry:
    retry = Retry()
    retry.after = after
    return retry


def _without_args() -> Reject:
    reject = Reject("as told")
    reject.why = 404
    return reject


_WISHES: tuple[tuple[str, Any, tuple[Ending, ...]], ...] = (
    ("retry", Retry, (_ASKED,)),
    ("retry_at_once", lambda: Retry(after=0), (_ASKED,)),
    ("retry_after_for_ever", lambda: Retry(after=float("inf")), _FOR_EVER),
    ("retry_after_1e300", lambda: Retry(after=1e300), _FOR_EVER),
    ("retry_after_the_longest_delta", lambda: Retry(after=timedelta.max), _FOR_EVER),
    ("retry_after_2_to_the_53", lambda: Retry(after=2**53), _FOR_EVER),
    ("retry_after_a_googol", lambda: Retry(after=10**100), _FOR_EVER),
    ("retry_after_nan", lambda: Retry(after=float("nan")), (failed("ValueError|after"),)),
    ("retry_after_less_than_0", lambda: Retry(after=-1), (failed("ValueError|after"),)),
    ("retry_after_a_text", lambda: Retry(after="x"), (failed("Error.*|after"),)),  # type: ignore[arg-type]
    ("retry_changed_to_a_text", lambda: _with_after("soon"), (_ASKED, failed("Retry|after"))),
    ("retry_changed_to_nan", lambda: _with_after(float("nan")), (_ASKED, failed("Retry|after"))),
    ("retry_why_a_number", lambda: Retry(0, 404), (failed("404"),)),  # type: ignore[arg-type]
    ("retry_why_unspeakable", lambda: Retry(0, _Unspeakable()), (failed(""),)),  # type: ignore[arg-type]
    ("retry_without_its_base", _Hollow, (failed(""),)),
    ("reject", lambda: Reject("as told"), (rejected("as told"),)),
    ("reject_an_exception", lambda: Reject(ValueError("as told")), (rejected("as told"),)),
    ("reject_a_number", lambda: Reject(404), (rejected("404"),)),
    ("reject_none", lambda: Reject(None), (rejected(""),)),
    ("reject_bytes", lambda: Reject(b"\xff"), (rejected(""),)),
    ("reject_a_lone_surrogate", lambda: Reject("a\udcffb"), (rejected("a.*b"),)),
    ("reject_ten_megabytes", lambda: Reject("x" * 10_000_000), (rejected("x+"),)),
    ("reject_unspeakable", lambda: Reject(_Unspeakable()), (rejected(""), failed(""))),
    ("reject_changed_to_a_number", _without_args, (rejected("404|as told"),)),
    ("reject_that_hides_why", lambda: _Changed("as told"), (rejected(""), failed(""))),
    ("reject_without_why", Reject, (rejected(""), failed("TypeError|Reject"))),
)

for _name, _make, _ends in _WISHES:
    family.raises(f"{_name}", _make, *_ends)
    family.returns(f"{_name}", _make, *_ends)


# The class means its instance.
family.returns("the_class_retry", lambda: Retry, _ASKED)
family.returns("the_class_reject", lambda: Reject, rejected(""), failed("Reject"))

# These are slips: what was meant to be raised or awaited wasn't.
family.returns("an_exception", lambda: ValueError("as told"), failed("ValueError"))
family.returns("an_exception_class", lambda: ValueError, failed("ValueError"))
family.returns("keyboard_interrupt", KeyboardInterrupt, failed("KeyboardInterrupt"))
family.returns("a_group", lambda: ExceptionGroup("x", [ValueError()]), failed("ExceptionGroup"))
family.returns("a_coroutine", _coroutine, failed("coroutine|await"))
family.returns("a_future", lambda: asyncio.get_running_loop().create_future(), failed(""))
family.returns("a_done_future", _done, failed("[Ff]uture|await"))
family.returns("a_task", lambda: asyncio.ensure_future(_coroutine()), failed("[Tt]ask|await"))

# Anything else is a value that nobody asked for.
family.returns("true", lambda: True, HANDLED)
family.returns("false", lambda: False, HANDLED)
family.returns("an_array", _Array, HANDLED)
family.returns("something_unspeakable", _Unspeakable, HANDLED)
family.returns("something_without_a_class", _Classless, HANDLED, failed(""))
family.returns("a_liar", _Liar, HANDLED, failed(""), rejected(""))
family.returns("a_class", lambda: int, HANDLED)
family.returns("the_class_object", lambda: object, HANDLED)
family.returns("base_exception", lambda: BaseException, failed("BaseException"))
family.returns("not_implemented", lambda: NotImplemented, HANDLED)
family.returns("a_generator", _generator, HANDLED, failed("generator"))
family.returns("an_asynchronous_generator", _asynchronously, HANDLED, failed("generator"))
family.returns("an_outcome_of_ours", lambda: Dead("crashed", "a lie"), HANDLED, failed("Dead"))
family.returns("the_class_of_an_outcome", lambda: Done, HANDLED, failed("Done"))
family.returns("ten_million_bytes", lambda: b"x" * 10_000_000, HANDLED)
