"""Facts about what is told of a failure: in the log, in Redis, and to the author's hooks."""

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from shared.endpoints.endpoint import Endpoints, OrganizationProfile
from shared.errors import HandlerError
from shared.observe import metrics
from shared.queue import keys
from shared.queue.partition import Partition
from shared.settings.secret import Secret
from tests.integration.jobs import NOTHING, account
from tests.integration.workplace import POLICY, Workplace, body
from worker import Event, Failure, Handlers, Organization, Reject, Retry
from worker.operate import dead_letters, lookup
from worker.pipeline.attempts import CURRENT
from worker.pipeline.policy import Breaker
from worker.pipeline.transitions import Settled
from worker.pipeline.work import Work

TOKEN: Final = "t0ken-of-acme"
SETTINGS: Final = {"erp_token": Secret(TOKEN)}


class Shop:
    """Handlers that fail, hooks that remember, and a workplace for both."""

    def __init__(self, redis: Redis, **changes: Any) -> None:
        self.error: Callable[[], object] = lambda: ValueError(f"refused: {TOKEN}")
        self.told: list[tuple[str, Failure]] = []
        self.handlers = Handlers()
        self.handlers.on("*")(self.handle)
        profile = OrganizationProfile("org_a", 1.0, None, SETTINGS)
        self.place = Workplace(redis, self.handlers, replace(POLICY, **changes))
        self.place.endpoints.current = Endpoints({}, {"org_a": profile})

    async def handle(self, _event: Event[Any], _organization: Organization) -> Any:
        error = self.error()
        if isinstance(error, BaseException):
            raise error
        return error

    def watched(self) -> "Shop":
        @self.handlers.on_error
        async def failed(failure: Failure) -> None:
            self.told.append(("on_error", failure))

        @self.handlers.on_dead
        async def died(failure: Failure) -> None:
            self.told.append(("on_dead", failure))

        return self

    async def drained(self) -> None:
        await self.place.pipeline.hooks.drain(5)


@pytest.fixture
def shop(redis: Redis) -> Shop:
    return Shop(redis)


async def test_a_failed_attempt_is_told_with_its_traceback_and_without_secrets(
    redis: Redis, shop: Shop
) -> None:
    (job,) = await shop.place.accept(body("evt_1"))
    assert await shop.place.handle_next() is Settled.RETRIED
    (line,) = shop.place.lines.of("event_retried")
    assert line["error"] == "ValueError: refused: ***"
    assert line["traceback"].startswith(f'Traceback (most recent call last):\n  File "{__file__}"')
    assert line["traceback"].endswith("    raise error\nValueError: refused: ***")

    found = await lookup.find(Partition.only(redis), job)
    assert found is not None
    assert found.past.last is not None
    assert (found.past.last.number, found.past.last.said) == (1, "ValueError: refused: ***")
    assert found.past.traceback == line["traceback"]
    assert abs(found.past.last.at - time.time()) < 60
    everything = b"".join(await redis.hvals(keys.FAILURES))
    assert TOKEN.encode() not in everything


async def test_the_last_failure_goes_with_the_dead_letter_and_then_with_it(
    redis: Redis, shop: Shop
) -> None:
    signed = body("evt_1")
    (job,) = await shop.place.accept(signed)
    assert [await shop.place.handle_next() for _ in range(3)][-1] is Settled.DEAD
    (line,) = shop.place.lines.of("event_dead")
    letter = await dead_letters.find(Partition.only(redis), job)
    assert letter is not None
    assert letter.traceback == line["traceback"]
    assert letter.traceback.endswith("ValueError: refused: ***")
    assert await redis.exists(keys.FAILURES) == 0
    assert await account(redis) == NOTHING

    # A later death of another kind says nothing of the earlier one.
    shop.error = lambda: Reject("enough")
    assert await shop.place.handle(signed) is Settled.DEAD
    letter = await dead_letters.find(Partition.only(redis), job)
    assert letter is not None
    assert (letter.reason, letter.traceback) == ("rejected", "")


async def test_what_a_handler_decides_has_no_traceback(redis: Redis, shop: Shop) -> None:
    shop.error = lambda: Retry(after=0, why=f"not yet, says {TOKEN}")
    (job,) = await shop.place.accept(body("evt_1"))
    assert await shop.place.handle_next() is Settled.RETRIED
    (line,) = shop.place.lines.of("event_retried")
    assert line["error"] == "not yet, says ***"
    assert "traceback" not in line
    found = await lookup.find(Partition.only(redis), job)
    assert found is not None
    assert found.past.last is not None
    assert (found.past.last.said, found.past.traceback) == ("not yet, says ***", "")
    shop.error = lambda: None
    assert await shop.place.handle_next() is Settled.DONE
    assert await redis.exists(keys.FAILURES) == 0


async def test_a_handler_that_took_too_long_says_where_it_was(redis: Redis) -> None:
    shop = Shop(redis, handler_timeout=0.05)

    async def waits(event: Event[Any], organization: Organization) -> None:
        await asyncio.sleep(60)

    shop.handlers.on("order.updated")(waits)
    assert await shop.place.handle(body("evt_1")) is Settled.RETRIED
    (line,) = shop.place.lines.of("event_retried")
    assert line["error"] == "the handler took longer than 0.05 s"
    assert "await asyncio.sleep(60)\n" in line["traceback"]


@pytest.mark.parametrize("value", [b"", b"\x93\x01\x02\x03", b"\x94\x01\xa1x\xa1y\xa1z", b"\xff"])
async def test_what_somebodys_hand_has_written_there_is_no_failure(
    redis: Redis, shop: Shop, value: bytes
) -> None:
    (job,) = await shop.place.accept(body("evt_1"))
    await redis.execute_command("HSET", keys.FAILURES, job, value)
    found = await lookup.find(Partition.only(redis), job)
    assert found is not None
    assert found.past.last is None


async def test_a_foreign_value_under_the_name_keeps_no_event_from_its_end(
    redis: Redis, shop: Shop
) -> None:
    await redis.set(keys.FAILURES, "somebody's")
    assert await shop.place.handle(body("evt_1")) is Settled.RETRIED


async def test_what_an_older_worker_left_is_cleared_away(redis: Redis, shop: Shop) -> None:
    await redis.hset(keys.FAILURES, "org_a:gone", "0")
    await shop.place.transitions.renew("w1", [], description=b"{}", slots=1, lease=30)
    assert await redis.exists(keys.FAILURES) == 0


# Hooks


async def test_hooks_are_told_of_each_failed_attempt_and_of_the_death(shop: Shop) -> None:
    shop.watched()
    await shop.place.accept(body("evt_1"))
    for _ in range(3):
        await shop.place.handle_next()
    await shop.drained()
    kinds = [kind for kind, _ in shop.told]
    assert kinds == ["on_error", "on_error", "on_error", "on_dead"]
    first, last = shop.told[0][1], shop.told[-1][1]
    assert (first.attempt, first.reason, first.will_retry) == (1, "", True)
    assert first.after is not None
    assert (last.attempt, last.reason, last.will_retry, last.after) == (3, "exhausted", False, None)
    assert (first.event_id, first.type, first.organization_id) == (
        "evt_1",
        "order.updated",
        "org_a",
    )
    assert first.settings == SETTINGS
    assert first.handler.endswith("Shop.handle")
    assert isinstance(first.exception, ValueError)
    assert first.event is not None
    assert first.event.data == {"order_id": "1"}
    assert first.error == "ValueError: refused: ***"
    assert first.traceback.endswith(first.error)
    assert shop.place.lines.of("failure_hook_failed") == []


async def test_what_was_never_handled_is_told_as_dead_alone(shop: Shop) -> None:
    shop.watched()
    assert await shop.place.handle(b"rubbish") is Settled.DEAD
    shop.error = lambda: Reject("enough")
    assert await shop.place.handle(body("evt_1")) is Settled.DEAD
    await shop.drained()
    assert [kind for kind, _ in shop.told] == ["on_dead", "on_dead"]
    malformed, rejected = (failure for _, failure in shop.told)
    assert (malformed.reason, malformed.event, malformed.exception) == ("malformed", None, None)
    assert (malformed.organization_id, malformed.traceback) == ("org_a", "")
    assert (rejected.reason, rejected.error) == ("rejected", "enough")
    assert isinstance(rejected.exception, Reject)


async def test_a_large_event_is_told_without_what_its_memory_is_counted_for(redis: Redis) -> None:
    shop = Shop(redis).watched()
    under: list[Work | None] = []

    @shop.handlers.on_error
    async def sees(failure: Failure) -> None:
        under.append(CURRENT.get())

    size = shop.place.pipeline.memory.most_uncounted
    assert await shop.place.handle(body("evt_1", data={"text": "x" * size})) is Settled.RETRIED
    await shop.drained()
    assert under[0] is not None
    assert "xxx" not in repr(under)
    ((_, failure),) = shop.told
    assert (failure.event, failure.exception) == (None, None)
    assert failure.traceback.endswith("ValueError: refused: ***")


@pytest.mark.parametrize(
    ("misdeed", "error"),
    [
        (lambda: ValueError(TOKEN), "ValueError: ***"),
        (lambda: SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt, "KeyboardInterrupt: "),
        (asyncio.CancelledError, "CancelledError: "),
    ],
)
async def test_what_a_hook_raises_is_logged_and_nothing_else(
    shop: Shop, misdeed: Callable[[], BaseException], error: str
) -> None:
    @shop.handlers.on_error
    async def fails(failure: Failure) -> None:
        raise misdeed()

    shop.watched()
    assert await shop.place.handle(body("evt_1")) is Settled.RETRIED
    await shop.drained()
    (line,) = shop.place.lines.of("failure_hook_failed")
    assert line["error"] == error
    assert line["handler"].startswith("on_error: ")
    assert line["event_id"] == "evt_1"
    assert "raise misdeed()" in line["traceback"]
    assert [kind for kind, _ in shop.told] == ["on_error"]


async def test_a_hook_that_takes_too_long_is_cancelled(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.place.pipeline.hooks, "_seconds", 0.05)

    @shop.handlers.on_error
    async def hangs(failure: Failure) -> None:
        await asyncio.sleep(60)

    before = _count("overdue")
    assert await shop.place.handle(body("evt_1")) is Settled.RETRIED
    await shop.drained()
    (line,) = shop.place.lines.of("failure_hook_overdue")
    assert line["error"] == "it took longer than 0.05 s"
    assert _count("overdue") == before + 1
    assert shop.place.lines.of("failure_hook_failed") == []


async def test_a_flood_of_failures_is_bounded_and_what_is_lost_is_counted(
    redis: Redis,
) -> None:
    shop = Shop(redis, breaker=Breaker(failures=0), max_attempts=1)
    go_on = asyncio.Event()
    running = most = 0

    @shop.handlers.on_error
    async def slow(failure: Failure) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go_on.wait()
        running -= 1

    before, done = _count("lost"), _count("done")
    await shop.place.accept(*(body(f"evt_{n}") for n in range(120)))
    while claimed := await shop.place.claim(most=40):
        for claim, payload in claimed:
            await shop.place.run(claim, payload)
    assert len(shop.place.lines.of("event_dead")) == 120
    go_on.set()
    await shop.drained()
    assert most == 8
    assert _count("done") - done == 108
    lost = sum(line["number"] for line in shop.place.lines.of("failure_hooks_lost"))
    assert lost == _count("lost") - before == 12


async def test_a_drain_gives_hooks_the_time_that_is_left(shop: Shop) -> None:
    ended, go_on = [], asyncio.Event()

    @shop.handlers.on_error
    async def hangs(failure: Failure) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(failure.event_id)
            await go_on.wait()  # though it was cancelled

    before = _count("lost")
    await shop.place.accept(*(body(f"evt_{n}") for n in range(1, 10)))
    for claim, payload in await shop.place.claim(most=9):
        await shop.place.run(claim, payload)
    began = time.monotonic()
    await shop.place.pipeline.hooks.drain(0.1)
    assert time.monotonic() - began < 2
    assert _count("lost") == before + 1
    go_on.set()
    await shop.drained()
    assert len(ended) == 8


async def test_what_a_hook_starts_is_known_to_be_of_its_event(shop: Shop) -> None:
    under = []

    @shop.handlers.on_error
    async def starts(failure: Failure) -> None:
        async def left() -> None:
            under.append(CURRENT.get())

        await asyncio.create_task(left())

    (job,) = await shop.place.accept(body("evt_1"))
    assert await shop.place.handle_next() is Settled.RETRIED
    await shop.drained()
    (work,) = under
    assert work is not None
    assert work.claim.job == job
    assert work.handler.startswith("on_error: ")
    assert CURRENT.get() is None


def test_what_is_no_hook_is_refused_where_it_is_registered() -> None:
    handlers = Handlers()
    with pytest.raises(HandlerError, match="expected an async def function, got builtin"):
        handlers.on_error(print)  # type: ignore[type-var]
    with pytest.raises(HandlerError, match="expected an async def function, got partial"):
        handlers.on_error(partial(asyncio.sleep, 1))
    with pytest.raises(HandlerError, match="expected the parameter"):

        @handlers.on_dead  # type: ignore[type-var]
        async def two(failure: Failure, more: int) -> None: ...

    assert (handlers.on_error_hooks, handlers.on_dead_hooks) == ([], [])


def _count(outcome: str) -> float:
    value = metrics.REGISTRY.get_sample_value(
        "sellfern_failure_hooks_total", {"hook": "on_error", "outcome": outcome}
    )
    return value or 0.0


async def test_hooks_of_a_registry_that_is_included_are_told_as_well(redis: Redis) -> None:
    inner, outer = Shop(redis).watched(), Handlers()
    outer.include(inner.handlers)
    with pytest.raises(HandlerError, match="before its registry is included"):
        inner.watched()
    place = Workplace(redis, outer)
    assert await place.handle(body("evt_1")) is Settled.RETRIED
    await place.pipeline.hooks.drain(5)
    assert [kind for kind, _ in inner.told] == ["on_error"]


async def test_what_was_told_is_not_kept(shop: Shop) -> None:
    """Of fast hooks and failures, ten seconds of them would be more than a hundred."""
    told: list[weakref.ref[Work]] = []

    @shop.handlers.on_error
    async def sees(failure: Failure) -> None:
        work = CURRENT.get()
        assert work is not None
        told.append(weakref.ref(work))

    assert await shop.place.handle(body("evt_1")) is Settled.RETRIED
    await shop.drained()
    await asyncio.sleep(0)
    gc.collect()
    assert [each() for each in told] == [None]
