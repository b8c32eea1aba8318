"""dramatiq: its worker with as many threads as its command starts, and its producer."""

import threading

# It is in an environment of its own, which the type checker doesn't see.
import dramatiq  # type: ignore[import-not-found]
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found]

from tests.bench.peers import gate

_THREADS = 8

broker = RedisBroker(url=gate.redis_url())
dramatiq.set_broker(broker)


def noop(body: str) -> None:
    """Do nothing."""


actor = dramatiq.actor(noop)


def work() -> None:
    """Run one worker until it is killed."""
    worker = dramatiq.Worker(broker, worker_threads=_THREADS)
    gate.wait()
    worker.start()
    threading.Event().wait()


def enqueue(jobs: int) -> None:
    """Enqueue so many."""
    for _ in range(jobs):
        actor.send(gate.body())


if __name__ == "__main__":
    verb, number = gate.command()
    if verb == "work":
        work()
    else:
        enqueue(number)
