"""SAQ: its worker and its producer."""

import asyncio

import uvloop

# It is in an environment of its own, which the type checker doesn't see.
from saq import Queue, Worker  # type: ignore[import-not-found]

from tests.bench.peers import gate

_AT_ONCE = 64


async def noop(_: object, *, body: str) -> None:
    """Do nothing."""


async def work() -> None:
    """Run one worker."""
    queue = Queue.from_url(gate.redis_url())
    worker = Worker(queue, functions=[("noop", noop)], concurrency=gate.concurrency())
    gate.wait()
    await worker.start()


async def enqueue(jobs: int) -> None:
    """Enqueue so many that keep no result."""
    queue = Queue.from_url(gate.redis_url())
    for start in range(0, jobs, _AT_ONCE):
        batch = range(start, min(jobs, start + _AT_ONCE))
        await asyncio.gather(*(queue.enqueue("noop", body=gate.body(), ttl=-1) for _ in batch))
    await queue.disconnect()


if __name__ == "__main__":
    verb, number = gate.command()
    uvloop.run(work() if verb == "work" else enqueue(number))
