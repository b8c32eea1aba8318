"""Section: what an event costs in Redis: bytes while it waits, bytes of its mark, CPU time."""

import asyncio
import os
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from shared.queue import keys
from tests.bench import contenders, events
from tests.bench.charts import Bars
from tests.bench.contenders import OURS
from tests.bench.draining import redis_cpu, redis_server
from tests.bench.effort import Effort
from tests.bench.figures import Figure, short, spread
from tests.bench.programs import Program, wait_until
from tests.bench.progress import Progress
from tests.bench.report import Section

NAME: Final = "cost"
_WARM: Final = 500
_SETTLING: Final = 0.3

_METHOD: Final = """\
{counted:,} events of 300 bytes, of ten organizations, are enqueued in batches of 256 while no
worker runs, then drained by one worker. Bytes are what Redis's `used_memory` grew by, without the
buffers of clients and of the append-only file, a waiting event; and what was left a finished one.
Processor time is that of Redis's main thread (`appendfsync everysec`)."""

_NAMES: Final = {
    "waiting": "bytes a waiting event",
    "done": "bytes a done mark",
    "accepting": "Redis CPU µs to accept one",
    "handling": "Redis CPU µs to handle one",
}


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure the same in every round."""
    progress.begin(NAME, effort.rounds)
    rounds: list[dict[str, float]] = []
    for round_number in range(1, effort.rounds + 1):
        progress.step(f"round {round_number}")
        rounds.append(_count(effort.counted))
    figures = {name: Figure.of([of_one[name] for of_one in rounds]) for name in _NAMES}
    return Section(
        name=NAME,
        title="What an event costs in Redis",
        method=_METHOD.format(counted=effort.counted),
        columns=("", "measured"),
        rows=[[what, spread(figures[name])] for name, what in _NAMES.items()],
        chart=Bars(
            "Bytes and microseconds an event (less is better)",
            list(_NAMES.values()),
            {"": [figures[name].middle for name in _NAMES]},
        ),
        figures=figures,
        notes=[f"a body of 300 bytes is {short(100 * 300 / figures['waiting'].middle)} % of it"],
        raw=rounds,
    )


def _count(number: int) -> dict[str, float]:
    with (
        TemporaryDirectory(prefix="sellfern-bench-") as folder,
        redis_server("everysec") as server,
    ):
        redis = contenders.client(server.url)
        _enqueue(server.url, _WARM, "1")
        _drain(server.url, redis, Path(folder))
        empty, before = _bytes(redis), redis_cpu(redis)
        _enqueue(server.url, number, "2")
        waiting, between = _bytes(redis), redis_cpu(redis)
        _drain(server.url, redis, Path(folder))
        done, after = _bytes(redis), redis_cpu(redis)
    return {
        "waiting": (waiting - empty) / number,
        "done": (done - empty) / number,
        "accepting": (between - before) / number * 1e6,
        "handling": (after - between) / number * 1e6,
    }


def _enqueue(url: str, number: int, kind: str) -> None:
    asyncio.run(contenders.fill(url, number, events.ORGANIZATIONS, kind))


def _drain(url: str, redis: Any, folder: Path) -> None:
    """Run one worker until everything is handled, and stop it as an operator would."""
    command = OURS.command(url, folder)
    with Program.started(command.words, command.environ, folder / "worker.log") as worker:
        wait_until(lambda: not redis.zcard(keys.ACCEPTED), "not everything was handled")
        os.kill(worker.pid, signal.SIGTERM)
        worker.logged("worker_stopped")


def _bytes(redis: Any) -> int:
    """Memory that holds data, once no hash table is being resized any more."""
    previous, now = -1, _data_bytes(redis)
    while now != previous:
        time.sleep(_SETTLING)
        previous, now = now, _data_bytes(redis)
    return now


def _data_bytes(redis: Any) -> int:
    memory = redis.info("memory")
    buffers = ("mem_clients_normal", "mem_aof_buffer")
    return int(memory["used_memory"]) - sum(int(memory[name]) for name in buffers)
