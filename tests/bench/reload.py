"""Section: deliveries to an ingress that reads ten thousand endpoints anew, beside a calm one."""

import asyncio
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import uvloop

from tests.bench import events
from tests.bench.charts import Bars
from tests.bench.draining import redis_server
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, percentile, spread, summary
from tests.bench.programs import INGRESS, Program, environment, wait_until
from tests.bench.progress import Progress
from tests.bench.report import Section
from tests.bench.steady import ORGANIZATION, Receiver, deliveries

NAME: Final = "reload"
ENDPOINTS: Final = 10_000
RATE: Final = 100
"""Deliveries a second to each ingress."""

_METHOD: Final = f"""\
Two ingresses with {ENDPOINTS:,} endpoints each, on one Redis with `appendfsync always`, {RATE}
deliveries a second to each, at the same moments. The endpoints file of one is written anew, every
secret but one changed, as soon as the last change is in force; that of the other stays. Counted are
the deliveries while a change is under way, to both. Milliseconds until the answer; medians, with
the lowest and the highest round."""


@dataclass(frozen=True, slots=True)
class _Ingress:
    """A process, and the files by which it is driven and seen."""

    program: Program
    log: Path
    endpoints: Path

    async def connect(self) -> Receiver:
        """Open connections."""
        return await Receiver.at(int(self.program.logged("ingress_listening")["port"]))

    def await_reload(self, times: int) -> None:
        """Wait until it has taken so many changes."""
        line = b'"event":"endpoints_reloaded"'
        wait_until(
            lambda: self.log.read_bytes().count(line) >= times, f"change {times} was not taken"
        )


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure every round on programs of its own; the two change places each time."""
    progress.begin(NAME, effort.rounds)
    rounds: list[tuple[list[float], list[float]]] = []
    missing: dict[str, str] = {}
    for number in range(1, effort.rounds + 1):
        progress.step(f"round {number}")
        try:
            rounds.append(uvloop.run(_side_by_side(effort.probe_seconds, swapped=number % 2 == 0)))
        except CannotRunError as exc:
            missing["ours"] = str(exc)
    return _section(rounds, missing)


async def _side_by_side(seconds: float, *, swapped: bool) -> tuple[list[float], list[float]]:
    """The answers' times of the calm one and of the other, while changes were under way."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="sellfern-bench-")))
        server = stack.enter_context(redis_server("always"))
        pair = [_start(stack, server.url, folder / name) for name in "ab"]
        receivers = [stack.enter_context(closing(await each.connect())) for each in pair]
        place = 0 if swapped else 1
        async with deliveries(receivers, RATE):
            await asyncio.sleep(1)
            windows = await _change(pair[place], seconds)
        return receivers[1 - place].within(windows), receivers[place].within(windows)


def _start(stack: ExitStack, redis_url: str, folder: Path) -> _Ingress:
    folder.mkdir()
    endpoints = folder / "endpoints.toml"
    _write(endpoints, 0)
    log = folder / "ingress.log"
    environ = environment(redis_url, endpoints)
    return _Ingress(stack.enter_context(Program.started(INGRESS, environ, log)), log, endpoints)


def _write(path: Path, version: int) -> None:
    tables = "".join(
        f'[[endpoint]]\nid = "e{number}"\norganization_id = "org_{number}"\n'
        f'secrets = ["whsec_{version:08}_{number:016}"]\nweight = 2.0\n\n'
        for number in range(ENDPOINTS - 1)
    )
    draft = path.with_name("draft")
    events.write_endpoints(path.parent, [ORGANIZATION]).rename(draft)
    draft.write_text(draft.read_text() + tables)
    draft.rename(path)


async def _change(ingress: _Ingress, seconds: float) -> list[tuple[float, float]]:
    """Change the file again and again; gives when each change began and was in force."""
    windows: list[tuple[float, float]] = []
    end = perf_counter() + seconds
    while perf_counter() < end:
        taken = len(windows) + 1
        await asyncio.to_thread(_write, ingress.endpoints, taken)
        started = perf_counter()
        await asyncio.to_thread(ingress.await_reload, taken)
        windows.append((started, perf_counter()))
    return windows


def _section(rounds: list[tuple[list[float], list[float]]], missing: dict[str, str]) -> Section:
    shares = {"p50": 0.5, "p99": 0.99}
    kinds = {"calm": [calm for calm, _ in rounds], "reading anew": [busy for _, busy in rounds]}
    found = {
        kind: {
            name: [percentile(times, share) * 1e3 for times in of_rounds]
            for name, share in shares.items()
        }
        for kind, of_rounds in kinds.items()
        if of_rounds
    }
    figures = {}
    if found:
        ratio = Figure.ratio(found["reading anew"]["p99"], found["calm"]["p99"])
        figures["p99 over calm"] = ratio
    middles = {
        kind: {name: Figure.of(values) for name, values in of_kind.items()}
        for kind, of_kind in found.items()
    }
    return Section(
        name=NAME,
        title="Deliveries while ten thousand endpoints are read anew",
        method=_METHOD,
        columns=("milliseconds", *shares),
        rows=[[kind, *map(spread, of_kind.values())] for kind, of_kind in middles.items()],
        chart=Bars(
            f"Milliseconds at {RATE} deliveries a second (less is better)",
            list(middles),
            {name: [of_kind[name].middle for of_kind in middles.values()] for name in shares},
        ),
        figures=figures,
        missing=missing,
        raw={kind: [summary(times) for times in of_rounds] for kind, of_rounds in kinds.items()},
    )
