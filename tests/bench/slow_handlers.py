"""Section: whether more workers handle more events when handlers wait for others."""

from typing import Final

from tests.bench import events
from tests.bench.charts import Lines
from tests.bench.contenders import Ours
from tests.bench.draining import drain
from tests.bench.effort import Effort
from tests.bench.figures import Figure, short, spread
from tests.bench.progress import Progress
from tests.bench.report import Section

NAME: Final = "handlers"
_WORKERS: Final = (1, 2, 4, 8)
_AT_ONCE: Final = 20
_IDEAL: Final = _AT_ONCE / 0.1

_METHOD: Final = f"""\
Handlers that take 100 ms each, {_AT_ONCE} at once a worker: one worker can't do more than
{_IDEAL:g} a second, whatever the machine. Measured as the drain of no-op events is."""


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure 1 to 8 workers."""
    changes = {
        "WORKER_HANDLERS": "tests.bench.handlers:sleeping",
        "WORKER_CONCURRENCY": str(_AT_ONCE),
    }
    ours = Ours("ours", "", organizations=events.ORGANIZATIONS, changes=changes)
    progress.begin(NAME, len(_WORKERS) * effort.rounds)
    rates: dict[int, list[float]] = {number: [] for number in _WORKERS}
    for round_number in range(1, effort.rounds + 1):
        for number in _WORKERS:
            progress.step(f"round {round_number}: workers: {number}")
            jobs = round(number * _IDEAL * effort.handler_seconds)
            rates[number].append(drain(ours, jobs, number).rate)
    return _section(rates)


def _section(rates: dict[int, list[float]]) -> Section:
    middles = [Figure.of(rates[number]).middle for number in _WORKERS]
    ratios = {number: Figure.ratio(rates[number], rates[1]) for number in _WORKERS}
    return Section(
        name=NAME,
        title="Workers with handlers of 100 ms",
        method=_METHOD,
        columns=("workers", "events a second", "of the most possible", "times one worker"),
        rows=[
            [
                str(number),
                spread(Figure.of(rates[number])),
                f"{short(100 * middle / (_IDEAL * number))} %",
                spread(ratios[number]),
            ]
            for number, middle in zip(_WORKERS, middles, strict=True)
        ],
        chart=Lines(
            "Events a second with handlers of 100 ms (more is better)",
            [f"{number} worker{'s' if number > 1 else ''}" for number in _WORKERS],
            {"measured": middles, "most possible": [_IDEAL * number for number in _WORKERS]},
        ),
        figures={"8 over 1": ratios[8]},
        raw={str(number): of_one for number, of_one in rates.items()},
    )
