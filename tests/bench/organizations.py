"""Section: what many organizations cost, each with events of its own."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import uvloop

from shared.queue import keys
from tests.bench import contenders, events
from tests.bench.charts import Bars
from tests.bench.contenders import Ours
from tests.bench.draining import drain, redis_server
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, percentile, spread, summary
from tests.bench.handlers import QUIET
from tests.bench.probe import RATE, Place
from tests.bench.programs import PATIENCE, WORKER, Program, environment, wait_until
from tests.bench.progress import Progress
from tests.bench.report import Section
from tests.bench.slowlog import Call, Slowlog, longest

NAME: Final = "organizations"
NUMBERS: Final = (1, 10, 100, 10_000)
_ALLOWANCE: Final = 0.005
_NOTED_FROM: Final = 1000
"""Microseconds."""

_LONG: Final = 0.005
"""Seconds of a call that is told by its name."""

_METHOD: Final = f"""\
Drains of no-op events of so many organizations, one worker. Then {{many:,}} organizations have one
event each waiting, and an ingress and a worker start, whose handler asks for another attempt in an
hour. Once all of them wait for that, one more organization gets {RATE} deliveries a second, timed
from their POST until they are handled, as it is alone. Behind that a second worker joins, and the
endpoints file gives every organization another weight. From the first start until an event has
been handled, and from the second until the change has come to Redis, its slow log has the longest
call of a script, and of any command, those in scripts as well: of the rounds the lowest counts,
since a busy machine only adds to it. Milliseconds, but for the drains, which are events a second;
medians, with the lowest and the highest round."""


@dataclass(frozen=True, slots=True)
class _Crowd:
    """What a round beside many organizations came to.

    Attributes:
        times: seconds from POST to handled of the quiet one.
        calls: of Redis at the starts and at the change that took a millisecond or more.
    """

    times: list[float]
    calls: list[Call]

    @property
    def script(self) -> Call:
        """The longest call of a script."""
        return longest(self.calls, is_script=True)

    @property
    def command(self) -> Call:
        """The longest call of anything else."""
        return longest(self.calls, is_script=False)


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure the drains, and a quiet one beside many."""
    rounds = effort.few_rounds
    progress.begin(NAME, (len(NUMBERS) + 2) * rounds)
    rates: dict[int, list[float]] = {number: [] for number in NUMBERS}
    alone: list[list[float]] = []
    crowds: list[_Crowd] = []
    missing: dict[str, str] = {}
    for round_number in range(1, rounds + 1):
        for number in NUMBERS:
            progress.step(f"round {round_number}: drain, {number:,}")
            ours = Ours("ours", "", organizations=_names(number))
            rates[number].append(drain(ours, effort.jobs, 1).rate)
        seconds = effort.probe_seconds
        try:
            progress.step(f"round {round_number}: alone")
            alone.append(uvloop.run(_alone(seconds)))
            progress.step(f"round {round_number}: beside {effort.organizations:,}")
            crowds.append(uvloop.run(_beside(_names(effort.organizations), seconds)))
        except CannotRunError as exc:
            missing["ours"] = str(exc)
    return _section(effort, rates, alone, crowds, missing)


def _names(number: int) -> tuple[str, ...]:
    return tuple(f"org_{each:016x}" for each in range(1, number + 1))


async def _alone(seconds: float) -> list[float]:
    with TemporaryDirectory(prefix="sellfern-bench-") as folder, redis_server("always") as server:
        handlers = {"WORKER_HANDLERS": "tests.bench.handlers:idle"}
        async with Place.opened(server.url, Path(folder), (QUIET,), **handlers) as place:
            return (await place.probe(QUIET, seconds)).handled


async def _beside(many: tuple[str, ...], seconds: float) -> _Crowd:
    with TemporaryDirectory(prefix="sellfern-bench-") as name, redis_server("always") as server:
        folder = Path(name)
        await contenders.fill(server.url, len(many), many)
        redis = contenders.client(server.url)
        slowlog = Slowlog.begin(redis, microseconds=_NOTED_FROM)
        handlers = {"WORKER_HANDLERS": "tests.bench.handlers:postponing"}
        everybody = (*many, QUIET)
        async with Place.opened(server.url, folder, everybody, **handlers) as place:
            await _until(lambda: _postponed(redis) > 0)
            calls = slowlog.end()
            await _until(lambda: _postponed(redis) == len(many))
            times = (await place.probe(QUIET, seconds)).handled
            environ = environment(server.url, folder / "endpoints.toml", **handlers)
            slowlog = Slowlog.begin(redis, microseconds=_NOTED_FROM)
            with Program.started(WORKER, environ, folder / "second.log") as second:
                second.logged("worker_started")
                wait_until(lambda: int(redis.hlen(keys.WORKERS)) == 2, "no second worker")
                _change(redis, folder, everybody)
            return _Crowd(times, calls + slowlog.end())


async def _until(holds: Callable[[], bool]) -> None:
    """Wait for what is postponed, with the loop free to read the worker's log."""
    await asyncio.to_thread(wait_until, holds, "not all were postponed", 3 * PATIENCE)


def _postponed(redis: Any) -> int:
    """How many events wait for another attempt."""
    return int(redis.zcount(keys.QUEUE, keys.DEFERRED_FROM, "+inf"))


def _change(redis: Any, folder: Path, everybody: tuple[str, ...]) -> None:
    """Give everybody another weight, and wait until Redis has been told of the last."""
    last = everybody[-1]
    before = redis.hget(keys.ORGANIZATIONS, last)
    events.write_endpoints(folder, everybody, each="weight = 2.0\n")
    wait_until(
        lambda: bool(redis.hget(keys.ORGANIZATIONS, last) != before), "the change was not taken"
    )


def _section(
    effort: Effort,
    rates: dict[int, list[float]],
    alone: list[list[float]],
    crowds: list[_Crowd],
    missing: dict[str, str],
) -> Section:
    many = f"{effort.organizations:,}"
    figures = {f"drain, {number:,}": Figure.of(of_one) for number, of_one in rates.items()}
    rows = [[name, spread(figure)] for name, figure in figures.items()]
    notes = []
    if crowds:
        p99 = [
            [percentile(times, 0.99) * 1e3 for times in rounds]
            for rounds in (alone, [crowd.times for crowd in crowds])
        ]
        scripts = _least([crowd.script.seconds * 1e3 for crowd in crowds])
        commands = _least([crowd.command.seconds * 1e3 for crowd in crowds])
        rows += [
            ["a quiet one's p99, alone", spread(Figure.of(p99[0]))],
            [f"a quiet one's p99, beside {many}", spread(Figure.of(p99[1]))],
            [f"the longest script, beside {many}", spread(scripts)],
            [f"the longest other command, beside {many}", spread(commands)],
        ]
        figures |= {
            "longest script": scripts,
            "longest command": commands,
            "p99 over alone": Figure.ratio(p99[1], p99[0]),
            "p99 beyond": Figure.ratio(
                [max(0.0, value - _ALLOWANCE * 1e3) for value in p99[1]], p99[0]
            ),
        }
        notes = [_long(crowd.calls) for crowd in crowds]
    return Section(
        name=NAME,
        title="Many organizations",
        method=_METHOD.format(many=effort.organizations),
        columns=("", "measured"),
        rows=rows,
        chart=Bars(
            "Events a second by the number of organizations (more is better)",
            [f"{number:,}" for number in NUMBERS],
            {"": [Figure.of(rates[number]).middle for number in NUMBERS]},
        ),
        figures=figures,
        missing=missing,
        notes=notes,
        raw={
            "drain": {str(number): of_one for number, of_one in rates.items()},
            "alone": [summary(times) for times in alone],
            "beside": [
                {
                    "seconds": summary(crowd.times),
                    "script": asdict(crowd.script),
                    "command": asdict(crowd.command),
                }
                for crowd in crowds
            ],
        },
    )


def _least(milliseconds: list[float]) -> Figure:
    """The lowest round: a script that is long is so in each, and a busy machine only adds to it."""
    return Figure(min(milliseconds), min(milliseconds), max(milliseconds))


def _long(calls: list[Call]) -> str:
    """Which scripts took long, and how often: many of one do so by themselves."""
    often = Counter(call.name for call in calls if call.is_script and call.seconds > _LONG)
    named = ", ".join(f"{name} {number}" for name, number in often.most_common())
    return f"scripts of more than {_LONG * 1e3:g} ms: {named or 'none'}"
