"""Handlers that raise what nobody expects: each is a failed attempt like any other."""

import asyncio
import sys
from typing import Any, NoReturn

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.acceptance.hostile.row import Family, Order, failed
from worker import Event, Organization

family = Family("raising")

_LONG = "x" * 10_000_000


class Panic(BaseException):
    """What a Rust extension raises when it panics is such a one."""


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text for you")

    __repr__ = __str__


class _ExitsWhenSaid(Exception):
    def __str__(self) -> str:
        sys.exit(4)


class _InterruptsWhenSaid(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class _SaysNoText(Exception):
    def __str__(self) -> Any:
        return 404


class _SaysItself(Exception):
    def __str__(self) -> str:
        return str(self)


class _SaysTrickyText(Exception):
    def __str__(self) -> str:
        class Text(str):
            __slots__ = ()

            def __getitem__(self, _key: object) -> NoReturn:
                raise ValueError("not a part of me")

            __len__ = __format__ = encode = __add__ = __getitem__  # type: ignore[assignment]

        return Text("tricky")


class _NamelessType(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ValueError("no name for you")


class _Nameless(Exception, metaclass=_NamelessType):
    pass


class _Classless(Exception):
    @property
    def __class__(self) -> type:
        raise ValueError("no class for you")


class _Uncomparable(Exception):
    def __eq__(self, other: object) -> bool:
        raise ValueError("compared")

    def __bool__(self) -> bool:
        raise ValueError("weighed")

    __hash__ = None  # type: ignore[assignment]


def _nested(depth: int) -> ExceptionGroup[Exception]:
    group: ExceptionGroup[Exception] = ExceptionGroup("deep", [ValueError("bottom")])
    for _ in range(depth):
        group = ExceptionGroup("deep", [group])
    return group


def _circle() -> ValueError:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def _caused(times: int) -> ValueError:
    error = ValueError("0")
    for n in range(1, times):
        following = ValueError(str(n))
        following.__cause__ = error
        error = following
    return error


class _HidesItsPlace(Exception):
    @property
    def __traceback__(self) -> NoReturn:  # type: ignore[override]
        raise KeyboardInterrupt

    __cause__ = __context__ = __notes__ = __traceback__


for _name, _make, _error in (
    ("an_exception", lambda: ValueError("as told"), "ValueError: as told"),
    ("a_panic", lambda: Panic("as told"), "Panic: as told"),
    ("base_exception_itself", lambda: BaseException("as told"), "BaseException: as told"),
    ("a_keyboard_interrupt", KeyboardInterrupt, "KeyboardInterrupt"),
    ("system_exit_with_a_code", lambda: SystemExit(3), "SystemExit: 3"),
    ("system_exit_with_a_text", lambda: SystemExit("bye"), "SystemExit: bye"),
    ("generator_exit", GeneratorExit, "GeneratorExit"),
    ("stop_iteration", StopIteration, "StopIteration"),
    ("stop_async_iteration", StopAsyncIteration, "StopAsyncIteration"),
    ("a_cancelled_error_by_hand", asyncio.CancelledError, "CancelledError"),
    ("a_cancelled_error_with_a_text", lambda: asyncio.CancelledError("why"), "CancelledError"),
    ("a_timeout_error", lambda: TimeoutError("as told"), "TimeoutError: as told"),
    ("a_memory_error", MemoryError, "MemoryError"),
    ("an_error_of_a_redis_of_its_own", lambda: RedisConnectionError("as told"), "as told"),
    ("a_validation_error", lambda: msgspec.ValidationError("as told"), "ValidationError"),
    ("a_lone_surrogate_in_an_error", lambda: ValueError("a\udcffb"), "ValueError: a.*b"),
    ("control_characters", lambda: ValueError("a\x00\x1b[31m\nb"), "ValueError: a.*b"),
    ("ten_megabytes", lambda: ValueError(_LONG), "ValueError: x+"),
    ("something_whose_text_raises", _Unspeakable, "_Unspeakable"),
    ("something_whose_text_exits", _ExitsWhenSaid, "_ExitsWhenSaid"),
    ("something_whose_text_interrupts", _InterruptsWhenSaid, "_InterruptsWhenSaid"),
    ("something_whose_text_is_none", _SaysNoText, "_SaysNoText"),
    ("something_whose_text_never_ends", _SaysItself, "_SaysItself"),
    ("something_whose_text_is_tricky", _SaysTrickyText, "_SaysTrickyText"),
    ("a_class_with_a_line_break_in_its_name", lambda: type("A\nB", (Exception,), {})(), "A.*B"),
    ("a_class_with_a_name_of_a_megabyte", lambda: type(_LONG[:1_000_000], (Exception,), {}), "x+"),
    ("a_class_without_a_name", _Nameless, ""),
    ("something_without_a_class", _Classless, ""),
    ("something_uncomparable", _Uncomparable, "_Uncomparable"),
    ("a_group", lambda: ExceptionGroup("many", [ValueError("one")]), "ExceptionGroup: many"),
    ("a_group_of_ten_thousand", lambda: ExceptionGroup("many", [ValueError("")] * 10_000), "many"),
    ("causes_in_a_circle", _circle, "ValueError: one"),
    ("a_hundred_thousand_causes", lambda: _caused(100_000), "ValueError: 99999"),
    ("something_that_hides_its_place", _HidesItsPlace, "_HidesItsPlace"),
    ("a_group_500_deep", lambda: _nested(500), "ExceptionGroup: deep"),
    (
        "a_group_with_an_interrupt",
        lambda: BaseExceptionGroup("many", [KeyboardInterrupt()]),
        "BaseExceptionGroup: many",
    ),
    ("no_exception_at_all", lambda: int, "TypeError"),
):
    family.raises(_name, _make, failed(_error))


@family.row(failed("RecursionError"))
async def recurses_for_ever(event: Event[Order], organization: Organization) -> None:
    await recurses_for_ever(event, organization)


@family.row(failed("MemoryError|OverflowError"))
async def wants_more_memory_than_there_is(event: Event[Order], organization: Organization) -> None:
    bytearray(1 << 62)


@family.row(failed("SystemExit: 3"))
async def exits(event: Event[Order], organization: Organization) -> None:
    sys.exit(3)


@family.row(failed("ValueError: the second"))
async def raises_while_it_handles_another(event: Event[Order], organization: Organization) -> None:
    try:
        raise Panic("the first")
    finally:
        raise ValueError("the second")


@family.row(failed("ValueError: as told"))
async def raises_what_is_its_own_cause(event: Event[Order], organization: Organization) -> None:
    error = ValueError("as told")
    error.__cause__ = error
    error.add_note("a\udcff" * 1000)
    raise error


@family.row(failed("ZeroDivisionError"))
async def raises_in_code_whose_source_never_ends(
    event: Event[Order], organization: Organization
) -> None:
    exec(compile("1 / 0", "/dev/zero", "exec"))  # noqa: S102


@family.row(failed("ValueError: bottom"))
async def raises_a_thousand_calls_deep(event: Event[Order], organization: Organization) -> None:
    def down(left: int) -> None:
        if not left:
            raise ValueError("bottom")
        down(left - 1)

    down(900)
