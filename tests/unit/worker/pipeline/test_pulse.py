"""Facts about a loop that stands still, and what is blamed for it."""

import asyncio
import time
from contextvars import copy_context

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.integration.workplace import Lines
from worker.pipeline.batcher import Outage
from worker.pipeline.pulse import Pulse

LIMIT = 0.1


async def ticks(pulse: Pulse, seen: list[float], number: int = 1) -> None:
    """Wait for so many more ticks."""
    wanted = len(seen) + number
    async with asyncio.timeout(10):
        while len(seen) < wanted:
            await asyncio.sleep(0.005)


async def test_a_loop_that_goes_round_does_not_stand_still() -> None:
    pulse, seen = Pulse(60, copy_context()), list[float]()
    pulse.start(seen.append)
    assert not pulse.was_still
    pulse.stop()
    assert seen == [0.0]


async def test_the_first_tick_after_a_stand_still_tells_how_long_it_was() -> None:
    pulse, seen = Pulse(LIMIT, copy_context()), list[float]()
    pulse.start(seen.append)
    time.sleep(0.3)  # noqa: ASYNC251  that is the misdeed
    assert pulse.still() > LIMIT
    await ticks(pulse, seen)
    pulse.stop()
    assert 0.2 < seen[1] < 5
    assert pulse.still() < LIMIT
    assert pulse.was_still  # a moment ago, so time-outs may still come of it
    assert pulse.last - pulse.before > 0.2


async def test_nobody_is_judged_for_a_process_that_was_suspended_but_handlers_get_that_back() -> (
    None
):
    pulse, seen = Pulse(LIMIT, copy_context()), list[float]()
    pulse.start(seen.append)
    time.sleep(0.3)  # noqa: ASYNC251  as a SIGSTOP would do to this thread
    pulse.forgive()
    assert pulse.still() == 0
    await ticks(pulse, seen)
    pulse.stop()
    assert seen[1] > 0.2


async def test_redis_is_not_blamed_for_our_own_stand_still() -> None:
    pulse, seen, lines = Pulse(LIMIT, copy_context()), list[float](), Lines()
    pulse.start(seen.append)
    outage = Outage(lines.log, "mark", pulse)
    time.sleep(0.3)  # noqa: ASYNC251  that is the misdeed
    await ticks(pulse, seen)
    await outage.pause(RedisTimeoutError("Timeout reading"))
    assert lines.events() == []
    await outage.pause(RedisConnectionError("reset"))
    pulse.stop()
    assert lines.events() == ["redis_lost"]
