"""Facts about what handlers share for as long as their worker runs."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TypeVar

import pytest

from shared.errors import HandlerError, SettingsError
from tests.integration.workplace import Lines
from worker import Event, Handlers, Organization, Settings
from worker.lifespans import Lifespan, Lifespans, is_unreachable
from worker.registry import gathered


class Pool:
    """What is shared."""


class Special(Pool):
    """One of them."""


async def pool(settings: Settings) -> AsyncIterator[Pool]:
    yield Pool()


async def special(settings: Settings) -> AsyncIterator[Special]:
    yield Special()


async def takes_pool(event: Event[Any], organization: Organization, pool: Pool) -> None: ...
async def takes_text(event: Event[Any], organization: Organization, text: str) -> None: ...
async def takes_some(
    event: Event[Any], organization: Organization, some: str | Pool | None
) -> None: ...
async def takes_any(event: Event[Any], organization: Organization, any_) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
async def takes_none(event: Event[Any], organization: Organization) -> None: ...
async def has_default(event: Event[Any], organization: Organization, times: int = 2) -> None: ...


def begun(*functions: Any, log: Any = None, **settings: str) -> Lifespans:
    found: list[Lifespan] = []
    for each in functions:
        handlers = Handlers[Any]()
        handlers.lifespan(each)
        found += handlers.lifespans()
    return Lifespans(found, Settings(settings), log or Lines().log)


# Who takes what


@pytest.mark.parametrize("first", ["lifespan", "handler"])
def test_what_a_handler_takes_is_held_against_what_its_lifespan_gives(first: str) -> None:
    handlers = Handlers[Any]()
    steps: list[Callable[[], object]] = [
        lambda: handlers.lifespan(pool),
        lambda: handlers.on("order.updated")(takes_text),
    ]
    if first == "handler":
        steps.reverse()
    steps[0]()
    with pytest.raises(HandlerError, match=r"takes_text: .* \(Pool\), got str"):
        steps[1]()


@pytest.mark.parametrize("handler", [takes_pool, takes_some, takes_any])
def test_a_handler_may_take_what_fits(handler: Any) -> None:
    handlers = Handlers[Any]()
    handlers.lifespan(special)
    handlers.on("order.*")(handler)
    found = handlers.find("order.updated", "org_a")
    assert found is not None
    assert found.lifespan is handlers.own_lifespan is not None


async def either(settings: Settings) -> AsyncIterator[Special | str]:
    yield ""


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        (Special | str, True),
        (str | Pool, True),
        (Special | str | int, True),
        (object, True),
        (TypeVar("Given"), True),
        (Pool, False),
        (Special | int, False),
    ],
)
def test_each_that_may_be_given_has_to_fit(asked: Any, fits: bool) -> None:  # noqa: FBT001
    assert Lifespan.of(either).fits(asked) == fits


@pytest.mark.parametrize("handler", [takes_none, has_default])
def test_a_handler_of_two_arguments_takes_nothing(handler: Any) -> None:
    handlers = Handlers[Any]()
    handlers.lifespan(pool)
    handlers.on("order.*")(handler)
    assert [each.lender for each in handlers] == [None]


def test_a_handler_that_takes_what_nobody_gives_is_told_of() -> None:
    handlers = Handlers[Any]()
    handlers.on("order.*")(takes_pool)
    (problem,) = handlers.without_resources()
    assert "takes_pool: expected a lifespan" in str(problem)


def not_async(_settings: Settings) -> Any:
    yield Pool()


async def not_a_generator(_settings: Settings) -> Pool:
    return Pool()


async def without_settings() -> AsyncIterator[Pool]:
    yield Pool()


async def unknown_name(settings: Settings) -> "AsyncIterator[Nowhere]":  # type: ignore[name-defined]  # noqa: F821
    yield Pool()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (not_async, "not_async: expected an async generator .*, got a generator function without"),
        (not_a_generator, "not_a_generator: .*, got an async function without a yield"),
        (without_settings, r"without_settings: expected the parameters \(settings\)"),
        (unknown_name, "unknown_name: its annotation names an unknown type"),
        (Pool, "Pool: expected an async generator function .*, got type"),
        (partial(pool), "expected an async generator function .*, got partial"),
    ],
)
def test_what_is_no_lifespan_is_refused(function: Any, message: str) -> None:
    with pytest.raises(HandlerError, match=message):
        Handlers[Any]().lifespan(function)


def test_a_registry_has_one_lifespan() -> None:
    handlers = Handlers[Any]()
    handlers.lifespan(pool)
    with pytest.raises(
        HandlerError, match=r"special: expected one lifespan a registry, got .*pool"
    ):
        handlers.lifespan(special)


# Registries in registries


def test_an_included_handler_is_given_what_its_own_registry_gives() -> None:
    inner, outer = Handlers[Any](), Handlers[Any]()
    inner.lifespan(special)
    inner.on("order.*")(takes_pool)
    outer.lifespan(pool)
    outer.include(inner)
    found = outer.find("order.updated", "org_a")
    assert found is not None
    assert found.lifespan is inner.own_lifespan
    assert [each.name.rsplit(".", 1)[1] for each in outer.lifespans()] == ["pool", "special"]


def test_or_what_the_one_gives_that_includes_it() -> None:
    inner, outer = Handlers[Any](), Handlers[Any]()
    inner.on("order.*", key="order_id")(takes_pool)
    outer.include(inner)
    assert outer.has_turns
    outer.lifespan(pool)
    found = outer.find("order.updated", "org_a")
    assert found is not None
    assert found.lifespan is outer.own_lifespan


def test_or_is_refused_where_it_takes_something_else() -> None:
    inner, outer = Handlers[Any](), Handlers[Any]()
    inner.on("order.*")(takes_text)
    outer.lifespan(pool)
    with pytest.raises(HandlerError, match="takes_text: expected to take what"):
        outer.include(inner)


def test_what_would_be_lost_or_doubled_by_including_is_refused() -> None:
    inner, outer = Handlers[Any](), Handlers[Any]()
    outer.include(inner)
    with pytest.raises(HandlerError, match="takes_none: expected to be registered before"):
        inner.on("order.*")(takes_none)
    with pytest.raises(HandlerError, match=r"'ticket\.\*': expected to be registered before"):
        inner.ignore("ticket.*")
    with pytest.raises(HandlerError, match="pool: expected to be registered before"):
        inner.lifespan(pool)
    for again in (inner, outer):
        with pytest.raises(HandlerError, match="not included yet"):
            outer.include(again)
    other = Handlers[Any]()
    for each in (outer, other):
        each.on("order.*")(takes_none)
    with pytest.raises(HandlerError, match="registered already"):
        outer.include(other)


def test_nor_is_what_has_no_handler_lost() -> None:
    """Hooks and lifespans would be: whoever has included the one never sees the other's."""
    inner, outer, late = Handlers[Any](), Handlers[Any](), Handlers[Any]()
    outer.include(inner)
    with pytest.raises(HandlerError, match="include: expected to be registered before"):
        inner.include(late)
    with pytest.raises(HandlerError, match="include: expected to be registered before"):
        inner.include(outer)


def test_all_that_is_wrong_is_gathered() -> None:
    handlers = Handlers[Any]()
    problems: list[HandlerError] = []
    with gathered(problems):
        handlers.lifespan(not_async)
        handlers.on("order.")(takes_none)
        handlers.on("order.**")(takes_none)
        handlers.include(handlers)
    assert len(problems) == 3  # "order." is a type that nobody sends, which `check` tells
    with pytest.raises(HandlerError):
        handlers.include(handlers)


# Beginning and ending


async def test_they_begin_in_order_and_end_in_the_opposite_one() -> None:
    steps: list[str] = []

    def named(name: str) -> Callable[[Settings], AsyncIterator[str]]:
        async def lifespan(settings: Settings) -> AsyncIterator[str]:
            steps.append(f"{name} begins")
            yield name + settings["SUFFIX"]
            steps.append(f"{name} ends")

        return lifespan

    lifespans = begun(named("one"), named("two"), SUFFIX="!")
    assert await lifespans.begin(asyncio.Event())
    assert [lifespans.resources(each) for each in lifespans.lifespans] == ["one!", "two!"]
    assert lifespans.problems == []
    await lifespans.end(1)
    assert steps == ["one begins", "two begins", "two ends", "one ends"]


async def test_what_can_not_be_reached_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.lifespans.FIRST_PAUSE", 0.01)
    times, lines = 0, Lines()

    async def reaches(settings: Settings) -> AsyncIterator[str]:
        nonlocal times
        times += 1
        seen.append(list(lifespans.problems))
        if times < 3:
            raise ConnectionRefusedError("database: refused")
        yield "reached"

    seen: list[Any] = []
    lifespans = begun(reaches, log=lines.log)
    assert await lifespans.begin(asyncio.Event())
    assert lifespans.resources(lifespans.lifespans[0]) == "reached"
    assert lines.events() == ["resources_awaited", "resources_found"]
    assert "database: refused" in seen[1][0].message
    await lifespans.end(1)


async def test_a_stop_ends_the_waiting_and_what_has_begun() -> None:
    ended, stop = [], asyncio.Event()

    async def first(settings: Settings) -> AsyncIterator[int]:
        yield 1
        ended.append("first")

    async def hangs(settings: Settings) -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
            yield 2
        finally:
            ended.append("hangs")

    async def away(settings: Settings) -> AsyncIterator[int]:
        if not settings.get("NEVER"):
            raise ConnectionError("away")
        yield 3

    for second in (hangs, away):
        ended.clear()
        stop.clear()
        lifespans = begun(first, second)
        asyncio.get_running_loop().call_later(0.02, stop.set)
        assert not await lifespans.begin(stop)
        await lifespans.end(1)
        assert ended[-1] == "first"


async def test_one_that_begins_in_spite_of_a_stop_begins_no_work() -> None:
    stop, is_waiting, has_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stubborn(settings: Settings) -> AsyncIterator[int]:
        with contextlib.suppress(asyncio.CancelledError):
            is_waiting.set()
            await asyncio.Event().wait()
        yield 1
        has_ended.set()

    lifespans = begun(stubborn)
    beginning = asyncio.create_task(lifespans.begin(stop))
    await is_waiting.wait()
    stop.set()
    assert not await beginning
    await lifespans.end(1)
    assert has_ended.is_set()


async def fails(settings: Settings) -> AsyncIterator[int]:
    if not settings.get("NEVER"):
        raise RuntimeError("no such thing")
    yield 1


async def leaves(settings: Settings) -> AsyncIterator[int]:
    if not settings.get("NEVER"):
        raise SystemExit(3)
    yield 1


async def lacks(settings: Settings) -> AsyncIterator[str]:
    yield settings["DATABASE_URL"]


async def yields_nothing(settings: Settings) -> AsyncIterator[int]:
    if settings.get("NEVER"):
        yield 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (fails, "WORKER_HANDLERS: .*fails, got RuntimeError: no such thing"),
        (leaves, "WORKER_HANDLERS: .*leaves, got SystemExit: 3"),
        (lacks, "^DATABASE_URL: expected a value, which the handlers' lifespan asks for, got noth"),
        (yields_nothing, "yields_nothing, got RuntimeError: generator didn't yield"),
    ],
)
async def test_any_other_failure_ends_the_start(function: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as raised:
        await begun(function, DATABASE_URL="").begin(asyncio.Event())
    detail = raised.value.detail
    assert (detail == "") if function is lacks else ("Error" in detail or "Exit" in detail)


async def test_what_fails_or_hangs_at_its_end_keeps_no_other_from_ending() -> None:
    ended, lines = [], Lines()

    async def good(settings: Settings) -> AsyncIterator[int]:
        yield 1
        ended.append("good")

    async def bad(settings: Settings) -> AsyncIterator[int]:
        yield 2
        raise RuntimeError("at the end")

    async def hanging(settings: Settings) -> AsyncIterator[int]:
        yield 3
        await asyncio.Event().wait()

    lifespans = begun(good, bad, hanging, log=lines.log)
    assert await lifespans.begin(asyncio.Event())
    began = asyncio.get_running_loop().time()
    await lifespans.end(0.05)
    assert asyncio.get_running_loop().time() - began < 1
    assert ended == ["good"]
    assert lines.events() == ["lifespan_cut_short", "lifespan_failed"]


def raised(error: BaseException, *, by: BaseException | None = None) -> BaseException:
    with contextlib.suppress(type(error)):
        raise error from by
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (socket.gaierror(-2, "Name or service not known"), True),
        (OSError(113, "No route to host"), True),
        (FileNotFoundError(2, "No such file or directory"), True),  # of a socket
        (FileNotFoundError(2, "No such file or directory", "ca.pem"), False),
        (PermissionError(13, "Permission denied", "ca.pem"), False),
        (raised(RuntimeError("client"), by=ConnectionRefusedError()), True),
        (RuntimeError("client"), False),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), False),
        (raised(OSError("client"), by=ssl.SSLCertVerificationError(1, "no")), False),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), True),
        (ExceptionGroup("both", [ConnectionError(), TimeoutError()]), True),
        (ExceptionGroup("both", [ConnectionError(), ValueError()]), False),
        (asyncio.CancelledError(), False),
    ],
)
def test_what_counts_as_unreachable(error: BaseException, expected: bool) -> None:  # noqa: FBT001
    assert is_unreachable(error) is expected


def test_settings_are_a_mapping_of_what_is_set() -> None:
    settings = Settings({"A": "1", "EMPTY": ""})
    assert dict(settings) == {"A": "1"}
    assert len(settings) == 1
    assert (settings.get("B"), settings.get("EMPTY", "x"), "EMPTY" in settings) == (
        None,
        "x",
        False,
    )
    with pytest.raises(KeyError):
        settings["B"]
