"""Handlers of one order after the other: each run of each is counted in Redis."""

import asyncio
import os
import random
from typing import Any

from redis.asyncio import Redis

from tests.bench.peers import gate
from worker import Event, Handlers, Organization, Retry

RUNS = "bench:runs"
"""A hash: how often the handler of each event was run."""

_SECONDS = float(os.environ.get("BENCH_SECONDS", "0.02"))
_redis = Redis.from_url(os.environ["REDIS_URL"])

unkeyed, keyed, free, ordered, latest, gathered, failing = (Handlers() for _ in range(7))


STARTS = "bench:starts"
"""A list: when each handler was started, in microseconds of Redis's clock."""

_NOTE = """
local time = redis.call('TIME')
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('RPUSH', KEYS[2], time[1] * 1000000 + time[2])
"""


async def work(event: Event[Any]) -> None:
    """Take as long as a call of somebody's API, and be counted."""
    await _redis.eval(_NOTE, 2, RUNS, STARTS, event.id)
    await asyncio.sleep(_SECONDS)


@unkeyed.on("*")
@keyed.on("*", key="order_id")
async def add_to_what_was_read(event: Event[Any], organization: Organization) -> None:
    """Read a value, and write another that depends on it."""
    total = await organization.state.get("total", 0)
    await work(event)
    await organization.state.put("total", total + 1)


@free.on("*")
@ordered.on("*", key="order_id")
async def only_work(event: Event[Any], organization: Organization) -> None:
    """Touch no state."""
    await work(event)


@latest.on("*", key="order_id", latest=True)
@gathered.on("*", key="order_id", latest=True, quiet="2s")
async def keep(event: Event[Any], organization: Organization) -> None:
    """Keep the last number of an order."""
    await work(event)
    await organization.state.put(event.data["order_id"], event.data["number"])


@failing.on("*", key="order_id")
async def note_the_order(event: Event[Any], organization: Organization) -> None:
    """Note which of an order's events have been committed, in this order; fail now and then."""
    await work(event)
    if random.random() < 0.1:  # nothing is protected by it
        raise Retry(after=0.05)
    order = event.data["order_id"]
    numbers = await organization.state.get(order, [])
    await organization.state.put(order, [*numbers, event.data["number"]])


# As in `handlers`: held until all workers are ready.
if "BENCH_GATE" in os.environ:
    gate.wait()
