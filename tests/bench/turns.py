"""``python -m tests.bench.turns``: what turns cost, and what they save.

Each row is a queue of its own with real workers; what a row counts is how often handlers were run.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
from redis.asyncio import Redis as AsyncRedis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from shared.queue.job import Delivery
from shared.queue.partition import Partition
from shared.queue.writer import Queue
from shared.redis.durability import Durability, Mode
from tests.bench import events
from tests.bench.contenders import client
from tests.bench.programs import PATIENCE, WORKER, Gate, Program, environment

ORGANIZATION: Final = "org_turns"
RUNS: Final = "bench:runs"
STARTS: Final = "bench:starts"
_BATCH: Final = 250


@dataclass(frozen=True, slots=True)
class Load:
    """Events of one organization, and the workers that handle them.

    Attributes:
        handlers: the registry in `tests.bench.turn_handlers`.
        number: of events.
        orders: how many orders these are about, each in its turn.
        seconds: that a handler takes.
        workers: processes.
        settings: beside the defaults.
        rate: of the organization, as the endpoints file has it; empty: none.
    """

    handlers: str
    number: int
    orders: int
    seconds: float
    workers: int
    settings: dict[str, str] = field(default_factory=dict)
    rate: str = ""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a load came to.

    Attributes:
        runs: of handlers, by event.
        dead: dead letters.
        unfinished: events without an end when the time was over.
        seconds: from the first claim to the last end.
        state: the organization's values.
        counters: of the scripts.
        starts: of handlers, seconds by Redis's clock.
    """

    runs: dict[str, int]
    dead: int
    unfinished: int
    seconds: float
    state: dict[str, Any]
    counters: dict[str, int]
    starts: list[float]

    @property
    def mean(self) -> float:
        """Runs an event."""
        return sum(self.runs.values()) / max(1, len(self.runs))


def deliveries(load: Load) -> Iterator[Delivery]:
    """Events as the ingress hands them to the queue."""
    received_at = round(time.time() * 1000)
    created_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    for number in range(load.number):
        data = {"order_id": f"ord_{number % load.orders}", "number": number}
        body = {
            "id": f"evt_{number}",
            "type": "order.updated",
            "created_at": created_at,
            "organization_id": ORGANIZATION,
            "data": data,
        }
        text = json.dumps(body).encode()
        yield Delivery(ORGANIZATION, ORGANIZATION, received_at, {}, text)


async def fill(url: str, load: Load) -> None:
    """Enqueue them."""
    async with AsyncRedis.from_url(url) as redis:
        queue, batch = Queue(Partition.only(redis), Durability(Mode.MEMORY)), []
        for delivery in deliveries(load):
            batch.append(delivery)
            if len(batch) == _BATCH:
                await queue.enqueue(batch)
                batch = []
        if batch:
            await queue.enqueue(batch)


def run(load: Load, patience: float = PATIENCE, *, kills: int = 0) -> Ran:
    """Handle a load, or as much of it as is handled in time.

    Args:
        load: what there is to do.
        patience: seconds.
        kills: how many workers are killed meanwhile, and others started, at even steps of the work.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="sellfern-bench-")))
        server = stack.enter_context(EmbeddedRedis(appendfsync=None))
        redis = client(server.url)
        asyncio.run(fill(server.url, load))
        rates = {ORGANIZATION: load.rate} if load.rate else {}
        endpoints = events.write_endpoints(folder, (ORGANIZATION,), rates)
        gate = Gate(folder)
        environ = environment(
            server.url,
            endpoints,
            WORKER_HANDLERS=f"tests.bench.turn_handlers:{load.handlers}",
            BENCH_SECONDS=str(load.seconds),
            BENCH_GATE=str(gate.folder),
            **load.settings,
        )
        programs = [
            stack.enter_context(Program.started(WORKER, environ, folder / f"{number}.log"))
            for number in range(load.workers)
        ]
        gate.await_ready(programs)
        gate.open()
        started = time.monotonic()
        # By what is done, not by time: on a slow machine none would live to do anything.
        steps = [load.number * step // (kills + 1) for step in range(1, kills + 1)]
        while (left := redis.zcard(keys.ACCEPTED)) and time.monotonic() < started + patience:
            if steps and left <= steps[-1]:
                programs.pop(0).kill()
                log = folder / f"after-{steps.pop()}.log"
                programs.append(stack.enter_context(Program.started(WORKER, environ, log)))
            for program in programs:
                program.check()
            time.sleep(0.01)
        seconds = time.monotonic() - started
        return _result(redis, seconds)


def _result(redis: Any, seconds: float) -> Ran:
    names = list(redis.scan_iter(keys.state(ORGANIZATION, "*")))
    values = redis.mget(names) if names else []
    return Ran(
        runs={name.decode(): int(many) for name, many in redis.hgetall(RUNS).items()},
        dead=sum(int(many) for many in redis.hgetall(keys.BURIED).values()),
        unfinished=redis.zcard(keys.ACCEPTED),
        seconds=seconds,
        state={
            name.decode().rpartition(":")[2]: json.loads(value)
            for name, value in zip(names, values, strict=True)
        },
        starts=sorted(int(start) / 1e6 for start in redis.lrange(STARTS, 0, -1)),
        counters={name.decode(): int(many) for name, many in redis.hgetall(keys.COUNTERS).items()},
    )


def _said(ran: Ran) -> str:
    most = Counter(ran.runs.values())
    return (
        f"{ran.mean:.2f} runs an event, {max(most, default=0)} at the most; {ran.dead} dead, "
        f"{ran.unfinished} unfinished after {ran.seconds:.1f} s"
    )


def conflicts(handlers: str) -> str:
    """2,000 events read and write one value."""
    load = Load(handlers, 2000, 1, 0.02, 3)
    return _said(run(load, 3 * load.number * load.seconds))


def patient() -> str:
    """400 events, long handlers, few attempts."""
    settings = {"BACKOFF_BASE": "100ms", "MAX_ATTEMPTS": "3"}
    load = Load("unkeyed", 400, 1, 0.2, 3, settings)
    return _said(run(load, 3 * load.number * load.seconds))


def throughput() -> str:
    """10,000 events over 1,000 keys, with and without turns."""
    rates: dict[str, list[float]] = {}
    for handlers in ("free", "ordered", "ordered", "free"):
        ran = run(Load(handlers, 10_000, 1000, 0.02, 8, {"WORKER_CONCURRENCY": "20"}))
        rates.setdefault(handlers, []).append(10_000 / ran.seconds)
    with_turns, without = (fmean(rates[name]) for name in ("ordered", "free"))
    return f"{with_turns:.0f} against {without:.0f} events a second: {with_turns / without:.2f}"


def latest(handlers: str) -> str:
    """1,000 updates of 10 orders, of which the newest matter."""
    ran = run(Load(handlers, 1000, 10, 0.2, 3))
    right = {f"ord_{number}": 990 + number for number in range(10)} == ran.state
    state = "right" if right else "WRONG"
    return f"{sum(ran.runs.values())} runs, the last state {state}; {_said(ran)}"


def in_chaos(number: int) -> Ran:
    """Events of few orders with retries, while one worker after the other is killed."""
    settings = {"LEASE_SECONDS": "1s", "WORKER_CONCURRENCY": "20", "HANDLER_TIMEOUT": "10s"}
    load = Load("failing", number, number // 20, 0.005, 4, settings)
    return run(load, 240, kills=10)


def inversions(ran: Ran) -> int:
    """How often an event was committed behind a later one of its order."""
    return sum(one > other for numbers in ran.state.values() for one, other in pairwise(numbers))


def chaos() -> str:
    """10,000 events: the order of commits by key."""
    ran = in_chaos(10_000)
    committed = sum(map(len, ran.state.values()))
    names = ("overtaken", "undecided", "lease_expired")
    overtaken, undecided, expired = (ran.counters.get(name, 0) for name in names)
    return (
        f"{inversions(ran)} inversions in {committed} commits; {overtaken} overtaken, {undecided} "
        f"left undecided, {expired} leases over; {_said(ran)}"
    )


def rate(orders: int) -> str:
    """A backlog of a minute at 50/s, over eight workers."""
    load = Load("ordered", 3000, orders, 0.005, 8, rate="50/s")
    ran = run(load, 90)
    # What came before everybody knew the rate is no part of it: the first beat tells it.
    first = ran.starts[0] + 1
    starts = [start for start in ran.starts if start >= first]
    most = max(
        sum(start <= other < start + 1 for other in starts[place : place + 200])
        for place, start in enumerate(starts)
    )
    average = (len(starts) - 1) / (starts[-1] - starts[0])
    return f"{average:.1f} starts a second, {most} at the most in one; {_said(ran)}"


ROWS: Final[dict[str, Callable[[], str]]] = {
    "conflicts": lambda: conflicts("unkeyed"),
    "keyed": lambda: conflicts("keyed"),
    "patient": patient,
    "throughput": throughput,
    "latest": lambda: latest("latest"),
    "quiet": lambda: latest("gathered"),
    "chaos": chaos,
    "rate": lambda: rate(3000),
    "rate of one key": lambda: rate(1),
}


@click.command()
@click.argument("rows", nargs=-1, type=click.Choice(list(ROWS)))
def main(rows: tuple[str, ...]) -> None:
    """Measure these rows, or all."""
    for row in rows or ROWS:
        click.echo(f"{row}: {ROWS[row]()}")


if __name__ == "__main__":
    main()
