"""Facts about moving an organization under load: whenever its mover dies, nothing is amiss."""

import os
from contextlib import suppress
from dataclasses import replace
from itertools import count
from random import Random
from statistics import median

import pytest
from redis.asyncio import Redis

from tests.conftest import StartRedis
from tests.integration.moves import ORG, SHORT, Died, Life, Mortal, Shop, move, traces
from tests.integration.several import over
from worker.operate import organizations
from worker.operate.moving import Progress

HOUR = 3_600_000
LONG = replace(SHORT, drain=20)


async def test_a_mover_may_die_after_any_of_its_calls_while_events_come_in(
    redis: Redis, fresh_redis_server: StartRedis
) -> None:
    """And so may the one that goes on. Two primaries have two partitions each.

    Whoever waits for handlers does so for as long as a busy machine takes, rather than let them go
    on: each time that it did would be more calls to die after.
    """
    async with Redis.from_url(fresh_redis_server().url) as other:
        shop, life, clients = Shop(over(redis, other)), Life(), (redis, other)
        mortal = over(*(Mortal(each, life) for each in clients))
        for _ in range(300):
            await shop.deliver("done")
        for _ in range(20):
            await shop.deliver("bad", bad=True)
        await shop.work_off(0)
        to, held, is_over = 0, list[float](), False
        async with shop.busy():
            for most in count():
                here, to = shop.partitions.all[to], (to + 1) % 4
                # One time in three its events wait for a resume, wherever it is by then.
                if is_paused := most % 3 == 1:
                    assert await organizations.pause(here, ORG, "by hand")
                life.begin(most)
                with suppress(Died):
                    await move(mortal, to, patience=LONG)
                    is_over = True
                if is_over and not is_paused:
                    break
                if not is_over and most % 4 == 0:
                    life.begin(7 * most % 41)
                    with suppress(Died):
                        await move(mortal, to, patience=LONG)
                life.begin()
                if not is_over:
                    held.append((await move(mortal, to, patience=LONG)).held)
                assert await traces(here) == {}
                if is_paused:  # and with nobody to wait for it has fewer calls to die after
                    is_over = False
                    assert await organizations.resume(shop.partitions.all[to], ORG)
        assert most > 30
        assert median(held) < 1
        bad, there = shop.sent.pop("bad"), shop.partitions.all[to]
        expected = {key: str(number).encode() for key, number in shop.sent.items()}
        assert await shop.state(there) == expected
        assert await there.redis.zcard(there.names.dead(ORG)) == bad


@pytest.mark.skipif("LARGE_MOVES" not in os.environ, reason="a minute; LARGE_MOVES=5 does it")
async def test_one_with_100_000_marks_moves_though_its_movers_die_at_random(redis: Redis) -> None:
    shop, life, chance = Shop(over(redis)), Life(), Random(19)
    mortal = over(Mortal(redis, life))
    here = shop.partitions.all[0]
    for start in range(0, 100_000, 1000):
        async with redis.pipeline(transaction=False) as pipe:
            for number in range(start, start + 1000):
                pipe.set(here.names.event(ORG, f"old_{number}"), "done:x", px=HOUR)
            await pipe.execute()
    to, told = 0, list[Progress]()
    async with shop.busy(patience=900):
        for _ in range(int(os.environ["LARGE_MOVES"])):
            to = (to + 1) % 4
            life.begin(chance.randrange(600))
            with suppress(Died):
                await move(mortal, to, patience=SHORT)
            life.begin()
            told.append(await move(mortal, to, patience=SHORT))
            print(told[-1])  # noqa: T201
            assert await traces(shop.partitions.all[to - 1]) == {}
    there = shop.partitions.all[to]
    expected = {key: str(number).encode() for key, number in shop.sent.items()}
    assert await shop.state(there) == expected
    marks = there.names.event(ORG, "old_*")
    assert len([name async for name in redis.scan_iter(marks, count=5000)]) == 100_000
    assert max(each.held for each in told) < 1
