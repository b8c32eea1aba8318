"""Section: how many deliveries a second one ingress accepts, and how long each waits."""

import json
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.bench import contenders, events
from tests.bench.charts import Bars
from tests.bench.distance import distant
from tests.bench.draining import redis_cpu, redis_server
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, percentile, short, spread
from tests.bench.load import CONNECTIONS, Load, put_load, tool
from tests.bench.programs import INGRESS, Program, environment, wait_until
from tests.bench.progress import Progress
from tests.bench.report import Section
from tests.bench.requests_file import RequestsFile

NAME: Final = "ingress"
_WARM_SECONDS: Final = 0.5
FASTEST: Final = 50_000
"""Deliveries a second that no contender exceeds: so many are made ready."""

_METHOD: Final = f"""\
One process each, {CONNECTIONS} connections, each with one delivery of 300 bytes after the other,
sent by {{tool}} on the same machine. Everything runs on uvloop. `bare` is an aiohttp application
that answers 202 without reading; `verifying` also reads and verifies the signature, as any
receiver must; `ours, storing nothing` is our ingress with a queue that is not there. CPU is that
of the receiving process. Medians, with the lowest and the highest round."""


@dataclass(frozen=True, slots=True)
class Ingress:
    """Something that takes deliveries in.

    Attributes:
        name: what it is called in the table.
        about: what it waits for.
        command: its process.
        appendfsync: of its Redis; ``None`` keeps nothing on disk.
        durability: what ``DURABILITY`` says, for ours.
        stores: whether accepted events have to be in our queue afterwards.
    """

    name: str
    about: str
    command: Sequence[str]
    appendfsync: str | None = None
    durability: str = "memory"
    stores: bool = False


def _app(kind: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.bench.apps", kind)


BARE: Final = Ingress("bare aiohttp", "nothing", _app("bare"))
VERIFYING: Final = Ingress("aiohttp, verifying", "body and signature", _app("verifying"))
NOWHERE: Final = Ingress("ours, storing nothing", "body and signature", _app("ours"))
FSYNC: Final = Ingress(
    "ours, fsync", "the disk of Redis (appendfsync always)", INGRESS, "always", "fsync", stores=True
)
REPLICA: Final = Ingress(
    "ours, replica", "the memory of one replica", INGRESS, "everysec", "replica", stores=True
)
MEMORY: Final = Ingress("ours, memory", "the memory of Redis", INGRESS, None, "memory", stores=True)
WITH_ARQ: Final = Ingress(
    "aiohttp, verifying, enqueue_job",
    "arq 0.28's enqueue_job (appendfsync everysec)",
    _app("arq"),
    "everysec",
)
_ALL: Final = (BARE, NOWHERE, VERIFYING, FSYNC, WITH_ARQ, REPLICA, MEMORY)
_ARQ_ALONE: Final = "arq's enqueue_job alone"


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a load on an ingress.

    Attributes:
        rate: accepted a second.
        p50: seconds to the answer.
        p99: the same.
        cpu: seconds of the ingress's processor time a request.
        redis_cpu: the same of Redis.
    """

    rate: float
    p50: float
    p99: float
    cpu: float = 0.0
    redis_cpu: float = 0.0


Runs = dict[str, list[Taken]]


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure each."""
    progress.begin(NAME, (len(_ALL) + 1) * effort.rounds)
    missing: dict[str, str] = {}
    runs: Runs = {}
    with TemporaryDirectory(prefix="sellfern-bench-") as folder:
        number = math.ceil(effort.load_seconds + 1) * FASTEST
        requests = RequestsFile.write(Path(folder, "requests"), number)
        for round_number in range(1, effort.rounds + 1):
            for ingress in _ALL:
                progress.step(f"round {round_number}: {ingress.name}")
                _try(ingress, requests, effort.load_seconds, runs, missing)
                if ingress is FSYNC:  # its peer comes next: both see the same machine
                    progress.step(f"round {round_number}: {_ARQ_ALONE}")
                    _try_arq(effort, runs, missing)
    return _section(runs, missing)


def _try(
    ingress: Ingress,
    requests: RequestsFile,
    seconds: float,
    runs: Runs,
    missing: dict[str, str],
) -> None:
    if ingress.name in missing:
        return
    try:
        taken = take(ingress, requests, seconds)
    except CannotRunError as exc:
        missing[ingress.name] = str(exc)
    else:
        runs.setdefault(ingress.name, []).append(taken)


def take(
    ingress: Ingress,
    requests: RequestsFile,
    seconds: float,
    *,
    round_trip: float | None = None,
    connections: int = CONNECTIONS,
    each_once: bool = False,
) -> Taken:
    """Put load on an ingress with a Redis of its own.

    Args:
        ingress: which.
        requests: what is sent.
        seconds: for how long.
        round_trip: milliseconds from it to Redis, by a proxy; ``None``: without one.
        connections: how many at once.
        each_once: whether the end of what is sent ends it, too, and the first of each connection is
            all the warming up.

    Raises:
        CannotRunError: it doesn't come up, or accepts nothing, or doesn't store what it accepts.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="sellfern-bench-")))
        server = stack.enter_context(redis_server(ingress.appendfsync))
        if ingress.durability == "replica":
            _add_replica(stack, server)
        redis = contenders.client(server.url)
        endpoints = events.write_endpoints(folder)
        url = server.url
        if round_trip is not None:
            url = stack.enter_context(distant(server.port, round_trip, folder))
        environ = environment(url, endpoints, DURABILITY=ingress.durability)
        program = stack.enter_context(
            Program.started(ingress.command, environ, folder / "ingress.log")
        )
        port = int(program.logged("ingress_listening")["port"])
        put = partial(put_load, port, requests, connections=connections, each_once=each_once)
        warm = put(first=0, seconds=0 if each_once else _WARM_SECONDS)
        before = program.cpu_seconds(), redis_cpu(redis)
        load = put(first=warm.answered + connections, seconds=seconds)
        after = program.cpu_seconds(), redis_cpu(redis)
        if ingress.stores:
            _check_stored(redis, warm, load)
        cpu, of_redis = (
            (late - early) / load.answered for early, late in zip(before, after, strict=True)
        )
        return Taken(load.rate, load.p50, load.p99, cpu, of_redis)


def _add_replica(stack: ExitStack, server: EmbeddedRedis) -> None:
    stack.enter_context(EmbeddedRedis(appendfsync=None, replicaof=("127.0.0.1", server.port)))
    redis = contenders.client(server.url)

    def in_sync() -> bool:
        return bool(redis.info("replication").get("slave0", {}).get("state") == "online")

    wait_until(in_sync, "the replica is not in sync")


def _check_stored(redis: Any, *loads: Load) -> None:
    accepted = sum(load.answered - load.refused for load in loads)
    stored = int(redis.zcard(keys.ACCEPTED))
    if stored < accepted:
        raise CannotRunError(f"{accepted} were accepted, but only {stored} are stored")


def _try_arq(effort: Effort, runs: Runs, missing: dict[str, str]) -> None:
    """How fast arq enqueues where no HTTP stands before it."""
    if _ARQ_ALONE in missing:
        return
    peer = contenders.ARQ
    jobs = round(effort.load_seconds * 2000)
    try:
        with redis_server("everysec") as server:
            redis = contenders.client(server.url)
            before = redis_cpu(redis)
            found = json.loads(
                contenders.run(peer.words("enqueue", jobs), peer.environ(server.url))
            )
            cpu = (redis_cpu(redis) - before) / jobs
    except CannotRunError as exc:
        missing[_ARQ_ALONE] = str(exc)
        return
    p50, p99 = (percentile(found["each"], share) for share in (0.5, 0.99))
    runs.setdefault(_ARQ_ALONE, []).append(
        Taken(jobs / found["seconds"], p50, p99, found["cpu"] / jobs, cpu)
    )


_ABOUT: Final = {ingress.name: ingress.about for ingress in _ALL} | {
    _ARQ_ALONE: "64 at once, no HTTP (appendfsync everysec)"
}


def _section(runs: Runs, missing: dict[str, str]) -> Section:
    return Section(
        name=NAME,
        title="Ingress rate",
        method=_METHOD.format(tool=tool()),
        columns=("", "a second", "p50 ms", "p99 ms", "CPU µs", "Redis CPU µs", "waits for"),
        rows=[_row(name, of_one) for name, of_one in runs.items()],
        chart=Bars(
            "Deliveries accepted a second (more is better)",
            list(runs),
            {"": [Figure.of([run.rate for run in of_one]).middle for of_one in runs.values()]},
        ),
        figures=_figures(runs),
        missing=missing,
        raw={
            name: [[run.rate, run.p50, run.p99, run.cpu, run.redis_cpu] for run in of_one]
            for name, of_one in runs.items()
        },
    )


def _row(name: str, of_one: Sequence[Taken]) -> list[str]:
    middles = (
        Figure.of([value * scale for value in values]).middle
        for values, scale in (
            ([run.p50 for run in of_one], 1e3),
            ([run.p99 for run in of_one], 1e3),
            ([run.cpu for run in of_one], 1e6),
            ([run.redis_cpu for run in of_one], 1e6),
        )
    )
    rate = spread(Figure.of([run.rate for run in of_one]))
    return [name, rate, *map(short, middles), _ABOUT[name]]


def _figures(runs: Runs) -> dict[str, Figure]:
    pairs = {
        "over verifying": VERIFYING.name,
        "over storing nothing": NOWHERE.name,
        "over arq": _ARQ_ALONE,
        "over aiohttp with arq": WITH_ARQ.name,
    }
    ours = [run.rate for run in runs.get(FSYNC.name, [])]
    return {
        name: Figure.ratio(ours, [run.rate for run in runs[other]])
        for name, other in pairs.items()
        if len(runs.get(other, ())) == len(ours) > 0
    }
