"""Section: what a distance to Redis costs ours and the peers."""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from redis.asyncio import Redis

from shared.queue.partition import Partition
from tests.bench import contenders, events, ingress_rate
from tests.bench.charts import Lines
from tests.bench.contenders import Contender
from tests.bench.distance import distant
from tests.bench.drain import prepared
from tests.bench.draining import drain, redis_server
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, short
from tests.bench.progress import Progress
from tests.bench.report import Section
from tests.bench.requests_file import RequestsFile
from tests.integration.jobs import reach
from worker.operate import revival
from worker.operate.dead_letters import Selection
from worker.pipeline.transitions import Settlement, Transitions

NAME: Final = "far"
_REPLAYED: Final = 3000
_RATE: Final = 1000.0
_UNBOUNDED: Final = 100_000.0
_DEAD_AT_ONCE: Final = 200
_DAY: Final = 86_400.0
_FROM_START: Final = ", from start to end"
_OURS_100: Final = replace(
    contenders.OURS, name="ours, 100 slots", about="WORKER_CONCURRENCY=100, the default"
)
_OURS: Final = contenders.OURS_1000.name
_BULLMQ: Final = contenders.BULLMQ_1000.name
_INGRESS: Final = "ingress, fsync"
_AT_A_RATE: Final = f"replay --rate {_RATE:.0f}"
_DRAWN: Final = (_OURS, _BULLMQ + _FROM_START)

_METHOD: Final = f"""\
Everybody's Redis is behind the same proxy, which keeps what it is sent for half a round trip in
either direction; the first column is the same detour without a distance. Drains are measured as
those of no-op jobs are; `from start to end` begins when the workers are let go, with the queue
full, and ends with the last job: some peers finish nothing until all that they may run at once has
been fetched, one job a round trip. The ingress waits for the disk of Redis (`appendfsync always`)
with 64 connections. `replay` and `discard` are of {_REPLAYED:,} dead letters, without a bound and
with `--rate {_RATE:.0f}`. Each is visited at every distance in turn. A second, and over the same
without a distance; medians of the rounds."""


@dataclass(frozen=True, slots=True)
class _Line:
    """Something that is measured at every distance.

    Attributes:
        about: the settings that matter.
        names: of its rates, as many as it has.
        take: from a distance in milliseconds to its rates.
    """

    about: str
    names: Sequence[str]
    take: Callable[[float], Sequence[float]]


Runs = dict[tuple[str, float], list[float]]


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure everything at every distance, in rounds."""
    with TemporaryDirectory(prefix="sellfern-bench-") as name:
        drained = _drained()
        missing = prepared({each.name: each for each, _ in drained}, progress)
        lines = [
            _drain_line(each, round(effort.jobs * share))
            for each, share in drained
            if each.name not in missing
        ]
        lines += _other_lines(Path(name), effort.load_seconds)
        runs = _run(lines, effort, progress, missing)
    return _section(lines, runs, missing, effort.round_trips)


def _drained() -> Sequence[tuple[Contender, float]]:
    """Who drains, with the share of the jobs: who is slow at a distance gets fewer."""
    return (
        (_OURS_100, 0.25),
        (contenders.OURS_1000, 1.0),
        (contenders.ARQ, 0.01),
        (contenders.BULLMQ, 0.5),
        (contenders.BULLMQ_1000, 1.0),
    )


def _drain_line(contender: Contender, jobs: int) -> _Line:
    def take(round_trip: float) -> Sequence[float]:
        drained = drain(contender, jobs, 1, round_trip=round_trip)
        return drained.rate, drained.whole

    names = (contender.name, contender.name + _FROM_START)
    return _Line(f"{contender.about}; {jobs:,} jobs", names, take)


def _other_lines(folder: Path, seconds: float) -> Iterable[_Line]:
    requests = RequestsFile.write(
        folder / "requests", math.ceil(seconds + 1) * ingress_rate.FASTEST
    )

    def ingress(round_trip: float) -> Sequence[float]:
        taken = ingress_rate.take(ingress_rate.FSYNC, requests, seconds, round_trip=round_trip)
        return (taken.rate,)

    yield _Line("with 64 connections", (_INGRESS,), ingress)
    for name, rate in (("replay", _UNBOUNDED), (_AT_A_RATE, _RATE), ("discard", 0.0)):
        yield _Line(f"of {_REPLAYED:,} dead letters", (name,), _relieving(folder, rate))


def _relieving(folder: Path, rate: float) -> Callable[[float], Sequence[float]]:
    return lambda round_trip: (asyncio.run(_relieved(round_trip, rate, folder)),)


async def _relieved(round_trip: float, rate: float, folder: Path) -> float:
    """Dead letters a second that are replayed at a rate; discarded where that is none."""
    with redis_server("everysec") as server:
        await _bury(server.url, _REPLAYED)
        with distant(server.port, round_trip, folder) as url:
            async with Redis.from_url(url) as redis:
                began = perf_counter()
                letters = Selection().letters(reach(redis))
                if rate:
                    await revival.Replay(reach(redis), rate).run(letters)
                else:
                    await revival.discard_all(reach(redis), letters, retention=_DAY)
                return _REPLAYED / (perf_counter() - began)


async def _bury(url: str, number: int) -> None:
    await contenders.fill(url, number, events.ORGANIZATIONS)
    said = ("rejected", "as told", "order.updated", "", 0, True, None, "")
    async with Redis.from_url(url) as redis:
        transitions = Transitions(Partition.only(redis))
        for _ in range(0, number, _DEAD_AT_ONCE):
            claimed = await transitions.claim(
                "bench", most=_DEAD_AT_ONCE, lease=60, holding=0, slots=10_000
            )
            await transitions.settle([Settlement(each, "dead", said) for each, _ in claimed.jobs])


def _run(
    lines: Sequence[_Line], effort: Effort, progress: Progress, missing: dict[str, str]
) -> Runs:
    progress.begin(NAME, len(lines) * len(effort.round_trips) * effort.few_rounds)
    runs: Runs = {}
    for round_number in range(1, effort.few_rounds + 1):
        for line in lines:
            for round_trip in effort.round_trips:
                progress.step(f"round {round_number}: {line.names[0]} at {round_trip:g} ms")
                try:
                    rates = line.take(round_trip)
                except CannotRunError as exc:
                    missing[f"{line.names[0]} at {round_trip:g} ms"] = str(exc)
                    continue
                for name, rate in zip(line.names, rates, strict=True):
                    runs.setdefault((name, round_trip), []).append(rate)
    return runs


def _section(
    lines: Sequence[_Line], runs: Runs, missing: Mapping[str, str], round_trips: Sequence[float]
) -> Section:
    names = {name: line.about for line in lines for name in line.names}
    places = [f"{round_trip:g} ms" for round_trip in round_trips]
    shown = [
        name for name in names if all((name, round_trip) in runs for round_trip in round_trips)
    ]
    return Section(
        name=NAME,
        title="Redis at a distance",
        method=_METHOD,
        columns=("a second (over none)", *places, "settings"),
        rows=[[name, *_cells(name, runs, round_trips), about] for name, about in names.items()],
        chart=Lines(
            "A second, by the round trip to Redis (more is better)",
            places,
            {
                name: [Figure.of(runs[name, round_trip]).middle for round_trip in round_trips]
                for name in shown
                if name in _DRAWN
            },
        ),
        figures=_figures(runs),
        missing=missing,
        raw={f"{name}, {round_trip:g} ms": of_one for (name, round_trip), of_one in runs.items()},
    )


def _cells(name: str, runs: Runs, round_trips: Sequence[float]) -> list[str]:
    none = runs.get((name, 0.0))
    cells = []
    for round_trip in round_trips:
        of_one = runs.get((name, round_trip))
        cell = short(Figure.of(of_one).middle) if of_one else "-"
        if of_one and none and round_trip and len(of_one) == len(none):
            cell += f" ({short(Figure.ratio(of_one, none).middle)})"
        cells.append(cell)
    return cells


def _figures(runs: Runs) -> dict[str, Figure]:
    pairs = {
        "drain, 5 ms over none": ((_OURS, 5.0), (_OURS, 0.0)),
        "drain, 20 ms over none": ((_OURS, 20.0), (_OURS, 0.0)),
        "start to end, 20 ms, over BullMQ": (
            (_OURS + _FROM_START, 20.0),
            (_BULLMQ + _FROM_START, 20.0),
        ),
        "steady, 20 ms, over BullMQ": ((_OURS, 20.0), (_BULLMQ, 20.0)),
        "ingress, 20 ms over none": ((_INGRESS, 20.0), (_INGRESS, 0.0)),
    }
    figures = {
        name: Figure.ratio(runs[one], runs[other])
        for name, (one, other) in pairs.items()
        if len(runs.get(one, ())) == len(runs.get(other, ())) > 0
    }
    if replayed := runs.get((_AT_A_RATE, 20.0)):
        figures["replay, 20 ms"] = Figure.of(replayed)
    return figures
