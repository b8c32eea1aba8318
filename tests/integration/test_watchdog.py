"""Facts about the thread that renews leases, and that ends a worker whose loop stands still."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis

from shared.queue import keys
from tests.integration.jobs import NOTHING, account, counters, record_of
from tests.integration.test_engine import drained
from tests.integration.workplace import Workplace, body, place_with, stuck_until, working
from worker import Event, Organization
from worker.engine.process import Exit
from worker.pipeline.pulse import Pulse


async def ended(redis: Redis) -> int:
    counted = await counters(redis)
    return sum(counted.get(name, 0) for name in ("handled", "retried", "dead"))


async def left(place: Workplace, number: int = 1) -> None:
    """Wait until the worker has asked so often to be ended."""
    async with asyncio.timeout(20):
        while len(place.left) < number:
            await asyncio.sleep(0.01)


async def settled(redis: Redis, number: int) -> None:
    """Wait until so many attempts have ended."""
    async with asyncio.timeout(20):
        while await ended(redis) < number:
            await asyncio.sleep(0.01)


def block_until(fact: Callable[[], bool]) -> None:
    """Do what no handler should."""
    until = time.monotonic() + 20
    while not fact() and time.monotonic() < until:
        time.sleep(0.01)


async def holds(worker: Any, number: int) -> None:
    """Wait until the worker has so many events."""
    async with asyncio.timeout(20):
        while len(worker.claims.running) < number:
            await asyncio.sleep(0.01)


def pulse_of(worker: Any) -> Pulse:
    found: Pulse = worker._pulse
    found.limit = 0.1
    return found


async def test_a_blocked_loop_loses_no_lease_and_says_who_blocks_it(redis: Redis) -> None:
    async def block(event: Event[Any], _: Organization) -> None:
        if event.id == "evt_block":
            time.sleep(1.5)  # noqa: ASYNC251  that is the misdeed

    place = place_with(redis, block)
    worker = place.worker(lease=0.5)
    pulse_of(worker)
    async with working(worker):
        await place.accept(body("evt_block"), *(body(f"evt_{n}") for n in range(5)))
        await settled(redis, 6)
    assert (await counters(redis)).get("lease_expired") is None
    assert await account(redis) == NOTHING
    (line,) = place.lines.of("loop_blocked")
    assert (line["event_id"], line["organization"]) == ("evt_block", "org_a")
    assert "in block" in line["stack"]
    assert place.left == []


async def test_beyond_the_limit_the_blocking_event_is_charged_and_the_others_go_back(
    redis: Redis,
) -> None:
    """What the thread settles while the loop stands still; the process would end then."""
    waiting = asyncio.Event()

    async def act(event: Event[Any], _: Organization) -> None:
        if event.id == "evt_block":
            time.sleep(2)  # noqa: ASYNC251  that is the misdeed
        elif event.id.startswith("evt_wait"):
            await waiting.wait()

    place = place_with(redis, act, handler_timeout=0.5, stuck_after=30)
    worker = place.worker()
    pulse_of(worker)
    waits = await place.accept(*(body(f"evt_wait_{n}") for n in range(3)))
    async with working(worker):
        await holds(worker, 3)
        (job,) = await place.accept(body("evt_block"))
        await left(place)
        assert place.left == [Exit.BLOCKED]
        assert place.left_at_once
        assert place.lines.of("worker_blocked")[0]["event_id"] == "evt_block"
        waiting.set()
        raw = await redis.hget(keys.CLAIMS, job)
        assert raw is not None
        token, attempts, claims, _ = raw.decode().split(":", 3)
        assert (attempts, claims) == ("1", "2")  # a failed attempt, and a suspect from now on
        told = [line["error"] for line in place.lines.of("event_retried")]
        assert [text for text in told if text.startswith("blocked the worker for")]
        released = {line["job"] for line in place.lines.of("event_released")}
        assert released == set(waits)
        del token


async def test_the_second_time_it_is_buried_as_blocked(redis: Redis) -> None:
    async def block(_event: Event[Any], _: Organization) -> None:
        time.sleep(1)  # noqa: ASYNC251  that is the misdeed

    place = place_with(redis, block, handler_timeout=0.3, stuck_after=30)
    (job,) = await place.accept(body("evt_1"))
    for number in (1, 2):
        worker = place.worker()  # the one before has left
        pulse_of(worker)
        async with working(worker):
            await left(place, number)
    record = await record_of(redis, job)
    assert (record["reason"], record["attempts"]) == ("blocked", "2")
    assert await account(redis) == NOTHING


async def test_a_worker_half_of_whose_slots_are_stuck_leaves(redis: Redis) -> None:
    let_go = asyncio.Event()
    handle = stuck_until(let_go)
    place = place_with(redis, handle, handler_timeout=0.1, stuck_after=0.1, max_attempts=1)
    worker = place.worker(slots=4)
    await place.accept(body("evt_1"), body("evt_2"))
    async with working(worker):
        try:
            await left(place)
        finally:
            let_go.set()
        assert place.left == [Exit.STUCK]
        assert not place.left_at_once
        assert len(place.lines.of("handler_stuck")) == 2
        await drained(redis)


async def test_one_that_is_stuck_and_blocks_is_settled_for_the_loop_which_may_never_get_to_it(
    redis: Redis,
) -> None:
    goes_on, waiting = True, asyncio.Event()

    async def act(event: Event[Any], _: Organization) -> None:
        if event.id == "evt_wait":
            await waiting.wait()
        while goes_on:
            with contextlib.suppress(asyncio.CancelledError):
                time.sleep(0.3)  # noqa: ASYNC251  that is the misdeed
                await asyncio.sleep(0)

    place = place_with(redis, act, handler_timeout=1.5, stuck_after=0.5)
    worker = place.worker()
    pulse_of(worker)
    (waits,) = await place.accept(body("evt_wait"))
    async with working(worker):
        await holds(worker, 1)
        place.batcher.post_settlement = lambda *_: None  # type: ignore[method-assign]  # never
        (job,) = await place.accept(body("evt_stuck"))
        try:
            await left(place)
        finally:
            goes_on = False
        assert place.left == [Exit.STUCK]
        assert place.left_at_once
        (stuck,) = place.lines.of("event_retried")
        assert (stuck["job"], "didn't end" in stuck["error"]) == (job, True)
        assert [line["job"] for line in place.lines.of("event_released")] == [waits]
        assert len(place.lines.of("worker_stuck")) == 1
        waiting.set()


async def test_one_that_is_stuck_and_has_blocked_is_buried_as_blocked_the_second_time(
    redis: Redis,
) -> None:
    """Its attempt is settled before it ends the worker, as each further one would."""
    turn = 1

    def times_told() -> int:
        return sum(line.get("event_id") == "evt_1" for line in place.lines.of("loop_blocked"))

    def is_settled() -> bool:
        return len(place.lines.of("event_retried") + place.lines.of("event_dead")) == turn

    async def act(_event: Event[Any], _: Organization) -> None:
        mine, before = turn, times_told()
        block_until(lambda: times_told() > before)
        while mine == turn:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            if is_settled():
                block_until(lambda: len(place.left) == mine)

    place = place_with(redis, act, handler_timeout=60, stuck_after=0.1, max_attempts=12)
    place.pipeline.attempts.seconds = 0.1  # however long it blocks, it doesn't end the worker alone
    (job,) = await place.accept(body("evt_1"))
    for number in (1, 2):
        worker = place.worker()
        pulse_of(worker)
        async with working(worker):
            try:
                await left(place, number)
            finally:
                turn += 1
    assert place.left == [Exit.STUCK] * 2
    record = await record_of(redis, job)
    assert (record["reason"], record["attempts"]) == ("blocked", "2")
    assert await account(redis) == NOTHING


async def test_one_that_blocks_only_once_it_is_stuck_is_charged_if_nothing_is_settled_yet(
    redis: Redis,
) -> None:
    goes_on = True

    async def act(_event: Event[Any], _: Organization) -> None:
        while goes_on:
            with contextlib.suppress(asyncio.CancelledError):
                if place.lines.of("handler_stuck"):
                    time.sleep(0.3)  # noqa: ASYNC251  that is the misdeed
                await asyncio.sleep(0)

    place = place_with(redis, act, handler_timeout=0.3, stuck_after=0.3)
    worker = place.worker()
    pulse_of(worker)
    async with working(worker):
        place.batcher.post_settlement = lambda *_: None  # type: ignore[method-assign]  # never
        (job,) = await place.accept(body("evt_stuck"))
        try:
            await left(place)
        finally:
            goes_on = False
    assert place.left == [Exit.STUCK]
    raw = await redis.hget(keys.CLAIMS, job)
    assert raw is not None
    assert raw.decode().split(":")[1:3] == ["1", "2"]  # a failed attempt, and a suspect


async def test_one_that_is_stuck_is_not_blamed_for_a_neighbour_that_blocks(redis: Redis) -> None:
    goes_on = True

    async def act(event: Event[Any], _: Organization) -> None:
        if event.id == "evt_block":
            time.sleep(0.6)  # noqa: ASYNC251  that is the misdeed
            return
        while goes_on:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    place = place_with(redis, act, handler_timeout=1.5, stuck_after=0.3)
    worker = place.worker()
    pulse_of(worker)
    async with working(worker):
        await place.accept(body("evt_stuck"))
        async with asyncio.timeout(20):
            while not place.lines.of("handler_stuck"):
                await asyncio.sleep(0.01)
        await place.accept(body("evt_block"))
        await settled(redis, 2)
        goes_on = False
    assert place.left == []
    assert "evt_block" in {line.get("event_id") for line in place.lines.of("loop_blocked")}
