"""Section: drains and the ingress with bodies of 300 bytes to a megabyte."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench import contenders, events, ingress_rate
from tests.bench.charts import Bars
from tests.bench.draining import drain
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, spread
from tests.bench.programs import PATIENCE
from tests.bench.progress import Progress
from tests.bench.report import Section
from tests.bench.requests_file import RequestsFile

NAME: Final = "sizes"
SIZES: Final = (events.BODY_BYTES, 10_000, 100_000, 1_000_000)
_DRAIN: Final = "drain, 1 worker"
_INGRESS: Final = "ingress, fsync"
_AT_ONCE: Final = 20_000_000
"""Bytes that all connections of the load together send at once, at the most."""

_METHOD: Final = """\
Drains of no-op events and the ingress (`appendfsync always`, as many connections as have 20 MB on
their way, 64 at the most), by the bytes of a body. Each gets as many events as for 300 bytes, but
no more than {megabytes:.0f} MB of them. A second; medians, with the lowest and the highest
round."""

Runs = dict[tuple[str, int], list[float]]


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure each size."""
    measures = {_DRAIN: _drained, _INGRESS: _accepted}
    progress.begin(NAME, len(measures) * len(SIZES) * effort.few_rounds)
    missing: dict[str, str] = {}
    runs: Runs = {}
    for round_number in range(1, effort.few_rounds + 1):
        for size in SIZES:
            number = min(effort.jobs, effort.bytes_of_bodies // size)
            for name, take in measures.items():
                progress.step(f"round {round_number}: {name}, {size:,} bytes")
                try:
                    rate = take(number, size)
                except CannotRunError as exc:
                    missing[f"ours, {name}, {size:,} bytes"] = str(exc)
                else:
                    runs.setdefault((name, size), []).append(rate)
    return _section(list(measures), runs, missing, effort)


def _drained(number: int, size: int) -> float:
    return drain(replace(contenders.OURS, body_bytes=size), number, 1).rate


def _accepted(number: int, size: int) -> float:
    with TemporaryDirectory(prefix="sellfern-bench-") as folder:
        requests = RequestsFile.write(Path(folder, "requests"), number, body_bytes=size)
        connections = min(64, _AT_ONCE // size)
        return ingress_rate.take(
            ingress_rate.FSYNC, requests, PATIENCE, connections=connections, each_once=True
        ).rate


def _section(
    everybody: Sequence[str], runs: Runs, missing: dict[str, str], effort: Effort
) -> Section:
    shown = [name for name in everybody if any((name, size) in runs for size in SIZES)]
    return Section(
        name=NAME,
        title="Bodies of 300 bytes to a megabyte",
        method=_METHOD.format(megabytes=effort.bytes_of_bodies / 1e6),
        columns=("events a second", *(f"{size:,} bytes" for size in SIZES)),
        rows=[[name, *(_cell(runs.get((name, size))) for size in SIZES)] for name in shown],
        chart=Bars(
            "Megabytes of bodies a second (more is better)",
            [f"{size:,} bytes" for size in SIZES],
            {name: [_megabytes(runs.get((name, size)), size) for size in SIZES] for name in shown},
        ),
        figures={},
        missing=missing,
        raw={f"{name}, {size}": rates for (name, size), rates in runs.items()},
    )


def _cell(rates: Sequence[float] | None) -> str:
    return spread(Figure.of(rates)) if rates else "-"


def _megabytes(rates: Sequence[float] | None, size: int) -> float | None:
    return Figure.of(rates).middle * size / 1e6 if rates else None
