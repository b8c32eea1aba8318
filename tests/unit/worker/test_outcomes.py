"""Facts about what a handler may ask for, and about what becomes of whatever it does."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import Reject, Retry, Throttled
from worker.outcomes import Busy, Cause, Dead, Done, Later, Outcome, Released, outcome_of


def outcome(result: object, cause: Cause = Cause.NOBODY) -> Outcome:
    return outcome_of(result, cause, 1.0)


def test_a_retry_names_seconds_or_a_timedelta() -> None:
    assert Retry(after=2).after == 2
    assert Retry(after=timedelta(minutes=1)).after == 60
    assert Retry().after is None
    assert str(Retry()) == "the handler asked for a retry"


@pytest.mark.parametrize(
    "after", [-1, math.nan, math.inf, 1e300, "5", True, timedelta(days=366), 10**400]
)
def test_a_retry_that_is_no_delay_is_refused(after: Any) -> None:
    with pytest.raises(ValueError, match="expected 0 to 31536000 seconds"):
        Retry(after=after)


def test_a_reject_says_why() -> None:
    assert Reject("no such order").why == "no such order"
    assert outcome(Reject("no such order")) == Dead("rejected", "no such order", attempted=True)


@pytest.mark.parametrize(
    ("why", "error"), [(404, "404"), (KeyError("id"), "'id'"), (None, "None"), (b"x", "b'x'")]
)
def test_a_reject_may_say_why_by_any_object(why: object, error: str) -> None:
    assert outcome(Reject(why)) == Dead("rejected", error, attempted=True)


@pytest.mark.parametrize("decision", [Retry, Reject])
def test_a_class_that_is_returned_means_its_instance(decision: Any) -> None:
    assert outcome(decision) == outcome(decision())


class Panic(BaseException):
    """As an extension written in Rust raises it."""


class Mute(Exception):
    def __str__(self) -> str:
        raise Panic

    __repr__ = __str__


class Surrogate(Exception):
    def __str__(self) -> str:
        return "half \ud83d"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        Panic("panicked"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopAsyncIteration(),
        asyncio.CancelledError(),
        TimeoutError(),
        RecursionError(),
        MemoryError(),
        Mute(),
        Surrogate(),
        BaseExceptionGroup("two", [Panic(), ValueError()]),
    ],
)
@pytest.mark.parametrize("returned", [True, False])
def test_an_exception_is_a_failed_attempt_raised_or_returned(
    error: BaseException,
    returned: bool,  # noqa: FBT001
) -> None:
    del returned  # the function can't even tell
    found = outcome(error)
    assert isinstance(found, Later)
    assert found.failed
    assert found.error.startswith(type(error).__name__)


def test_an_exception_class_that_is_returned_is_a_failed_attempt() -> None:
    assert outcome(ValueError) == Later("the handler returned the class ValueError", failed=True)


async def test_what_nobody_awaits_is_a_failed_attempt() -> None:
    async def forgotten() -> None: ...

    coroutine = forgotten()
    future: Awaitable[None] = asyncio.get_running_loop().create_future()
    for awaitable in (coroutine, future):
        found = outcome(awaitable)
        assert isinstance(found, Later)
        assert "is an `await` missing?" in found.error
    coroutine.close()


@pytest.mark.parametrize(
    ("value", "kind"), [(0, "int"), ("", "str"), (False, "bool"), ({}, "dict")]
)
def test_any_other_value_is_handled_and_told_of(value: object, kind: str) -> None:
    assert outcome(None) == Done()
    assert outcome(value) == Done(returned=kind)


def test_a_cancellation_counts_unless_the_worker_asked_for_it() -> None:
    cancelled = asyncio.CancelledError()
    assert outcome(cancelled, Cause.WORKER) == Released()
    assert outcome(ValueError("put in order badly"), Cause.WORKER) == Released()
    late = Later("the handler took longer than 1 s", failed=True)
    assert outcome(cancelled, Cause.LIMIT) == outcome(TimeoutError(), Cause.LIMIT) == late
    assert outcome(cancelled) == Later("CancelledError: ", failed=True)


def test_a_decision_stands_though_the_handler_was_cancelled() -> None:
    for cause in Cause:
        assert outcome(Reject("no"), cause) == Dead("rejected", "no", attempted=True)
        assert outcome(None, cause) == Done()


def test_a_group_of_decisions_is_one() -> None:
    retries = ExceptionGroup("g", [Retry(after=5), ExceptionGroup("h", [Retry(after=9)])])
    found = outcome(retries)
    assert isinstance(found, Later)
    assert (found.after, found.failed) == (9, False)
    assert outcome(ExceptionGroup("g", [Retry(), Reject("no")])) == outcome(Reject("no"))
    mixed = outcome(ExceptionGroup("g", [Retry(), ValueError()]))
    assert isinstance(mixed, Later)
    assert mixed.failed


class Hostile:
    """Whatever is asked of it, it raises."""

    def __getattribute__(self, name: str) -> Never:
        raise Panic(name)


class HostileRetry(Retry):
    """Its attribute is what no author means."""

    def __init__(self, after: Any) -> None:
        super().__init__()
        self.after = after


class HostileReject(Reject):
    @property
    def why(self) -> Never:
        raise Panic

    @why.setter
    def why(self, _: object) -> None: ...


def grouped(inner: list[BaseException]) -> BaseException:
    return BaseExceptionGroup("group", inner)


errors: st.SearchStrategy[BaseException] = st.one_of(
    st.sampled_from([Panic, ValueError, SystemExit, asyncio.CancelledError, Mute, OSError]).map(
        lambda kind: kind()
    ),
    st.builds(ValueError, st.text(st.characters(codec=None))),
    st.builds(HostileRetry, st.floats() | st.integers() | st.text() | st.binary() | st.none()),
    st.builds(HostileReject),
    st.builds(Reject, st.integers() | st.binary() | st.builds(Hostile)),
)
anything = st.one_of(
    st.none(),
    st.integers(),
    st.text(),
    st.builds(Hostile),
    st.just(Hostile),
    errors,
    st.recursive(errors, lambda inner: st.lists(inner, min_size=1).map(grouped), max_leaves=5),
)


@given(anything, st.sampled_from(Cause))
def test_whatever_a_handler_leaves_there_is_an_outcome_that_can_be_stored(
    result: object, cause: Cause
) -> None:
    found = outcome(result, cause)
    match found:
        case Later(error=error, after=after):
            assert len(error) <= 6100
            assert after is None or 0 <= after <= 31_536_000
        case Dead(error=error):
            assert type(error) is str
        case _:
            assert isinstance(found, Done | Released)


def test_the_text_of_an_error_is_bounded() -> None:
    say: Callable[[str], Outcome] = lambda text: outcome(ValueError(text))  # noqa: E731
    found = say("x" * 10_000_000)
    assert isinstance(found, Later)
    assert len(found.error) == 6000  # of which a third is kept, once secrets are masked


def test_whose_system_is_busy_says_for_how_long() -> None:
    assert outcome(Throttled(30, "429")) == Busy("429", 30.0)
    assert outcome(Throttled(timedelta(minutes=2))) == Busy("the handler asked for a wait", 120.0)
    assert outcome(Throttled(0)) == Busy("the handler asked for a wait", 1.0)
    assert outcome(Throttled(timedelta(days=1))) == Busy("the handler asked for a wait", 3600.0)
    group = ExceptionGroup("both", [Throttled(5), Retry(after=60), Throttled(10)])
    assert outcome(group) == Busy("the handler asked for a wait", 10.0)
    assert isinstance(outcome(ExceptionGroup("both", [Throttled(5), Reject()])), Dead)
    assert isinstance(outcome(ExceptionGroup("both", [Throttled(5), OSError()])), Later)
    assert outcome(Throttled(5), Cause.WORKER) == Busy("the handler asked for a wait", 5.0)
    with pytest.raises(ValueError, match=r"^Throttled\(after=…\): expected 0 to 31536000 seconds"):
        Throttled(-1)


@pytest.mark.parametrize(
    ("said", "after"),
    [
        ({"Retry-After": "120"}, 120),
        ({"retry-after": " 7 "}, 7),
        ({"RETRY-AFTER": "0"}, 0),
        ({"Retry-After": "9" * 400}, 365 * 86_400),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0),
        ({"Retry-After": "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"}, 30),
        ({"Retry-After": f"Fri, 31 Dec 1999 23:59:59 +{'9' * 20}"}, 30),
        ({}, 30),
        *(
            ({"Retry-After": text}, 30)
            for text in ("", "soon", "-5", "1.5", "१२", "\udcff", "1, 2")
        ),
    ],
)
def test_an_answer_says_when_to_come_again(said: dict[str, str], after: float) -> None:
    assert Throttled.from_response(said).after == after


def test_a_moment_is_as_far_off_as_it_is() -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    throttled = Throttled.from_response({"Retry-After": moment}, why="429")
    assert throttled.after == pytest.approx(600, abs=5)
    assert throttled.why == "429"
    assert Throttled.from_response({}, otherwise=timedelta(minutes=1)).after == 60
