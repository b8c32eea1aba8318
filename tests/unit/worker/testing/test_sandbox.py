"""Facts about what a test of a handler is told."""

import asyncio
import logging
import os
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

import msgspec
import pydantic
import pytest

import worker
from tests.measuring import unmeasured
from worker import (
    Event,
    Failure,
    Handlers,
    Id,
    Organization,
    Reject,
    Retry,
    Secret,
    Settings,
    StateError,
)
from worker.testing import (
    Dead,
    DeliveryError,
    Duplicate,
    Failed,
    Handled,
    Held,
    Ignored,
    NoHandler,
    Rejected,
    Released,
    Result,
    Retried,
    Sandbox,
    Throttled,
    deliver,
)

UPDATED: Final = "order.updated"
DAY: Final = timedelta(days=1)


class Order(msgspec.Struct):
    order_id: Id
    status: str = "new"


def handlers_of(function: Any) -> Handlers:
    """A registry that has it for everything but what is ignored."""
    handlers = Handlers()
    handlers.on("*")(function)
    handlers.ignore("order.created")
    return handlers


async def keep(event: Event[Order], organization: Organization) -> None:
    await organization.state.put_if_newer(
        f"orders/{event.data.order_id}", event.data.status, version=event.created_at
    )
    await organization.state.increment("seen")


KEEPING: Final = handlers_of(keep)


def raising(error: BaseException) -> Handlers:
    """Handlers that write something, and raise that."""

    async def fails(_event: Event[Any], organization: Organization) -> None:
        await organization.state.put("half", 1)
        raise error

    return handlers_of(fails)


# What it leaves


async def test_what_was_handled_is_committed() -> None:
    result = await deliver(KEEPING, UPDATED, {"order_id": 7}, state={"seen": 2, "other": [1]})
    assert result.outcome == Handled()
    assert result.state == {"seen": 3, "other": [1], "orders/7": "new"}
    assert result.exception is None
    assert result.raise_for_failure() is result


async def test_what_failed_leaves_the_state_as_it_was() -> None:
    result = await deliver(raising(KeyError("sku")), UPDATED, {"order_id": 7}, state={"seen": 2})
    assert isinstance(result.outcome, Failed)
    assert result.state == {"seen": 2}


async def test_the_handler_sees_what_the_test_says() -> None:
    seen = list[tuple[Event[Any], Organization]]()
    at = datetime(2026, 3, 1, 12, tzinfo=timezone(DAY / 24))

    async def see(event: Event[Any], organization: Organization) -> None:
        seen.append((event, organization))

    await deliver(
        handlers_of(see),
        UPDATED,
        Order("7"),
        organization=5,
        attempt=3,
        settings={"token": Secret("x")},
        event_id="evt_9",
        created_at=at,
        received_at=at + DAY,
    )
    ((event, organization),) = seen
    assert (event.id, event.type, event.attempt, event.organization_id) == (
        "evt_9",
        UPDATED,
        3,
        "5",
    )
    assert (event.created_at, event.received_at) == (at, at + DAY)
    assert event.data == {"order_id": "7", "status": "new"}
    assert msgspec.json.decode(event.raw)["id"] == "evt_9"
    assert (organization.id, organization.settings) == ("5", {"token": Secret("x")})


async def test_lines_are_kept_and_go_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    missing = list[KeyError]()

    async def says(event: Event[Any], organization: Organization) -> Any:
        organization.log.info("order_booked", order=event.data["order_id"])
        try:
            event.data["sku"]
        except KeyError as exc:
            missing.append(exc)
            organization.log.exception("order_odd")
        return "a value that nobody reads"

    result = await deliver(handlers_of(says), UPDATED, {"order_id": "7"}, event_id="evt_9")
    bound = {"organization": "org_123", "event_id": "evt_9"}
    assert result.log == [
        {"event": "order_booked", "level": "info", **bound, "order": "7"},
        {"event": "order_odd", "level": "error", **bound, "exc_info": missing[0]},
        {"event": "handler_returned_value", "level": "warning", "value": "str"},
    ]
    assert capfd.readouterr() == ("", "")


async def test_a_handler_starts_in_the_context_of_its_test() -> None:
    said: ContextVar[str] = ContextVar("said")
    found = list[str]()

    async def look(_event: Event[Any], _organization: Organization) -> None:
        found.append(said.get())
        said.set("by the handler")

    said.set("by the test")
    await deliver(handlers_of(look), UPDATED, {})
    assert (found, said.get()) == (["by the test"], "by the test")


async def test_data_may_be_an_object_of_the_handlers_own_type() -> None:
    class Model(pydantic.BaseModel):
        order_id: int

    seen = list[object]()

    async def see(event: Event[Model], _organization: Organization) -> None:
        seen.append(event.data)

    handlers = Handlers()
    handlers.on("*")(see)
    assert (await deliver(handlers, UPDATED, Model(order_id=7))).outcome == Handled()
    assert seen == [Model(order_id=7)]
    assert (await deliver(handlers, UPDATED, {"order_id": "x"})).outcome == Dead("malformed")


async def test_a_handler_takes_resources_of_the_test() -> None:
    """No lifespan begins: what it would open is what a test puts in its place."""
    handlers, begun, taken = Handlers[list[str]](), list[str](), list[list[str]]()

    @handlers.lifespan
    async def opened(_settings: Settings) -> AsyncIterator[list[str]]:
        begun.append("the lifespan")
        yield begun

    @handlers.on("order.*")
    async def handle(_event: Event[Any], _scope: Organization, resources: list[str]) -> None:
        taken.append(resources)

    whole = Handlers()
    whole.include(handlers)
    for each in (handlers, whole):
        result = await deliver(each, UPDATED, {}, resources=["of the test"])
        assert result.outcome == Handled()
        with pytest.raises(
            TypeError, match=r"resources: expected what .*handle takes, got nothing"
        ):
            await deliver(each, UPDATED, {})
    assert taken == [["of the test"]] * 2
    assert begun == []


# How it ends


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Retry(), Retried()),
        (Retry(after=30), Retried(after=30.0)),
        (Retry(timedelta(minutes=1), "the ERP is busy"), Retried(60.0, "the ERP is busy")),
        (Reject("no such sku"), Rejected("no such sku")),
        (Reject(), Rejected()),
        (worker.Throttled(5), Throttled(5.0)),
        (worker.Throttled(0.1, "429"), Throttled(1.0, "429")),
        (ExceptionGroup("", [Retry(1), Retry(2)]), Retried(2.0)),
    ],
)
async def test_what_a_handler_decides(error: Exception, outcome: object) -> None:
    async def returns(_event: Event[Any], _organization: Organization) -> Any:
        return error

    for handlers in (raising(error), handlers_of(returns)):
        result = await deliver(handlers, UPDATED, {})
        assert result.outcome == outcome
        assert result.raise_for_failure().exception is None


@pytest.mark.parametrize(
    ("event_type", "data", "outcome"),
    [
        (UPDATED, {"status": "paid"}, Dead("malformed")),
        (UPDATED, [1], Dead("malformed")),
        ("order.vanished", {"order_id": "1"}, Dead("unavailable_event")),
        ("order.created", "ignored, but not even an object", Dead("malformed")),
        ("order.created", {}, Ignored()),
    ],
)
async def test_what_never_reaches_a_handler(event_type: str, data: object, outcome: object) -> None:
    result = await deliver(KEEPING, event_type, data)
    assert result.outcome == outcome
    assert result.state == {}


async def test_an_event_that_your_sellfern_lists_reaches_its_handler() -> None:
    result = await deliver(KEEPING, "order.sent", {"order_id": 1}, available=["order.sent"])
    assert result.outcome == Handled()


async def test_an_event_without_a_handler_says_so() -> None:
    result = await deliver(Handlers(), UPDATED, {})
    assert result.outcome == NoHandler()
    with pytest.raises(DeliveryError, match=r"NoHandler\(\)"):
        result.raise_for_failure()


async def test_dead_tells_why_it_is_read_by_people() -> None:
    result = await deliver(KEEPING, UPDATED, {"order_id": 1.5})
    assert isinstance(result.outcome, Dead)
    assert "order_id" in result.outcome.why
    with pytest.raises(DeliveryError, match=r"malformed.*order_id"):
        result.raise_for_failure()


async def test_the_last_attempt_is_the_last() -> None:
    boom = KeyError("sku")
    result = await deliver(raising(boom), UPDATED, {}, attempt=12)
    assert result.outcome == Dead("exhausted")
    assert result.exception is boom
    assert (await deliver(raising(boom), UPDATED, {}, attempt=11)).outcome == Failed(boom)
    asked = await deliver(raising(Retry(3)), UPDATED, {}, attempt=2, max_attempts=2)
    assert asked.outcome == Dead("exhausted")
    assert asked.exception is None


async def test_an_old_event_is_stale_by_when_it_came() -> None:
    created = datetime(2020, 1, 1, tzinfo=UTC)
    fresh = await deliver(KEEPING, UPDATED, {"order_id": 1}, created_at=created)
    assert fresh.outcome == Handled()
    late = await deliver(
        KEEPING, UPDATED, {"order_id": 1}, created_at=created, received_at=created + 7 * DAY
    )
    assert late.outcome == Dead("stale")


# Exceptions


async def test_an_exception_has_its_own_traceback() -> None:
    result = await deliver(raising(KeyError("sku")), UPDATED, {})
    assert isinstance(result.outcome, Failed)
    assert result.outcome.why == "KeyError: 'sku'"
    with pytest.raises(KeyError, match="sku") as caught:
        result.raise_for_failure()
    assert caught.value is result.exception
    assert "raise error" in "".join(traceback.format_exception(caught.value))


async def test_a_test_that_fails_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    """By the standard library's log, which pytest shows where a test fails."""
    await deliver(raising(KeyError("sku")), UPDATED, {})
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("worker.testing.sandbox", logging.ERROR)
    assert "in fails" in caplog.text
    assert "KeyError: 'sku'" in caplog.text


async def test_a_time_limit_is_a_timeout_that_says_where_it_waited() -> None:
    async def hangs(_event: Event[Any], _organization: Organization) -> None:
        await asyncio.Event().wait()

    result = await deliver(handlers_of(hangs), UPDATED, {}, handler_timeout=0.02)
    with pytest.raises(TimeoutError, match=r"took longer than 0\.02 s") as caught:
        result.raise_for_failure()
    assert "in hangs" in "".join(traceback.format_exception(caught.value))


async def test_a_forgotten_await_is_a_failure() -> None:
    async def forgets(_event: Event[Any], organization: Organization) -> None:
        organization.state.put("k", 1)  # type: ignore[unused-coroutine]

    with pytest.warns(RuntimeWarning, match="never awaited"):
        result = await deliver(handlers_of(forgets), UPDATED, {})
    with pytest.raises(DeliveryError, match=r"put\('k'\) was not awaited"):
        result.raise_for_failure()


async def test_what_cannot_be_committed_is_a_failure() -> None:
    result = await deliver(KEEPING, UPDATED, {"order_id": 1}, state={"seen": "many"})
    with pytest.raises(Exception, match="expected a number, got str"):
        result.raise_for_failure()
    assert result.state == {"seen": "many"}
    last = await deliver(KEEPING, UPDATED, {"order_id": 1}, state={"seen": "many"}, attempt=12)
    assert last.outcome == Dead("exhausted")
    assert last.exception is not None


async def test_a_handler_that_cancels_itself_has_failed() -> None:
    result = await deliver(raising(asyncio.CancelledError()), UPDATED, {})
    assert isinstance(result.exception, asyncio.CancelledError)


async def test_what_a_test_says_wrongly_is_an_error_of_its_own() -> None:
    with pytest.raises(ValueError, match="created_at: expected an aware time"):
        await deliver(KEEPING, UPDATED, {}, created_at=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="attempt: expected 1 or more, got 0"):
        await deliver(KEEPING, UPDATED, {}, attempt=0)
    with pytest.raises(ValueError, match="organization: expected an id"):
        await deliver(KEEPING, UPDATED, {}, organization="org:1")
    with pytest.raises(TypeError, match="data: expected what JSON can say, got object"):
        await deliver(KEEPING, UPDATED, {"order": object()})
    with pytest.raises(StateError, match="expected JSON"):
        await deliver(KEEPING, UPDATED, {}, state={"k": object()})


# Several deliveries


async def test_a_second_delivery_of_an_event_is_a_duplicate() -> None:
    sandbox = Sandbox(KEEPING)
    for outcome in (Handled(), Duplicate(), Duplicate()):
        result = await sandbox.deliver(UPDATED, {"order_id": 1}, event_id="evt_1")
        assert result.outcome == outcome
    other = await sandbox.deliver(UPDATED, {"order_id": 2}, event_id="evt_1")
    assert other.outcome == Duplicate()
    assert [line["event"] for line in other.log] == ["event_conflicting"]
    assert sandbox.state() == {"seen": 1, "orders/1": "new"}


async def test_events_without_an_id_have_one_each_and_an_order() -> None:
    sandbox = Sandbox(KEEPING)
    for number in range(12):
        await sandbox.deliver(UPDATED, {"order_id": 1, "status": str(number)})
    assert sandbox.state() == {"seen": 12, "orders/1": "11"}


async def test_an_older_event_that_comes_late_changes_nothing() -> None:
    sandbox, at = Sandbox(KEEPING), datetime(2026, 1, 2, tzinfo=UTC)
    await sandbox.deliver(UPDATED, {"order_id": 1, "status": "paid"}, created_at=at)
    late = {"order_id": 1, "status": "open"}
    assert (await sandbox.deliver(UPDATED, late, created_at=at - DAY)).outcome == Handled()
    assert sandbox.state()["orders/1"] == "paid"


async def test_the_next_attempt_counts_on() -> None:
    attempts = list[int]()

    async def fails_twice(event: Event[Any], _organization: Organization) -> Retry | None:
        attempts.append(event.attempt)
        return Retry(1) if event.attempt < 3 else None

    sandbox = Sandbox(handlers_of(fails_twice))
    ends = [(await sandbox.deliver(UPDATED, {}, event_id="evt_1")).outcome for _ in range(4)]
    assert ends == [Retried(1.0), Retried(1.0), Handled(), Duplicate()]
    assert attempts == [1, 2, 3]


async def test_a_dead_event_lives_again_but_not_at_once_again() -> None:
    sandbox, at = Sandbox(raising(Reject("no"))), datetime(2026, 1, 2, tzinfo=UTC)
    for outcome in (Rejected("no"), Rejected("no"), Held()):
        again = await sandbox.deliver(UPDATED, {}, event_id="evt_1", created_at=at)
        assert again.outcome == outcome
    later = await sandbox.deliver(
        UPDATED, {}, event_id="evt_1", created_at=at, received_at=at + timedelta(minutes=1)
    )
    assert later.outcome == Rejected("no")


async def test_time_goes_by_with_the_events() -> None:
    async def put(event: Event[Any], organization: Organization) -> None:
        await organization.state.put(event.id, 1, expire=DAY)

    sandbox, at = Sandbox(handlers_of(put)), datetime(2026, 1, 2, tzinfo=UTC)
    await sandbox.deliver(UPDATED, {}, created_at=at)
    assert sandbox.state() == {"evt_1": 1}
    await sandbox.deliver(UPDATED, {}, created_at=at + 2 * DAY)
    assert sandbox.state() == {"evt_2": 1}


async def test_organizations_are_apart() -> None:
    sandbox = Sandbox(KEEPING)
    sandbox.put("org_1", {"seen": 5})
    for organization in ("org_1", "org_2"):
        result = await sandbox.deliver(
            UPDATED, {"order_id": 1}, organization=organization, event_id="evt_1"
        )
        assert result.outcome == Handled()
    assert (sandbox.state("org_1")["seen"], sandbox.state("org_2")["seen"]) == (6, 1)


async def test_what_was_read_and_has_changed_runs_the_handler_again() -> None:
    runs = list[int]()

    async def adds(event: Event[Any], organization: Organization) -> None:
        before = await organization.state.get("sum", 0)
        runs.append(before)
        await asyncio.sleep(0)
        await organization.state.put("sum", before + event.data["by"])

    sandbox = Sandbox(handlers_of(adds))
    results = await asyncio.gather(*(sandbox.deliver(UPDATED, {"by": by}) for by in (1, 10)))
    assert [each.outcome for each in results] == [Handled(), Handled()]
    assert sandbox.state() == {"sum": 11}
    assert len(runs) == 3


async def test_the_same_event_twice_at_once_is_handled_once() -> None:
    async def counts(_event: Event[Any], organization: Organization) -> None:
        await asyncio.sleep(0)
        await organization.state.increment("seen")

    sandbox = Sandbox(handlers_of(counts))
    twice = (sandbox.deliver(UPDATED, {}, event_id="evt_1") for _ in range(2))
    assert [each.outcome for each in await asyncio.gather(*twice)] == [Handled(), Duplicate()]
    assert sandbox.state() == {"seen": 1}


async def test_a_handler_that_never_gets_its_value_is_given_back() -> None:
    async def chases(_event: Event[Any], organization: Organization) -> None:
        seen = await organization.state.get("n", 0)
        sandbox.put("org_123", {"n": seen + 1})

    sandbox = Sandbox(handlers_of(chases))
    assert (await sandbox.deliver(UPDATED, {})).outcome == Released()


async def test_a_key_that_cannot_be_read_is_told() -> None:
    handlers = Handlers()

    @handlers.on("order.*", key="customer.id")
    async def handle(_event: Event[Any], _organization: Organization) -> None: ...

    result = await deliver(handlers, UPDATED, {"order_id": 1})
    assert result.outcome == Handled()
    assert [line["event"] for line in result.log] == ["event_key_unread"]


async def test_a_cancelled_delivery_cancels_its_handler() -> None:
    ended = asyncio.Event()

    async def hangs(_event: Event[Any], _organization: Organization) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(deliver(handlers_of(hangs), UPDATED, {}), 0.02)
    assert ended.is_set()


# Where it runs


def test_a_sandbox_serves_one_event_loop_after_another() -> None:
    async def hangs_at_last(event: Event[Any], _organization: Organization) -> None:
        if event.data["hangs"]:
            await asyncio.Event().wait()

    sandbox = Sandbox(handlers_of(hangs_at_last), handler_timeout=0.05)

    async def one(*, hangs: bool) -> Result:
        return await sandbox.deliver(UPDATED, {"hangs": hangs})

    assert asyncio.run(one(hangs=False)).outcome == Handled()
    assert asyncio.run(one(hangs=False)).outcome == Handled()
    assert isinstance(asyncio.run(one(hangs=True)).exception, TimeoutError)


async def test_a_delivery_takes_less_than_a_millisecond() -> None:
    """Of processor time, and untraced: neither a busy machine nor its coverage makes it slower."""
    sandbox, took = Sandbox(KEEPING), list[float]()
    with unmeasured():
        for _ in range(50):
            began = time.thread_time()
            await sandbox.deliver(UPDATED, {"order_id": 1})
            took.append(time.thread_time() - began)
    assert min(took) < 0.001


def test_it_needs_no_environment_and_says_nothing(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, logging\n"
        "from worker import Handlers\n"
        "from worker.testing import deliver\n"
        "handlers = Handlers()\n"
        "@handlers.on('*')\n"
        "async def fails(event, organization):\n"
        "    organization.log.error('odd')\n"
        "    raise KeyError('sku')\n"
        "result = asyncio.run(deliver(handlers, 'order.updated', {}))\n"
        "assert repr(result.exception) == \"KeyError('sku')\"\n"
        "assert not logging.getLogger().handlers\n"
    )
    ended = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env={
            name: os.environ[name]
            for name in ("PATH", "COVERAGE_PROCESS_START")
            if name in os.environ
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == [program]


async def test_who_is_told_of_failures_is_told_before_a_delivery_ends() -> None:
    handlers, told = Handlers(), []

    @handlers.on("order.updated")
    async def fails(event: Event[Any], organization: Organization) -> None:
        raise ValueError("no")

    @handlers.on_error
    async def report(failure: Failure) -> None:
        await asyncio.sleep(0)
        told.append(failure.error)

    await deliver(handlers, "order.updated", {})
    assert told == ["ValueError: no"]
