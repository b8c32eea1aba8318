"""Section: how long the two programs take from their start to their work."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench import events
from tests.bench.charts import Bars
from tests.bench.draining import redis_server
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, spread
from tests.bench.programs import INGRESS, WORKER, Program, environment
from tests.bench.progress import Progress
from tests.bench.report import Section

NAME: Final = "startup"
_STARTS: Final = 5  # a round
_OURS: Final = ("ours, ingress", "ours, worker")
_IMPORTS: Final = "Python that imports aiohttp and arq"

_METHOD: Final = f"""\
From the start of the process until it logs `ingress_listening` or `worker_started`, by the line's
own time. One endpoint, an empty Redis with `appendfsync always`, default settings but for the
ports; the files are in the system's cache. Beside them a Python that does nothing, and one that
imports what both programs can't do without (aiohttp and arq), which is no work of this project's.
Each is started {_STARTS} times a round, in turns. Milliseconds; medians of a round's starts, then
of the rounds, with the lowest and the highest round."""

_SAYS: Final = (
    "import datetime, sys; now = datetime.datetime.now(datetime.UTC).isoformat(); "
    """print('{"timestamp":"%s","event":"said"}' % now, file=sys.stderr, flush=True)"""
)


@dataclass(frozen=True, slots=True)
class _Contender:
    """A program, and what it logs once it does what it is there for."""

    name: str
    command: Sequence[str]
    event: str

    def start(self, environ: Mapping[str, str], folder: Path) -> float:
        """Start it once; seconds until it is there."""
        began = time.time()
        with Program.started(self.command, environ, folder / "startup.log") as program:
            said = program.logged(self.event)["timestamp"]
        return datetime.fromisoformat(said).timestamp() - began


def _python(name: str, code: str) -> _Contender:
    """A Python that says when it has done something."""
    waits = "; import time; time.sleep(60)"
    return _Contender(name, (sys.executable, "-c", code + _SAYS + waits), "said")


_CONTENDERS: Final = (
    _Contender(_OURS[0], INGRESS, "ingress_listening"),
    _Contender(_OURS[1], WORKER, "worker_started"),
    _python(_IMPORTS, "import aiohttp.web, arq; "),
    _python("Python that does nothing", ""),
)


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure every round on a Redis of its own."""
    progress.begin(NAME, effort.rounds)
    rounds: dict[str, list[list[float]]] = {each.name: [] for each in _CONTENDERS}
    missing: dict[str, str] = {}
    for number in range(1, effort.rounds + 1):
        progress.step(f"round {number}")
        for name, found in _round(missing).items():
            rounds[name].append(found)
    return _section(rounds, missing)


def _round(missing: dict[str, str]) -> dict[str, list[float]]:
    """The seconds of each contender's starts; one that can't start has none."""
    found: dict[str, list[float]] = {each.name: [] for each in _CONTENDERS}
    with (
        TemporaryDirectory(prefix="sellfern-bench-") as name,
        redis_server("always") as server,
    ):
        folder = Path(name)
        environ = environment(server.url, events.write_endpoints(folder, ["org_a"]))
        for _ in range(_STARTS):
            for each in _CONTENDERS:
                try:
                    found[each.name].append(each.start(environ, folder))
                except CannotRunError as exc:
                    missing[each.name] = str(exc)
    return {name: seconds for name, seconds in found.items() if seconds}


def _section(rounds: dict[str, list[list[float]]], missing: dict[str, str]) -> Section:
    middles = {
        name: [Figure.of(seconds).middle * 1e3 for seconds in of_rounds]
        for name, of_rounds in rounds.items()
        if of_rounds
    }
    found = {name: Figure.of(values) for name, values in middles.items()}
    return Section(
        name=NAME,
        title="Start-up time",
        method=_METHOD,
        columns=("program", "milliseconds"),
        rows=[[name, spread(figure)] for name, figure in found.items()],
        chart=Bars(
            "Milliseconds until it is there (less is better)",
            list(found),
            {"milliseconds": [figure.middle for figure in found.values()]},
        ),
        figures=_figures(middles),
        missing=missing,
        raw=rounds,
    )


def _figures(middles: Mapping[str, Sequence[float]]) -> dict[str, Figure]:
    """Each program's milliseconds over those of the imports, so that the machine cancels out."""
    imports = middles.get(_IMPORTS, ())
    return {
        f"{name} over imports": Figure.ratio(middles[name], imports)
        for name in _OURS
        if len(middles.get(name, ())) == len(imports) > 0
    }
