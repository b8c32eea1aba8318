"""Facts about how handlers run, and about how each of them ends."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, cast

import pytest

from tests.integration.workplace import Lines
from worker.events import Event, Organization
from worker.outcomes import Cause, Done, Later, Outcome, Released
from worker.pipeline import attempts
from worker.pipeline.attempts import CURRENT, Attempts, make_task, origin_of, raised_by
from worker.pipeline.transitions import Claim
from worker.pipeline.work import Handle, Work
from worker.state import State


class Timers:
    """Counts the loop's timers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        loop = asyncio.get_running_loop()
        real = loop.call_at

        def call_at(*args: Any, **kwargs: Any) -> object:
            self.made += args[1].__name__ == "_look"
            return real(*args, **kwargs)

        monkeypatch.setattr(loop, "call_at", call_at)


class Stand:
    """Runs handlers, and remembers how they ended."""

    def __init__(self, seconds: float = 60, grace: float = 0.2) -> None:
        asyncio.get_running_loop().set_task_factory(make_task)
        self.lines = Lines()
        self.attempts = Attempts(seconds, grace=grace, log=self.lines.log)
        self.outcomes: list[Outcome] = []
        self._told = asyncio.Event()

    def start(self, call: Callable[[], Awaitable[object]]) -> Work:
        work = Work(Claim("org_a:1", "aa"), None, lambda _: None)
        self.attempts.start(work, handle(call, organization()), self._tell)
        return work

    async def run(self, call: Callable[[], Awaitable[object]]) -> Outcome:
        self.start(call)
        return await self.ended()

    async def ended(self, number: int = 1) -> Outcome:
        async with asyncio.timeout(10):
            while len(self.outcomes) < number:
                self._told.clear()
                await self._told.wait()
        return self.outcomes[-1]

    def _tell(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._told.set()


async def read_nothing(_: str) -> bytes | None:
    return None


def organization() -> Organization:
    state = State(read_nothing, event_id="evt_1", tombstone=1)
    return Organization(id="org_a", state=state, logger=lambda: Lines().log)


def handle(call: Callable[[], Awaitable[object]], scope: Organization) -> Handle:
    async def function(_event: Any, _: Organization) -> Any:
        return await call()

    return Handle(function, cast("Event[Any]", None), scope)


async def hang() -> None:
    await asyncio.Event().wait()


async def test_a_handler_that_returns_is_done() -> None:
    async def returns() -> None: ...

    assert await Stand().run(returns) == Done()


async def test_what_takes_too_long_is_cancelled_in_the_order_of_its_start() -> None:
    stand, ended = Stand(0.02), list[int]()

    async def waits(number: int) -> None:
        try:
            await hang()
        finally:
            ended.append(number)

    for number in range(3):
        stand.start(lambda number=number: waits(number))
    await stand.ended(3)
    assert ended == [0, 1, 2]
    assert stand.outcomes == [Later("the handler took longer than 0.02 s", failed=True)] * 3


async def test_what_begins_later_is_over_later() -> None:
    stand, loop = Stand(0.1), asyncio.get_running_loop()
    stand.start(hang)
    await asyncio.sleep(0.05)
    began = loop.time()
    stand.start(hang)
    await stand.ended(2)
    assert loop.time() - began >= 0.1


async def test_one_timer_does_for_all_that_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stand, timers = Stand(), Timers(monkeypatch)

    async def returns() -> None: ...

    for _ in range(100):
        stand.start(returns)
    await stand.ended(100)
    assert timers.made == 1


async def test_a_handler_that_puts_things_in_order_has_half_of_the_grace_for_it() -> None:
    stand, ordered = Stand(0.01, grace=0.4), list[str]()

    async def puts_in_order() -> None:
        try:
            await hang()
        finally:
            await asyncio.sleep(0.1)
            ordered.append("done")

    assert await stand.run(puts_in_order) == Later(
        "the handler took longer than 0.01 s", failed=True
    )
    assert ordered == ["done"]


async def test_a_handler_that_swallows_its_cancellation_is_cancelled_again() -> None:
    stand, cancelled = Stand(0.01, grace=0.4), list[int]()

    async def swallows_twice() -> None:
        while len(cancelled) < 3:
            try:
                await hang()
            except asyncio.CancelledError:
                cancelled.append(1)

    assert await stand.run(swallows_twice) == Done()
    assert stand.attempts.stuck == set()


async def test_a_handler_that_does_not_end_is_stuck_and_told_of_with_its_stack() -> None:
    stand, go_on = Stand(0.01, grace=0.1), [True]

    async def swallows() -> None:
        while go_on:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    stand.start(swallows)
    outcome = await stand.ended()
    error = "the handler took longer than 0.01 s and didn't end when it was cancelled"
    assert outcome == Later(error, failed=True)
    (attempt,) = stand.attempts.stuck
    (line,) = stand.lines.of("handler_stuck")
    assert "in swallows" in line["stack"]
    go_on.clear()
    assert attempt.task is not None
    attempt.task.cancel()
    await asyncio.wait([attempt.task])
    assert stand.attempts.stuck == set()
    assert stand.lines.events() == ["handler_stuck", "handler_ended_late"]
    assert stand.outcomes == [outcome]


async def test_one_that_is_stuck_and_is_known_to_have_blocked_is_charged_for_that() -> None:
    stand, go_on = Stand(0.05, grace=0.1), [True]

    async def swallows() -> None:
        while go_on:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    stand.start(swallows)
    blocking = stand.start(swallows)
    stand.attempts.excuse(0.01, but=blocking)
    await stand.ended(2)
    go_on.clear()
    tasks = [attempt.task for attempt in stand.attempts.stuck if attempt.task is not None]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    # In whichever order: a busy machine looks at both at once.
    charged = [isinstance(each, Later) and each.blocked for each in stand.outcomes]
    assert sorted(charged) == [False, True]


async def test_what_the_worker_gives_back_is_released_though_it_does_not_end() -> None:
    stand, go_on, started = Stand(grace=0.1), [True], asyncio.Event()

    async def swallows() -> None:
        started.set()
        while go_on:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    work = stand.start(swallows)
    await started.wait()
    work.cancel()
    assert await stand.ended() == Released()
    go_on.clear()
    (attempt,) = stand.attempts.stuck
    assert attempt.task is not None
    attempt.task.cancel()
    await asyncio.wait([attempt.task])


async def test_a_handler_that_is_given_back_before_it_starts_never_does() -> None:
    stand, started = Stand(), list[int]()

    async def starts() -> None:
        started.append(1)

    stand.start(starts).cancel()
    assert await stand.ended() == Released()
    await asyncio.sleep(0)
    assert started == []


async def test_a_task_that_went_without_a_word_is_swept_up() -> None:
    """One that is cancelled before its first step runs nothing, not even our own code."""
    stand = Stand()
    work = stand.start(hang)
    assert work.attempt is not None
    assert work.attempt.task is not None
    work.attempt.task.cancel()
    await asyncio.wait([work.attempt.task])
    assert stand.outcomes == []
    stand.attempts.sweep()
    assert stand.outcomes == [Later("CancelledError: ", failed=True)]


async def test_handlers_see_nothing_of_what_others_set() -> None:
    of_the_worker: ContextVar[str] = ContextVar("of_the_worker", default="none")
    of_a_handler: ContextVar[int] = ContextVar("of_a_handler", default=0)
    of_the_worker.set("set before")
    stand, seen = Stand(), list[tuple[str, int]]()

    async def sets(number: int) -> None:
        seen.append((of_the_worker.get(), of_a_handler.get()))
        of_a_handler.set(number)

    for number in range(1, 4):
        stand.start(lambda number=number: sets(number))
        await stand.ended(number)
    assert seen == [("set before", 0)] * 3


async def test_its_state_is_closed_once_it_is_over() -> None:
    stand = Stand(0.01, grace=0.05)
    scope, raised, ended = organization(), list[str](), asyncio.Event()

    async def goes_on() -> None:
        try:
            await hang()
        except asyncio.CancelledError:
            while stand.outcomes == []:
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    continue
        try:
            await scope.state.put("late", 1)
        except Exception as exc:  # noqa: BLE001  which one is the question
            raised.append(str(exc))
        ended.set()

    work = Work(Claim("org_a:1", "aa"), None, lambda _: None)
    stand.attempts.start(work, handle(goes_on, scope), stand._tell)
    async with asyncio.timeout(10):
        await ended.wait()
    assert "over" in raised[0]


# Which event a task was made under, and who may cancel which


async def test_whatever_a_handler_starts_is_known_to_be_its_events() -> None:
    stand, children = Stand(), list[asyncio.Task[Any]]()

    async def grandchild() -> None:
        await hang()

    async def child() -> None:
        children.append(asyncio.create_task(grandchild()))

    async def starts() -> None:
        children.append(asyncio.create_task(child()))
        await children[0]

    work = stand.start(starts)
    assert work.attempt is not None
    assert origin_of(work.attempt.task) is work
    await stand.ended()
    assert [origin_of(task) for task in children] == [work, work]
    assert [task for task in attempts._left if not task.done()] == [children[1]]
    children[1].cancel()
    await asyncio.wait([children[1]])
    assert origin_of(asyncio.current_task()) is None


async def test_a_handler_that_cancels_every_task_ends_its_own_only() -> None:
    stand, test = Stand(), asyncio.current_task()  # which the loop made before it knew of us
    neighbour = stand.start(hang)
    mine = asyncio.create_task(hang())
    await asyncio.sleep(0)

    async def cancels_all() -> None:
        for task in asyncio.all_tasks() - {test}:
            task.cancel()
        await hang()

    assert await stand.run(cancels_all) == Later("CancelledError: ", failed=True)
    assert not mine.done()
    assert neighbour.attempt is not None
    assert neighbour.attempt.cause is Cause.NOBODY
    neighbour.cancel()
    mine.cancel()
    await asyncio.wait([mine])
    assert await stand.ended(2) == Released()


async def test_a_child_that_cancels_its_parent_makes_a_failed_attempt() -> None:
    async def child(parent: asyncio.Task[Any]) -> None:
        parent.cancel()

    async def starts() -> None:
        parent = asyncio.current_task()
        assert parent is not None
        await asyncio.create_task(child(parent))
        await hang()

    assert await Stand().run(starts) == Later("CancelledError: ", failed=True)


def test_who_ends_the_loop_is_known_by_its_task() -> None:
    work = Work(Claim("org_a:1", "aa"), None, lambda _: None)

    async def exits() -> None:
        raise SystemExit(3)

    async def leaves() -> None:
        CURRENT.set(work)
        asyncio.get_running_loop().create_task(exits())
        await asyncio.sleep(60)

    loop = asyncio.new_event_loop()
    loop.set_task_factory(make_task)
    main = loop.create_task(leaves())
    with pytest.raises(SystemExit) as caught:
        loop.run_until_complete(main)
    assert raised_by(caught.value) is work
    assert raised_by(SystemExit(3)) is None
    main.cancel()
    loop.run_until_complete(asyncio.wait([main]))
    loop.close()


# What a handler leaves may do anything when it is looked at


class Panic(BaseException):
    """As a Rust extension's."""


class Unspeakable:
    def __repr__(self) -> str:
        raise Panic


async def test_a_stuck_handler_is_over_whatever_it_has_left_without_await() -> None:
    stand, scope = Stand(0.01, grace=0.04), organization()

    async def forgets_and_endures() -> None:
        forgotten = scope.state.get(Unspeakable())  # type: ignore[arg-type]
        while not stand.outcomes:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        forgotten.close()

    work = Work(Claim("org_a:1", "aa"), None, lambda _: None)
    stand.attempts.start(work, handle(forgets_and_endures, scope), stand._tell)
    outcome = await stand.ended()
    assert isinstance(outcome, Later)
    assert "didn't end when it was cancelled" in outcome.error


async def test_a_coroutine_that_is_returned_half_way_ends_nothing_but_its_own_attempt() -> None:
    async def left() -> None:
        try:
            await hang()
        finally:
            raise Panic

    async def returns_what_it_has_begun() -> object:
        begun = left()
        begun.send(None)
        return begun

    outcome = await Stand().run(returns_what_it_has_begun)
    assert isinstance(outcome, Later)
    assert "is an `await` missing?" in outcome.error


# Time in which the loop stood still


async def test_a_stand_still_is_given_back_to_all_but_the_one_that_made_it() -> None:
    stand, ended = Stand(0.15), list[str]()

    async def waits(name: str) -> None:
        try:
            await hang()
        finally:
            ended.append(name)

    stand.start(lambda: waits("before"))
    blocking = stand.start(lambda: waits("blocking"))
    stand.start(lambda: waits("after"))
    await asyncio.sleep(0)
    stand.attempts.excuse(0.1, but=blocking)
    await stand.ended(1)
    assert ended == ["blocking"]
    await stand.ended(3)
    assert ended == ["blocking", "before", "after"]


async def test_where_nobody_is_known_to_have_made_it_all_get_it_back() -> None:
    stand, loop = Stand(0.1), asyncio.get_running_loop()
    began = loop.time()
    stand.start(hang)
    stand.attempts.excuse(0.05, but=None)
    await stand.ended()
    assert loop.time() - began >= 0.15


async def test_who_blocks_unseen_gets_no_more_than_as_much_time_again() -> None:
    stand, loop = Stand(0.1), asyncio.get_running_loop()
    began = loop.time()
    stand.start(hang)
    for _ in range(100):
        stand.attempts.excuse(0.05, but=None)
    await stand.ended()
    assert 0.2 <= loop.time() - began < 2


# A second event loop: each test has one of its own, say


async def run_out(limited: Attempts) -> Outcome:
    """What a handler comes to that hangs."""
    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    work = Work(Claim("org_a:1", "aa"), None, lambda _: None)
    limited.start(work, handle(hang, organization()), told.set_result)
    async with asyncio.timeout(10):
        return await told


async def return_at_once(limited: Attempts) -> None:
    """Have the limit's timer set, and leave it behind."""

    async def returns() -> None: ...

    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    work = Work(Claim("org_a:2", "bb"), None, lambda _: None)
    limited.start(work, handle(returns, organization()), told.set_result)
    assert await told == Done()


async def leave_one_behind(limited: Attempts) -> None:
    work = Work(Claim("org_a:3", "cc"), None, lambda _: None)
    limited.start(work, handle(hang, organization()), lambda _: None)


@pytest.mark.parametrize("before", [run_out, return_at_once, leave_one_behind])
def test_a_time_limit_holds_in_a_second_event_loop(
    before: Callable[[Attempts], Coroutine[Any, Any, object]],
) -> None:
    limited = Attempts(0.02, grace=0.2, log=Lines().log)
    for coroutine in (before(limited), leave_one_behind(limited)):
        asyncio.run(coroutine)
    assert asyncio.run(run_out(limited)) == Later(
        "the handler took longer than 0.02 s", failed=True
    )
    assert not limited._running


def test_what_a_closed_loop_left_undone_is_forgotten() -> None:
    """Its loop was closed without a word to its tasks, so nothing can be done about it."""
    limited, first = Attempts(0.02, grace=0.2, log=Lines().log), asyncio.new_event_loop()
    first.run_until_complete(leave_one_behind(limited))
    (left,) = [attempt.task for attempt in limited._running]
    first.close()
    assert asyncio.run(run_out(limited)) == Later(
        "the handler took longer than 0.02 s", failed=True
    )
    assert not limited._running
    left._log_destroy_pending = False  # type: ignore[union-attr]  # asyncio would complain of it
