"""Section: how fast workers that do nothing drain a full queue, ours and the peers'."""

from collections.abc import Mapping, Sequence
from typing import Final

from tests.bench import contenders
from tests.bench.charts import Bars
from tests.bench.contenders import Contender
from tests.bench.draining import Drained, drain
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, short, spread
from tests.bench.progress import Progress
from tests.bench.report import Section

NAME: Final = "drain"
_PROCESSES: Final = (1, 2, 4)
_FEWEST_JOBS: Final = 500

_METHOD: Final = """\
A queue is filled with jobs of 300 bytes whose handler does nothing, worker processes that are
started already are let go at once, and the queue's own counters tell when 5 % and when all of it
is done: the rate is that of the time between. Start-up counts for nobody. Ours are the real
programs with everything that they do: leases, dedupe by event id, judgement, metrics. Each run has
a fresh Redis with `appendfsync everysec`; `always` would cost the peers more than ours. Every
round measures each contender once, in turn. Ours and BullMQ are measured with 100, 500 and 1,000
jobs at once, and set against each other at the best of them. Medians, with the lowest and the
highest round."""

_OURS: Final = (contenders.OURS, contenders.OURS_500, contenders.OURS_1000)
_BULLMQ: Final = (contenders.BULLMQ, contenders.BULLMQ_1000, contenders.BULLMQ_100)
"""With different numbers of jobs at once: each is set against the other at its best one."""

Runs = dict[tuple[str, int], list[Drained]]


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure everybody."""
    plan = _plan(effort)
    progress.begin(NAME, len(plan) * effort.rounds)
    missing = prepared({contender.name: contender for contender, _ in plan}, progress)
    runs = _run(plan, effort, progress, missing)
    known = (contenders.OURS, *(c for c, _ in plan))
    everybody = list({c.name: c for c in known if (c.name, 1) in runs}.values())
    return Section(
        name=NAME,
        title="Drain rate of no-op jobs",
        method=_METHOD,
        columns=(
            "events or jobs a second",
            *(f"{number} process{'es' if number > 1 else ''}" for number in _PROCESSES),
            "CPU µs a job",
            "Redis CPU µs a job",
            "settings",
        ),
        rows=[_row(contender, runs) for contender in everybody],
        chart=_chart(everybody, runs),
        figures=_figures(runs),
        missing=missing,
        raw={
            f"{name}, {number}": [[run.rate, run.cpu, run.redis_cpu] for run in of_one]
            for (name, number), of_one in runs.items()
        },
    )


def _plan(effort: Effort) -> list[tuple[Contender, int]]:
    """Who is measured, in this order: those that are set against each other come together.

    A shared machine is faster in one minute than in the next, which then concerns both.
    """
    ours: list[tuple[Contender, int]] = [
        (contender, number)
        for contender in (contenders.OURS, contenders.OURS_QUIET)
        for number in _PROCESSES
    ]
    ours += [(contenders.OURS_ALONE, 1), (contenders.OURS_SYNCED, 1)]
    peers = [(peer, number) for peer in contenders.PEERS for number in effort.peer_processes]
    first: list[tuple[Contender, int]] = [
        (contenders.ARQ, 1),
        *((contender, 1) for pair in zip(_OURS, _BULLMQ, strict=True) for contender in pair),
    ]
    return first + [each for each in [*ours, *peers] if each not in first]


def prepared(everybody: Mapping[str, Contender], progress: Progress) -> dict[str, str]:
    """Install what is needed; who can't run, and why."""
    missing = {}
    for name, contender in everybody.items():
        try:
            contender.prepare()
        except CannotRunError as exc:
            missing[name] = str(exc)
            progress.say(f"not run: {name}: {exc}")
    return missing


def _run(
    plan: Sequence[tuple[Contender, int]],
    effort: Effort,
    progress: Progress,
    missing: dict[str, str],
) -> Runs:
    runs: Runs = {}
    for round_number in range(1, effort.rounds + 1):
        for contender, number in plan:
            progress.step(f"round {round_number}: {contender.name}, processes: {number}")
            if contender.name in missing:
                continue
            jobs = max(_FEWEST_JOBS, round(effort.jobs * contender.share))
            try:
                drained = drain(contender, jobs, number)
            except CannotRunError as exc:
                missing[contender.name] = f"{exc} (processes: {number})"
                progress.say(f"not run: {contender.name}: {exc}")
            else:
                runs.setdefault((contender.name, number), []).append(drained)
    return runs


def _row(contender: Contender, runs: Runs) -> list[str]:
    cells = [
        spread(Figure.of([run.rate for run in runs[contender.name, number]]))
        if (contender.name, number) in runs
        else "-"
        for number in _PROCESSES
    ]
    alone = runs[contender.name, 1]
    cpu = Figure.of([run.cpu * 1e6 for run in alone]).middle
    of_redis = Figure.of([run.redis_cpu * 1e6 for run in alone]).middle
    return [contender.name, *cells, short(cpu), short(of_redis), contender.about]


def _chart(everybody: Sequence[Contender], runs: Runs) -> Bars:
    series: dict[str, list[float | None]] = {}
    for number in _PROCESSES:
        found = [runs.get((contender.name, number)) for contender in everybody]
        series[f"processes: {number}"] = [
            Figure.of([run.rate for run in of_one]).middle if of_one else None for of_one in found
        ]
    return Bars(
        "No-op events or jobs a second (more is better)",
        [contender.name for contender in everybody],
        series,
    )


def _figures(runs: Runs) -> dict[str, Figure]:
    ours = contenders.OURS.name
    pairs = {
        f"over {peer.module}": ((ours, 1), (peer.name, 1))
        for peer in contenders.PEERS
        if peer is not contenders.BULLMQ
    }
    pairs |= {
        "over BullMQ": ((_best(_OURS, runs), 1), (_best(_BULLMQ, runs), 1)),
        "2 over 1": ((ours, 2), (ours, 1)),
        "4 over 1": ((ours, 4), (ours, 1)),
    }
    return {
        name: Figure.ratio([run.rate for run in runs[one]], [run.rate for run in runs[other]])
        for name, (one, other) in pairs.items()
        if len(runs.get(one, ())) == len(runs.get(other, ())) > 0
    }


def _best(some: Sequence[Contender], runs: Runs) -> str:
    """The fastest of them by its median; the first where none has run."""
    rates = {
        each.name: Figure.of([run.rate for run in runs[each.name, 1]]).middle
        for each in some
        if (each.name, 1) in runs
    }
    return max(rates, key=rates.__getitem__, default=some[0].name)
