"""Section: from a delivery to the commit of what its handler did, on an idle system."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import uvloop

from tests.bench import events
from tests.bench.charts import Bars
from tests.bench.draining import redis_server
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, percentile, spread, summary
from tests.bench.probe import RATE, Place, Probed
from tests.bench.progress import Progress
from tests.bench.report import Section

NAME: Final = "latency"
_SHARES: Final = {"p50": 0.5, "p99": 0.99}

_METHOD: Final = f"""\
{RATE} deliveries a second of ten organizations' events through one ingress, a Redis with
`appendfsync always`, and one worker with a handler that does nothing, all on this machine. Timed
from the sending of each POST, so a little more than from the acceptance, until it is answered, and
until the end of the millisecond that the worker's log gives for the event, which is after the
commit. Milliseconds; medians, with the lowest and the highest round."""


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure every round on programs of its own."""
    progress.begin(NAME, effort.rounds)
    probed: list[Probed] = []
    missing: dict[str, str] = {}
    for round_number in range(1, effort.rounds + 1):
        progress.step(f"round {round_number}")
        try:
            probed.append(uvloop.run(_probe(effort.probe_seconds)))
        except CannotRunError as exc:
            missing["ours"] = str(exc)
    return _section(probed, missing)


async def _probe(seconds: float) -> Probed:
    with (
        TemporaryDirectory(prefix="sellfern-bench-") as folder,
        redis_server("always") as server,
    ):
        handlers = {"WORKER_HANDLERS": "tests.bench.handlers:idle"}
        organizations = events.ORGANIZATIONS
        async with Place.opened(server.url, Path(folder), organizations, **handlers) as place:
            await place.probe(organizations[0], 0.5)  # connections, caches
            place.handled.times.clear()
            return await place.probe(organizations[0], seconds)


def _section(probed: list[Probed], missing: dict[str, str]) -> Section:
    kinds = {
        "POST to 202": [one.answered for one in probed],
        "POST to handled": [one.handled for one in probed],
    }
    found = {
        kind: {
            name: Figure.of([percentile(times, share) * 1e3 for times in rounds])
            for name, share in _SHARES.items()
        }
        for kind, rounds in kinds.items()
        if rounds
    }
    return Section(
        name=NAME,
        title="Latency of an idle system",
        method=_METHOD,
        columns=("milliseconds", *_SHARES),
        rows=[[kind, *map(spread, of_kind.values())] for kind, of_kind in found.items()],
        chart=Bars(
            f"Milliseconds at {RATE} deliveries a second (less is better)",
            list(found),
            {name: [of_kind[name].middle for of_kind in found.values()] for name in _SHARES},
        ),
        figures=dict(found.get("POST to handled", {})),
        missing=missing,
        raw={kind: [summary(times) for times in rounds] for kind, rounds in kinds.items()},
    )
