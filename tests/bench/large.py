"""Section: what bodies of a megabyte cost everybody else."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import uvloop

from shared.queue import keys
from tests.bench import contenders, events
from tests.bench.charts import Bars
from tests.bench.draining import redis_server
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, percentile, short, spread, summary
from tests.bench.handlers import LOUD
from tests.bench.programs import INGRESS, WORKER, Gate, Program, environment, wait_until
from tests.bench.progress import Progress
from tests.bench.report import Section
from tests.bench.slowlog import Slowlog
from tests.bench.steady import ORGANIZATION, Receiver, deliveries

NAME: Final = "large"
BODY_BYTES: Final = 1_000_000
NUMBER: Final = 150
CLAIMED: Final = 300
"""Bodies whose claims are timed: the slowest of few would be an accident."""

RATE: Final = 200
"""Deliveries of the quiet organization a second."""

_ALLOWANCE: Final = 0.010

_METHOD: Final = f"""\
{CLAIMED} bodies of a megabyte wait, of one organization, with a handler that does nothing. `claim`
is the script by which one worker takes them, as Redis's slow log has each call of it. Then
another organization gets {RATE} deliveries of 300 bytes a second, timed from their POST to their
202: alone, and from the first claim of {NUMBER} large ones until the last of them is done, twice in
a round. One ingress, one worker with its default settings, a Redis with `appendfsync always`.
Milliseconds; medians, with the lowest and the highest round."""


@dataclass(frozen=True, slots=True)
class _Round:
    """What a round came to, in seconds."""

    claims: list[float]
    alone: list[float]
    beside: list[float]


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure every round on programs of its own."""
    progress.begin(NAME, 3 * effort.rounds)
    rounds: list[_Round] = []
    missing: dict[str, str] = {}
    for number in range(1, effort.rounds + 1):
        try:
            progress.step(f"round {number}: claims")
            claims = _claims()
            progress.step(f"round {number}: alone")
            alone = uvloop.run(_answers(0, effort.probe_seconds / 2))
            progress.step(f"round {number}: beside {NUMBER} large ones")
            passes = [
                uvloop.run(_answers(NUMBER, effort.probe_seconds)) for _ in range(effort.few_rounds)
            ]
        except CannotRunError as exc:
            missing["ours"] = str(exc)
        else:
            rounds.append(_Round(claims, alone, [took for each in passes for took in each]))
    return _section(rounds, missing)


@dataclass(frozen=True, slots=True)
class _Place:
    """A Redis that may hold large events, and the programs beside it."""

    redis: Any
    gate: Gate
    worker: Program
    port: int

    def let_go(self) -> None:
        """Let the worker take them."""
        self.gate.await_ready([self.worker])
        self.gate.open()

    def await_first(self) -> None:
        """Until one of them has been claimed."""
        wait_until(lambda: self._of_loud(keys.RUNNING) > 0, "nothing was claimed")

    def await_last(self) -> None:
        """Until all of them are done."""
        wait_until(lambda: not self._of_loud(keys.WAITING), "not all were handled")

    def _of_loud(self, name: str) -> int:
        return int(self.redis.hget(name, LOUD) or 0)


def _opened(stack: ExitStack, waiting: int) -> _Place:
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="sellfern-bench-")))
    server = stack.enter_context(redis_server("always"))
    if waiting:
        asyncio.run(contenders.fill(server.url, waiting, [LOUD], size=BODY_BYTES))
    gate = Gate(folder)
    endpoints = events.write_endpoints(folder, (ORGANIZATION, LOUD))
    environ = environment(server.url, endpoints, WORKER_HANDLERS="tests.bench.handlers:idle")
    ingress = stack.enter_context(Program.started(INGRESS, environ, folder / "ingress.log"))
    held = {**environ, "BENCH_GATE": str(gate.folder)}
    worker = stack.enter_context(Program.started(WORKER, held, folder / "worker.log"))
    port = int(ingress.logged("ingress_listening")["port"])
    return _Place(contenders.client(server.url), gate, worker, port)


def _claims() -> list[float]:
    """The seconds of each call of ``claim`` that has anything to hand out."""
    with ExitStack() as stack:
        place = _opened(stack, CLAIMED)
        slowlog = Slowlog.begin(place.redis)
        place.let_go()
        place.await_last()
        return [call.seconds for call in slowlog.end() if call.name == "claim"]


async def _answers(waiting: int, seconds: float) -> list[float]:
    """The seconds to the quiet one's answers: while large ones wait, or for so long without any."""
    with ExitStack() as stack:
        place = await asyncio.to_thread(_opened, stack, waiting)
        receiver = stack.enter_context(closing(await Receiver.at(place.port)))
        await asyncio.to_thread(place.gate.await_ready, [place.worker])
        async with deliveries([receiver], RATE):
            await asyncio.sleep(1)  # connections, caches
            place.let_go()
            if waiting:
                await asyncio.to_thread(place.await_first)
            began = perf_counter()
            await (asyncio.to_thread(place.await_last) if waiting else asyncio.sleep(seconds))
            ended = perf_counter()
        return receiver.within([(began, ended)])


def _section(rounds: Sequence[_Round], missing: dict[str, str]) -> Section:
    claims = [each.claims for each in rounds]
    answers = {
        "POST to 202, alone": [each.alone for each in rounds],
        f"POST to 202, beside {NUMBER} large ones": [each.beside for each in rounds],
    }
    rows = {"claim, mean and p99": [_means(claims), _p99(claims)]} if rounds else {}
    rows |= {name: [_p50(times), _p99(times)] for name, times in answers.items() if times}
    return Section(
        name=NAME,
        title="Bodies of a megabyte beside others",
        method=_METHOD,
        columns=("milliseconds", "p50", "p99"),
        rows=[[name, *map(spread, map(Figure.of, of_one))] for name, of_one in rows.items()],
        chart=Bars(
            "Milliseconds (less is better)",
            list(rows),
            {
                share: [Figure.of(of_one[place]).middle for of_one in rows.values()]
                for place, share in enumerate(("p50", "p99"))
            },
        ),
        figures=_figures(claims, *answers.values()) if rounds else {},
        missing=missing,
        notes=[f"{short(sum(map(len, claims)) / len(claims))} claims a round"] if rounds else [],
        raw={
            name: [summary(times) for times in of_one]
            for name, of_one in {"claim": claims, **answers}.items()
        },
    )


def _figures(
    claims: Sequence[list[float]], alone: Sequence[list[float]], beside: Sequence[list[float]]
) -> dict[str, Figure]:
    less = [max(0.0, value - _ALLOWANCE * 1e3) for value in _p99(beside)]
    return {
        "claim mean": Figure.of(_means(claims)),
        "claim p99": Figure.of(_p99(claims)),
        "POST p99 beyond": Figure.ratio(less, _p99(alone)),
        "POST p99 over alone": Figure.ratio(_p99(beside), _p99(alone)),
    }


def _means(rounds: Sequence[list[float]]) -> list[float]:
    return [1e3 * sum(times) / len(times) for times in rounds]


def _p50(rounds: Sequence[list[float]]) -> list[float]:
    return [1e3 * percentile(times, 0.5) for times in rounds]


def _p99(rounds: Sequence[list[float]]) -> list[float]:
    return [1e3 * percentile(times, 0.99) for times in rounds]
