"""Stock arq: its worker, its producer, and the time that `enqueue_job` takes."""

import asyncio
import json
from collections.abc import Iterator
from time import perf_counter, process_time
from typing import Any

import arq
import uvloop
from arq.connections import ArqRedis, RedisSettings
from arq.worker import func

from tests.bench.peers import gate

_AT_ONCE = 64


async def noop(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def _settings() -> RedisSettings:
    return RedisSettings.from_dsn(gate.redis_url())


def work() -> None:
    """Run one worker; like ours, it keeps no results."""
    asyncio.set_event_loop(uvloop.new_event_loop())  # arq's worker takes the loop that is set
    worker = arq.Worker(
        functions=[func(noop, name="noop")],
        redis_settings=_settings(),
        max_jobs=gate.concurrency(),
        keep_result=0,
    )
    gate.wait()
    worker.run()


async def enqueue(jobs: int) -> None:
    """Enqueue so many, 64 at once, and print the seconds that it took: in all, of CPU, each."""
    pool = await arq.create_pool(_settings())
    turns, each = iter(range(jobs)), list[float]()
    started, used = perf_counter(), process_time()
    await asyncio.gather(*(_enqueue_some(pool, turns, each) for _ in range(_AT_ONCE)))
    took = {"seconds": perf_counter() - started, "cpu": process_time() - used, "each": each}
    print(json.dumps(took))  # noqa: T201  # the result, for the process that started it
    await pool.aclose()


async def _enqueue_some(pool: ArqRedis, turns: Iterator[int], each: list[float]) -> None:
    body = gate.body()
    for _ in turns:
        started = perf_counter()
        await pool.enqueue_job("noop", body)
        each.append(perf_counter() - started)


if __name__ == "__main__":
    verb, number = gate.command()
    if verb == "work":
        work()
    else:
        uvloop.run(enqueue(number))
