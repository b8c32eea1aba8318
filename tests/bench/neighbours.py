"""Section: how long one organization's events take beside another that makes trouble."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import uvloop

from shared.queue import keys
from tests.bench import contenders, events
from tests.bench.charts import Bars
from tests.bench.draining import redis_server
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, percentile, short, spread, summary
from tests.bench.handlers import LOUD, QUIET
from tests.bench.probe import RATE, Place
from tests.bench.progress import Progress
from tests.bench.report import Section

NAME: Final = "neighbours"
_SECONDS_OF_PROBE: Final = 0.6  # of the effort's: the other's backlog must last longer
_HANGING_WAIT: Final = 5_000
_ALLOWANCE: Final = 0.020
_SHARES: Final = {"p50": 0.5, "p99": 0.99}

_METHOD: Final = f"""\
The quiet organization gets {RATE} deliveries a second, timed as under latency, from their POST
until they are handled. Once alone; once while another organization has so many events waiting, with
a handler that does nothing; once while every handler of the other's hangs until its time-out of
2 seconds and comes back for the next attempt; once while the other has a rate of 5/s, and once
while its own system has asked for an hour's rest. One ingress, one worker with its default
settings, a Redis with `appendfsync always`. Milliseconds; medians, with the lowest and the highest
round."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What the other organization does.

    Attributes:
        name: in the table.
        handlers: the worker's registry.
        waiting: how many of its events wait at the start.
        rate: of the other organization, as the endpoints file has it; empty: none.
    """

    name: str
    handlers: str
    waiting: int
    rate: str = ""


@dataclass(frozen=True, slots=True)
class Noted:
    """One round of a situation: the quiet organization's times, and what was left of the other."""

    times: list[float]
    left: int


def _situations(effort: Effort) -> tuple[Situation, ...]:
    idle = "tests.bench.handlers:idle"
    return (
        Situation("alone", idle, 0),
        Situation(f"beside {effort.waiting:,} waiting events", idle, effort.waiting),
        Situation("beside hanging handlers", "tests.bench.handlers:hanging", _HANGING_WAIT),
        Situation(f"beside {effort.waiting:,} over their rate", idle, effort.waiting, "5/s"),
        Situation(
            f"beside {effort.waiting:,} that are held",
            "tests.bench.handlers:throttled",
            effort.waiting,
        ),
    )


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure each situation in turn."""
    situations = _situations(effort)
    progress.begin(NAME, len(situations) * effort.rounds)
    rounds: dict[str, list[Noted]] = {situation.name: [] for situation in situations}
    missing: dict[str, str] = {}
    for round_number in range(1, effort.rounds + 1):
        for situation in situations:
            progress.step(f"round {round_number}: {situation.name}")
            try:
                noted = uvloop.run(_note(situation, effort.probe_seconds * _SECONDS_OF_PROBE))
            except CannotRunError as exc:
                missing[f"ours, {situation.name}"] = str(exc)
            else:
                rounds[situation.name].append(noted)
    return _section(situations, rounds, missing)


async def _note(situation: Situation, seconds: float) -> Noted:
    with (
        TemporaryDirectory(prefix="sellfern-bench-") as folder,
        redis_server("always") as server,
    ):
        redis = contenders.client(server.url)
        if situation.waiting:
            await contenders.fill(server.url, situation.waiting, [LOUD])
        both = (QUIET, LOUD)
        rates = {LOUD: situation.rate} if situation.rate else {}
        changes = {
            "WORKER_HANDLERS": situation.handlers,
            "HANDLER_TIMEOUT": "2s",
            "ENDPOINTS_FILE": str(_endpoints(folder, both, rates)),
        }
        async with Place.opened(server.url, Path(folder), both, **changes) as place:
            if situation.waiting:
                await _is_busy(redis)
            probed = await place.probe(QUIET, seconds)
            return Noted(probed.handled, int(redis.hget(keys.WAITING, LOUD) or 0))


def _endpoints(folder: str, both: tuple[str, str], rates: dict[str, str]) -> Path:
    """Apart from those that the programs are started with otherwise."""
    apart = Path(folder, "rates")
    apart.mkdir()
    return events.write_endpoints(apart, both, rates)


async def _is_busy(redis: Any) -> None:
    """Wait until the worker has taken the other's events up."""
    async with asyncio.timeout(30):
        while not redis.hget(keys.RUNNING, LOUD) and not redis.exists(keys.parked(LOUD)):
            await asyncio.sleep(0.01)


def _section(
    situations: tuple[Situation, ...],
    rounds: dict[str, list[Noted]],
    missing: dict[str, str],
) -> Section:
    found = {
        name: {
            share: Figure.of([percentile(noted.times, part) * 1e3 for noted in of_one])
            for share, part in _SHARES.items()
        }
        for name, of_one in rounds.items()
        if of_one
    }
    over = {name: short(of_one["p99"].middle) for name, of_one in found.items()}
    return Section(
        name=NAME,
        title="A quiet organization beside a loud one",
        method=_METHOD,
        columns=("milliseconds", *_SHARES, "left of the other's at the end"),
        rows=[
            [name, *map(spread, of_one.values()), f"{min(n.left for n in rounds[name]):,}"]
            for name, of_one in found.items()
        ],
        chart=Bars(
            "Milliseconds from POST to handled (less is better)",
            list(over),
            {share: [of_one[share].middle for of_one in found.values()] for share in _SHARES},
        ),
        figures=_figures([situation.name for situation in situations], rounds),
        missing=missing,
        notes=_notes(situations, rounds),
        raw={
            name: [{"left": noted.left, "seconds": summary(noted.times)} for noted in of_one]
            for name, of_one in rounds.items()
        },
    )


def _figures(names: list[str], rounds: dict[str, list[Noted]]) -> dict[str, Figure]:
    p99 = {name: [percentile(noted.times, 0.99) for noted in rounds[name]] for name in names}
    alone, *others = (p99[name] for name in names)
    figures = {"alone p99": _milliseconds(alone)} if alone else {}
    for kind, other in zip(("backlog", "hanging", "rate", "held"), others, strict=True):
        if len(other) == len(alone) > 0:
            figures[f"{kind} p99"] = _milliseconds(other)
            figures[f"{kind} over alone"] = Figure.ratio(other, alone)
            less = [max(0.0, value - _ALLOWANCE) for value in other]
            figures[f"{kind} beyond"] = Figure.ratio(less, alone)
    return figures


def _milliseconds(seconds: list[float]) -> Figure:
    return Figure.of([value * 1e3 for value in seconds])


def _notes(situations: tuple[Situation, ...], rounds: dict[str, list[Noted]]) -> list[str]:
    """Say so where the other's trouble was over before the end."""
    return [
        f"{situation.name}: nothing of the other's was left at the end of a round"
        for situation in situations
        if situation.waiting and any(not noted.left for noted in rounds[situation.name])
    ]
