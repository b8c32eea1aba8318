"""``python -m tests.bench``: measures everything, writes the results, says what doesn't hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from tests.bench import (
    cost,
    drain,
    ingress_rate,
    latency,
    neighbours,
    observed,
    reload,
    slow_handlers,
    startup,
)
from tests.bench.effort import FULL, QUICK, Effort
from tests.bench.environments import CACHE, CannotRunError
from tests.bench.figures import Figure
from tests.bench.floors import COLUMNS, Verdict, verdicts
from tests.bench.machine import Machine
from tests.bench.progress import Progress
from tests.bench.report import SUMMARY, Section, table, write

SECTIONS: Final[Mapping[str, Callable[[Effort, Progress], Section]]] = {
    drain.NAME: drain.measure,
    slow_handlers.NAME: slow_handlers.measure,
    ingress_rate.NAME: ingress_rate.measure,
    latency.NAME: latency.measure,
    neighbours.NAME: neighbours.measure,
    observed.NAME: observed.measure,
    reload.NAME: reload.measure,
    startup.NAME: startup.measure,
    cost.NAME: cost.measure,
}
OWN: Final = "ours"
"""What the names of this project's own contenders begin with: one that can't run is a failure."""

RESULTS: Final = Path(__file__).parent / "results"
QUICK_RESULTS: Final = CACHE / "quick-results"


@click.command()
@click.option("--quick", is_flag=True, help="About two minutes, one round; proves little.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(SECTIONS)), help="Only this; may be repeated."
)
@click.option("--rounds", type=click.IntRange(min=1), help="How often each is measured.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to; default tests/bench/results, with --quick .bench/quick-results.",
)
def main(*, quick: bool, only: Sequence[str], rounds: int | None, results: Path | None) -> None:
    """Measure this project and its peers.

    The exit code is 1 when a figure that must hold doesn't, or a section could not be measured.
    """
    effort = QUICK if quick else FULL
    if rounds is not None:
        effort = replace(effort, rounds=rounds)
    folder = results or (QUICK_RESULTS if quick else RESULTS)
    progress, machine = Progress(), Machine.here()
    figures: dict[str, Figure] = {}
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
        figures |= {f"{name}/{figure}": value for figure, value in section.figures.items()}
    found = verdicts(figures)
    _conclude(found, machine, folder, everything=not only)
    if unmeasured or any(verdict.missed for verdict in found):
        raise SystemExit(1)


def _show(section: Section, progress: Progress) -> None:
    progress.clear()
    click.echo(f"\n{section.title}\n")
    click.echo(table(section.columns, section.rows))
    for note in section.notes:
        click.echo(note)
    for name, why in section.missing.items():
        click.echo(f"not run: {name}: {why}")


def _conclude(
    found: Sequence[Verdict], machine: Machine, folder: Path, *, everything: bool
) -> None:
    """Print what must hold, and write it down where nothing was left out."""
    shown = table(COLUMNS, [verdict.row() for verdict in found])
    click.echo(f"\nWhat must hold\n\n{shown}")
    if everything:
        text = f"# What must hold\n\n{shown}\n{machine.described()}\n"
        (folder / SUMMARY).write_text(text)
    click.echo(f"results: {folder}")


if __name__ == "__main__":
    main()
