"""``python -m tests.bench``: measures everything, writes the results, says what doesn't hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Final

import click

from tests.bench import (
    cost,
    drain,
    far,
    ingress_rate,
    large,
    latency,
    memory,
    neighbours,
    observed,
    organizations,
    reload,
    runs,
    shards,
    sizes,
    slow_handlers,
    startup,
)
from tests.bench.effort import FULL, QUICK, Effort
from tests.bench.environments import CACHE, CannotRunError
from tests.bench.floors import COLUMNS, Verdict, verdicts
from tests.bench.machine import Machine
from tests.bench.progress import Progress
from tests.bench.report import Section, table, write, write_summary
from tests.bench.runs import Results, Run

SECTIONS: Final[Mapping[str, Callable[[Effort, Progress], Section]]] = {
    drain.NAME: drain.measure,
    slow_handlers.NAME: slow_handlers.measure,
    ingress_rate.NAME: ingress_rate.measure,
    latency.NAME: latency.measure,
    far.NAME: far.measure,
    sizes.NAME: sizes.measure,
    large.NAME: large.measure,
    organizations.NAME: organizations.measure,
    neighbours.NAME: neighbours.measure,
    observed.NAME: observed.measure,
    reload.NAME: reload.measure,
    startup.NAME: startup.measure,
    memory.NAME: memory.measure,
    cost.NAME: cost.measure,
    shards.NAME: shards.measure,
}
OWN: Final = "ours"
"""What the names of this project's own contenders begin with: one that can't run is a failure."""

RESULTS: Final = Path(__file__).parent / "results"
PARTIAL_RESULTS: Final = CACHE / "results"


@click.command()
@click.option("--quick", is_flag=True, help="A few minutes, one round; proves little.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(SECTIONS)), help="Only this; may be repeated."
)
@click.option("--rounds", type=click.IntRange(min=1), help="How often each is measured.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to; default tests/bench/results, with --quick or --only .bench/results.",
)
@click.option(
    "--combine", is_flag=True, help="Measure nothing; make the results anew of the runs kept."
)
def main(
    *, quick: bool, only: Sequence[str], rounds: int | None, results: Path | None, combine: bool
) -> None:
    """Measure this project and its peers.

    Whole runs are kept in the folder of results, under runs; its summary is the medians of the
    newest three. The exit code is 1 when a figure of this run that must hold doesn't, or a section
    could not be measured.
    """
    folder = results or (PARTIAL_RESULTS if quick or only else RESULTS)
    if combine:
        _combine(folder)
        return
    effort = QUICK if quick else FULL
    if rounds is not None:
        effort = replace(effort, rounds=rounds, few_rounds=min(rounds, effort.few_rounds))
    progress, machine, began = Progress(), Machine.here(), monotonic()
    sections: list[Section] = []
    unmeasured: list[str] = []
    for name in [name for name in SECTIONS if name in only or not only]:
        try:
            section = SECTIONS[name](effort, progress)
        except CannotRunError as exc:
            unmeasured.append(name)
            progress.say(f"not measured: {name}: {exc}")
            continue
        write(section, machine, folder)
        _show(section, progress)
        unmeasured += [what for what in section.missing if what.startswith(OWN)]
        sections.append(section)
    run = _run(sections, machine, (monotonic() - began) / 60)
    found = verdicts(run.figures)
    click.echo(f"\nWhat must hold\n\n{_table(found)}\n{run.minutes:.0f} minutes")
    if not only:
        run.keep(folder)
        _combine(folder)
    click.echo(f"results: {folder}")
    if unmeasured or any(verdict.missed for verdict in found):
        raise SystemExit(1)


def _run(sections: Sequence[Section], machine: Machine, minutes: float) -> Run:
    return Run(
        machine=machine,
        commit=runs.commit(),
        minutes=round(minutes, 1),
        figures={
            f"{section.name}/{name}": figure
            for section in sections
            for name, figure in section.figures.items()
        },
        raw={section.name: section.raw for section in sections},
        missing={section.name: section.missing for section in sections if section.missing},
    )


def _combine(folder: Path) -> None:
    """Make the results of the newest runs that are kept."""
    found = runs.kept(folder)
    if not found:
        raise click.ClickException(f"{folder}: expected kept runs, got none")
    results = Results.of(found)
    results.write(folder)
    write_summary(results, _table(verdicts(results.figures)), found[-1].machine, folder)
    click.echo(f"medians of: {', '.join(results.runs)}")


def _show(section: Section, progress: Progress) -> None:
    progress.clear()
    click.echo(f"\n{section.title}\n")
    click.echo(table(section.columns, section.rows))
    for note in section.notes:
        click.echo(note)
    for name, why in section.missing.items():
        click.echo(f"not run: {name}: {why}")


def _table(found: Sequence[Verdict]) -> str:
    return table(COLUMNS, [verdict.row() for verdict in found])


if __name__ == "__main__":
    main()
