"""Section: whether a worker's and an ingress's memory stays what it is over many events."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from shared.queue import keys
from tests.bench import contenders, events
from tests.bench.charts import Lines
from tests.bench.draining import redis_server
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, short
from tests.bench.load import put_load
from tests.bench.programs import INGRESS, PATIENCE, WORKER, Program, environment, wait_until
from tests.bench.progress import Progress
from tests.bench.report import Section
from tests.bench.requests_file import RequestsFile

NAME: Final = "memory"
PARTS: Final = 10
_AT_THE_END: Final = 2
"""Parts whose median is the memory of the half, and of the end."""

_EVERY: Final = 0.1
_MIB: Final = 2**20

_METHOD: Final = f"""\
{{endured:,}} deliveries, each another event of 300 bytes, go through an ingress and a worker with a
handler that does nothing, in {PARTS} parts of equal size, each as fast as it is accepted; the next
begins when all of them are handled. A Redis with `appendfsync always`, 64 connections.
Measured is the resident memory of both processes, ten times a second; of each part the median
counts. It is flat where the last {_AT_THE_END} parts have at most 2 % more than the {_AT_THE_END}
behind the half. Done once, whatever the rounds. MiB."""


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure once: what grows does so over many events, not over rounds."""
    progress.begin(NAME, PARTS)
    found: dict[str, list[float]] = {"ingress": [], "worker": []}
    missing: dict[str, str] = {}
    try:
        _endure(effort.endured // PARTS, progress, found)
    except CannotRunError as exc:
        missing["ours"] = str(exc)
    return _section(effort.endured, found, missing)


def _endure(number: int, progress: Progress, found: dict[str, list[float]]) -> None:
    """Send so many in each part."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="sellfern-bench-")))
        server = stack.enter_context(redis_server("always"))
        redis = contenders.client(server.url)
        handlers = {"WORKER_HANDLERS": "tests.bench.handlers:idle"}
        environ = environment(server.url, events.write_endpoints(folder), **handlers)
        programs = {
            name: stack.enter_context(Program.started(command, environ, folder / f"{name}.log"))
            for name, command in (("ingress", INGRESS), ("worker", WORKER))
        }
        port = int(programs["ingress"].logged("ingress_listening")["port"])
        for part in range(PARTS):
            progress.step(f"part {part + 1}")
            requests = RequestsFile.write(folder / "requests", number, kind=chr(ord("A") + part))
            with _watched(programs, found):
                load = put_load(port, requests, first=0, seconds=PATIENCE, each_once=True)
                if load.answered < number or load.refused:
                    raise CannotRunError(f"{load.refused} of {load.answered} were refused")
                wait_until(lambda: not redis.zcard(keys.ACCEPTED), "not everything was handled")


@contextmanager
def _watched(programs: dict[str, Program], found: dict[str, list[float]]) -> Iterator[None]:
    """Note the median of each program's memory over a block."""
    seen: dict[str, list[float]] = {name: [] for name in programs}
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_EVERY):
            for name, program in programs.items():
                seen[name].append(program.resident_bytes() / _MIB)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    for name, sizes in seen.items():
        found[name].append(median(sizes or [programs[name].resident_bytes() / _MIB]))


def _section(endured: int, found: dict[str, list[float]], missing: dict[str, str]) -> Section:
    whole = {name: sizes for name, sizes in found.items() if len(sizes) == PARTS}
    growth = {name: _growth(sizes) for name, sizes in whole.items()}
    return Section(
        name=NAME,
        title="Memory over many events",
        method=_METHOD.format(endured=endured),
        columns=("MiB", "first part", "behind the half", "last part", "second half's growth"),
        rows=[
            [
                name,
                *(short(sizes[place]) for place in (0, PARTS // 2, -1)),
                f"{short(100 * (growth[name] - 1))} %",
            ]
            for name, sizes in whole.items()
        ],
        chart=Lines(
            "MiB of resident memory",
            [f"{(part + 1) * endured // PARTS:,}" for part in range(PARTS)],
            whole,
        ),
        figures={f"{name} growth": Figure.of([ratio]) for name, ratio in growth.items()},
        missing=missing,
        raw=found,
    )


def _growth(sizes: list[float]) -> float:
    """The memory at the end over that behind the half."""
    half = PARTS // 2
    return median(sizes[-_AT_THE_END:]) / median(sizes[half : half + _AT_THE_END])
