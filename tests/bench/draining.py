"""One drain: a full queue, some worker processes, and the time until it is empty."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from deploy.local.embedded_redis import EmbeddedRedis
from tests.bench.contenders import Contender, client
from tests.bench.distance import distant
from tests.bench.environments import CannotRunError
from tests.bench.programs import PATIENCE, Gate, Program

_LOOK: Final = 0.01
_WARM: Final = 0.05
"""The share of the jobs after which the clock starts: connections are open by then, and so on."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain took.

    Attributes:
        rate: jobs a second.
        cpu: seconds of the worker processes' own processor time a job; 0 where unknown.
        redis_cpu: the same of Redis's main thread.
        whole: jobs a second from the moment when the workers were let go until all is done.
    """

    rate: float
    cpu: float
    redis_cpu: float
    whole: float


def drain(
    contender: Contender, jobs: int, processes: int, *, round_trip: float | None = None
) -> Drained:
    """Drain a queue of so many jobs in a Redis of its own.

    Args:
        contender: whose.
        jobs: how many.
        processes: that drain it.
        round_trip: milliseconds from the workers to Redis, by a proxy; ``None``: without one.

    Raises:
        CannotRunError: a process ended, or nothing happened for long.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="sellfern-bench-")))
        server = stack.enter_context(redis_server(contender.appendfsync))
        redis = client(server.url)
        contender.fill(server.url, jobs)
        if contender.unfinished(redis) != jobs:
            raise CannotRunError(f"{contender.unfinished(redis)} of {jobs} jobs are in the queue")
        contender.accompany(stack, server.url, folder)
        gate = Gate(folder)
        url = server.url
        if round_trip is not None:
            url = stack.enter_context(distant(server.port, round_trip, folder))
        command = contender.command(url, folder)
        environ = {**command.environ, "BENCH_GATE": str(gate.folder)}
        programs = [
            stack.enter_context(Program.started(command.words, environ, folder / f"{number}.log"))
            for number in range(processes)
        ]
        gate.await_ready(programs)
        before = _cpu(programs), redis_cpu(redis)
        gate.open()
        began = time.perf_counter()
        rate = _watch(contender, redis, jobs, programs)
        whole = jobs / (time.perf_counter() - began)
        after = _cpu(programs), redis_cpu(redis)
        cpu, of_redis = ((late - early) / jobs for early, late in zip(before, after, strict=True))
        return Drained(rate, cpu, of_redis, whole)


def _watch(contender: Contender, redis: Any, jobs: int, programs: list[Program]) -> float:
    """Wait until everything is done; jobs a second since the first ones were."""
    started, left = 0.0, jobs
    deadline = time.monotonic() + PATIENCE
    while unfinished := contender.unfinished(redis):
        now = time.perf_counter()
        if not started and unfinished <= jobs * (1 - _WARM):
            started, left = now, unfinished
        for program in programs:
            program.check()
        if time.monotonic() > deadline:
            raise CannotRunError(f"{unfinished} of {jobs} jobs left after {PATIENCE:g} s")
        time.sleep(_LOOK)
    if not started:
        raise CannotRunError(f"{jobs} jobs are too few: all were done at the first look")
    return left / (time.perf_counter() - started)


def _cpu(programs: list[Program]) -> float:
    return sum(program.cpu_seconds() for program in programs)


def redis_server(appendfsync: str | None) -> EmbeddedRedis:
    """A fresh Redis that doesn't rewrite its append-only file in the middle of a measurement."""
    return EmbeddedRedis(appendfsync=appendfsync, arguments={"auto-aof-rewrite-percentage": "0"})


def redis_cpu(redis: Any) -> float:
    """The processor time that Redis's main thread has used, in seconds."""
    info = redis.info("cpu")
    return float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])
