"""``python -m tests.bench.crossing``: the files that one delivery crosses, from socket to commit.

An ingress and a worker are started as ever, each under `tests.bench.traced_program`. Deliveries
come one at a time with quiet between them. A function counts if every one of the deliveries called
it: what goes on anyway, such as a heartbeat, falls between some of them and isn't counted. The
first deliveries aren't either: what is done once is no part of the way. It ends with the commit:
the report of what was committed comes behind it.
"""

import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click

from tests.bench import events
from tests.bench.draining import redis_server
from tests.bench.environments import CannotRunError
from tests.bench.programs import Program, environment

_WARMING: Final = 3
_COUNTED: Final = 8
_QUIET: Final = 0.15
"""Seconds before and behind each delivery, whose handler does nothing."""

_PATIENCE: Final = 30.0
_COMMIT: Final = "Transitions.settle"


@dataclass(frozen=True, slots=True)
class Call:
    """The first call of a function on the way.

    Attributes:
        file: where it is, below the root.
        line: where it begins.
        name: its qualified name.
    """

    file: str
    line: int
    name: str


@dataclass(frozen=True, slots=True)
class Crossing:
    """The way of a delivery.

    Attributes:
        calls: each function once, in the order of the first calls, the ingress's before the
            worker's, as the data goes.
    """

    calls: tuple[Call, ...]

    @property
    def files(self) -> list[str]:
        """Each file once, in the order in which they are met."""
        return list(dict.fromkeys(call.file for call in self.calls))

    @property
    def switches(self) -> int:
        """How often the next function is in another file than the one before."""
        return sum(one.file != other.file for one, other in pairwise(self.calls))


def measure() -> Crossing:
    """Send deliveries through both programs, and see which functions all of them called.

    Raises:
        CannotRunError: a program doesn't start, or doesn't say what it has called.
    """
    with TemporaryDirectory(prefix="sellfern-crossing-") as name, redis_server("always") as redis:
        folder = Path(name)
        environ = environment(
            redis.url,
            events.write_endpoints(folder, ["org_a"]),
            WORKER_HANDLERS="tests.bench.handlers:idle",
        )
        traces = {module: folder / f"{module}.calls" for module in ("ingress", "worker")}
        with (
            Program.started(_traced("ingress", traces), environ, folder / "ingress.log") as ingress,
            Program.started(_traced("worker", traces), environ, folder / "worker.log") as worker,
        ):
            port = ingress.logged("ingress_listening")["port"]
            worker.logged("worker_started")
            moments = list(_deliveries(port))
            for program in (ingress, worker):
                program.end(_PATIENCE)
        ways = _way(traces["ingress"], moments), _to_commit(_way(traces["worker"], moments))
        return Crossing(tuple(dict.fromkeys(call for way in ways for call in way)))


def _traced(module: str, traces: dict[str, Path]) -> list[str]:
    return [sys.executable, "-m", "tests.bench.traced_program", str(traces[module]), module]


def _deliveries(port: int) -> Iterator[tuple[float, float]]:
    """Send one after the other over one connection; from when to when each was under way."""
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as sock:
        for number in range(_WARMING + _COUNTED):
            time.sleep(_QUIET)
            began = time.monotonic()
            sock.sendall(events.request("org_a", events.body("org_a", events.event_id(number))))
            answer = sock.recv(4096)
            if not answer.startswith(b"HTTP/1.1 202 "):
                raise CannotRunError(f"expected a 202, got {answer[:40]!r}")
            time.sleep(_QUIET)
            if number >= _WARMING:
                yield began, time.monotonic()


def _way(trace: Path, moments: Sequence[tuple[float, float]]) -> tuple[Call, ...]:
    """The functions that are called in all of these times, in the order of the first of them."""
    calls = [_read(line) for line in trace.read_text().splitlines()]
    called = [
        dict.fromkeys(call for moment, call in calls if began <= moment <= ended)
        for began, ended in moments
    ]
    return tuple(call for call in called[0] if all(call in others for others in called))


def _to_commit(way: Sequence[Call]) -> Sequence[Call]:
    """The way up to the script that commits an event's outcome."""
    last = max((at for at, call in enumerate(way) if call.name.startswith(_COMMIT)), default=None)
    if last is None:
        raise CannotRunError(f"expected a call of {_COMMIT}, got none among {len(way)} functions")
    return way[: last + 1]


def _read(line: str) -> tuple[float, Call]:
    moment, file, number, name = line.split(" ", 3)
    return float(moment), Call(file, int(number), name)


def main() -> None:
    """Print the way, a line where it goes to another file, and the two figures."""
    crossing = measure()
    for file, calls in groupby(crossing.calls, lambda call: call.file):
        click.echo(f"{file}: {', '.join(call.name for call in calls)}")
    click.echo(f"{len(crossing.files)} files, {crossing.switches} switches")


if __name__ == "__main__":
    main()
