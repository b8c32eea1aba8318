"""Celery: its worker with the pool that was fastest here, and its producer."""

import os

# It is in an environment of its own, which the type checker doesn't see.
from celery import Celery  # type: ignore[import-not-found]

from tests.bench.peers import gate

_PREFETCHED = 100

app = Celery("bench", broker=gate.redis_url())
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    worker_enable_remote_control=False,
    worker_prefetch_multiplier=_PREFETCHED,
)


def noop(body: str) -> None:
    """Do nothing."""


task = app.task(name="noop")(noop)


def work() -> None:
    """Run one worker; chatter between workers is off."""
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"]
    name = f"--hostname={os.getpid()}@bench"
    gate.wait()
    app.worker_main(["worker", "--pool=solo", name, *quiet])


def enqueue(jobs: int) -> None:
    """Enqueue so many over one connection."""
    with app.producer_pool.acquire() as producer:
        for _ in range(jobs):
            task.apply_async((gate.body(),), producer=producer)


if __name__ == "__main__":
    verb, number = gate.command()
    if verb == "work":
        work()
    else:
        enqueue(number)
