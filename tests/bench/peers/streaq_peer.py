"""streaQ: its worker and its producer."""

import uvloop

# It is in an environment of its own, which the type checker doesn't see.
from streaq import Worker  # type: ignore[import-not-found]

from tests.bench.peers import gate

_BATCH = 256

worker = Worker(
    redis_url=gate.redis_url(),
    concurrency=gate.concurrency(),
    anyio_kwargs={"use_uvloop": True},
)


async def noop(body: str) -> None:
    """Do nothing."""


task = worker.task(ttl=0, silent=True)(noop)


async def enqueue(jobs: int) -> None:
    """Enqueue so many that keep no result."""
    async with worker:
        for start in range(0, jobs, _BATCH):
            batch = range(start, min(jobs, start + _BATCH))
            await worker.enqueue_many([task.enqueue(gate.body()) for _ in batch])


if __name__ == "__main__":
    verb, number = gate.command()
    if verb == "work":
        gate.wait()
        worker.run_sync()
    else:
        uvloop.run(enqueue(number))
