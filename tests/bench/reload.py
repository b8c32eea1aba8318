"""Section: deliveries to an ingress that reads ten thousand endpoints anew, beside a calm one."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final, Self

import uvloop

from tests.bench import events
from tests.bench.charts import Bars
from tests.bench.draining import redis_server
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, percentile, spread, summary
from tests.bench.http_client import Connection
from tests.bench.programs import INGRESS, Program, environment, wait_until
from tests.bench.progress import Progress
from tests.bench.report import Section

NAME: Final = "reload"
ENDPOINTS: Final = 10_000
RATE: Final = 100
"""Deliveries a second to each ingress."""

_CONNECTIONS: Final = 64
_ORGANIZATION: Final = events.ORGANIZATIONS[0]
_METHOD: Final = f"""\
Two ingresses with {ENDPOINTS:,} endpoints each, on one Redis with `appendfsync always`, {RATE}
deliveries a second to each, at the same moments. The endpoints file of one is written anew, every
secret but one changed, as soon as the last change is in force; that of the other stays. Counted are
the deliveries while a change is under way, to both. Milliseconds until the answer; medians, with
the lowest and the highest round."""


@dataclass(slots=True)
class _Receiver:
    """An ingress, and how long its answers took."""

    program: Program
    log: Path
    endpoints: Path
    connections: list[Connection] = field(default_factory=list)
    taken: list[tuple[float, float]] = field(default_factory=list)

    async def connect(self) -> Self:
        """Open connections."""
        port = int(self.program.logged("ingress_listening")["port"])
        self.connections = [await Connection.to(port) for _ in range(_CONNECTIONS)]
        return self

    async def ask(self, number: int) -> None:
        """One delivery; when it was sent and how long its answer took is noted."""
        content = events.body(_ORGANIZATION, events.event_id(number))
        request = events.request(_ORGANIZATION, content)
        started = perf_counter()
        status = await self.connections[number % _CONNECTIONS].ask(request)
        if status != HTTPStatus.ACCEPTED:
            raise CannotRunError(f"a delivery was answered {status}")
        self.taken.append((started, perf_counter() - started))

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
        pair = [await _start(stack, server.url, folder / name).connect() for name in "ab"]
        calm, busy = pair[::-1] if swapped else pair
        sending = asyncio.create_task(_send(pair))
        await asyncio.sleep(1)
        windows = await _change(busy, seconds)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return _within(calm, windows), _within(busy, windows)


def _start(stack: ExitStack, redis_url: str, folder: Path) -> _Receiver:
    folder.mkdir()
    endpoints = folder / "endpoints.toml"
    _write(endpoints, 0)
    log = folder / "ingress.log"
    environ = environment(redis_url, endpoints)
    return _Receiver(stack.enter_context(Program.started(INGRESS, environ, log)), log, endpoints)


def _write(path: Path, version: int) -> None:
    tables = "".join(
        f'[[endpoint]]\nid = "e{number}"\norganization_id = "org_{number}"\n'
        f'secrets = ["whsec_{version:08}_{number:016}"]\nweight = 2.0\n\n'
        for number in range(ENDPOINTS - 1)
    )
    draft = path.with_name("draft")
    events.write_endpoints(path.parent, [_ORGANIZATION]).rename(draft)
    draft.write_text(draft.read_text() + tables)
    draft.rename(path)


async def _send(receivers: list[_Receiver]) -> None:
    begin = perf_counter()
    number = 0
    async with asyncio.TaskGroup() as tasks:
        while True:
            await asyncio.sleep(begin + number / RATE - perf_counter())
            for receiver in receivers:
                number += 1
                tasks.create_task(receiver.ask(number))
            number -= len(receivers) - 1


async def _change(receiver: _Receiver, seconds: float) -> list[tuple[float, float]]:
    """Change the file again and again; gives when each change began and was in force."""
    windows: list[tuple[float, float]] = []
    end = perf_counter() + seconds
    while perf_counter() < end:
        taken = len(windows) + 1
        await asyncio.to_thread(_write, receiver.endpoints, taken)
        started = perf_counter()
        await asyncio.to_thread(receiver.await_reload, taken)
        windows.append((started, perf_counter()))
    return windows


def _within(receiver: _Receiver, windows: list[tuple[float, float]]) -> list[float]:
    return [
        took
        for sent, took in receiver.taken
        if any(first <= sent < last for first, last in windows)
    ]


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
