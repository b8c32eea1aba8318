"""Section: what it costs the workers that somebody looks."""

from typing import Final

from tests.bench import contenders
from tests.bench.charts import Bars
from tests.bench.draining import drain
from tests.bench.effort import Effort
from tests.bench.figures import Figure, spread
from tests.bench.progress import Progress
from tests.bench.report import Section

NAME: Final = "observed"
_TIMES_AS_OFTEN: Final = 3
"""A difference of a few per cent drowns in the noise of few rounds."""

_METHOD: Final = f"""\
The drain of no-op events by one worker, alone and with the console open: `python -m worker console`
on the same machine, and a client that asks for the overview every two seconds, as the page in a
browser does. One after the other, {_TIMES_AS_OFTEN} times as often as the other sections."""


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure both in turn."""
    pair = (contenders.OURS, contenders.OURS_WATCHED)
    rounds = effort.rounds * _TIMES_AS_OFTEN
    progress.begin(NAME, len(pair) * rounds)
    rates: dict[str, list[float]] = {contender.name: [] for contender in pair}
    for number in range(1, rounds + 1):
        for contender in pair:
            progress.step(f"round {number}: {contender.name}")
            rates[contender.name].append(drain(contender, effort.jobs, 1).rate)
    alone, watched = rates.values()
    ratio = Figure.ratio(watched, alone)
    return Section(
        name=NAME,
        title="What it costs to look",
        method=_METHOD,
        columns=("events a second", "1 process", "over alone"),
        rows=[
            ["alone", spread(Figure.of(alone)), "1.00"],
            ["with the console open", spread(Figure.of(watched)), spread(ratio)],
        ],
        chart=Bars(
            "Events a second (more is better)",
            ["alone", "with the console open"],
            {"": [Figure.of(alone).middle, Figure.of(watched).middle]},
        ),
        figures={"console over alone": ratio},
        raw=dict(rates),
    )
