"""What was measured, as pages: a table and a plot a section, and what must hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.bench.charts import Bars, Lines, draw
from tests.bench.figures import Figure, spread
from tests.bench.machine import Machine
from tests.bench.runs import Results

SUMMARY: Final = "summary.md"


@dataclass(frozen=True, slots=True)
class Section:
    """One measurement.

    Attributes:
        name: of its files.
        title: its heading.
        method: how it was measured, in plain sentences.
        columns: the heads of the table.
        rows: the table.
        chart: its plot.
        figures: the ratios that count, by name.
        missing: what could not be run, and why.
        notes: what a reader should know beside the table.
        raw: every round's numbers.
    """

    name: str
    title: str
    method: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    chart: Bars | Lines
    figures: Mapping[str, Figure] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    raw: Any = None


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose source is a table to the eye, too; numbers stand at the right."""
    lines = [[_cell(text) for text in row] for row in (columns, *rows)]
    widths = [max(3, *(len(row[place]) for row in lines)) for place in range(len(columns))]
    right = [place > 0 and _is_number(rows, place) for place in range(len(columns))]
    head, *rest = (_line(row, widths, right) for row in lines)
    rule = "|".join(
        "-" * (width + 1) + (":" if at_right else "-")
        for width, at_right in zip(widths, right, strict=True)
    )
    return "\n".join([head, f"|{rule}|", *rest]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = (
        text.rjust(width) if at_right else text.ljust(width)
        for text, width, at_right in zip(row, widths, right, strict=True)
    )
    return f"| {' | '.join(cells)} |"


def _is_number(rows: Sequence[Sequence[str]], place: int) -> bool:
    """Whether a column's cells begin with a digit, or say that there is none."""
    return all(row[place][:1].isdigit() or row[place] in {"", "-"} for row in rows)


def document(section: Section, machine: Machine) -> str:
    """A section as a page of Markdown."""
    parts = [f"# {section.title}\n", section.method + "\n", table(section.columns, section.rows)]
    parts.append(f"![{section.title}]({section.name}.svg)\n")
    parts += [f"- {note}\n" for note in section.notes]
    parts += [f"- Not run: {name}: {why}\n" for name, why in section.missing.items()]
    parts.append(machine.described() + "\n")
    return "\n".join(parts)


def write(section: Section, machine: Machine, folder: Path) -> None:
    """Write a section's page and its plot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{section.name}.md").write_text(document(section, machine))
    (folder / f"{section.name}.svg").write_text(draw(section.chart))


def write_summary(results: Results, held: str, machine: Machine, folder: Path) -> None:
    """Write what runs say together.

    Args:
        results: of the runs.
        held: the table of what must hold.
        machine: of the newest of them.
        folder: where to.
    """
    number = len(results.runs)
    whose = (
        "One whole run"
        if number == 1
        else f"Medians of {number} whole runs, with the lowest and the highest"
    )
    rows = [[name, spread(figure)] for name, figure in results.figures.items()]
    parts = [
        "# What must hold\n",
        f"{whose}: {'; '.join(results.runs)}.\n",
        held,
        "## Every figure\n",
        table(("section/figure", "measured"), rows),
        machine.described() + "\n",
    ]
    (folder / SUMMARY).write_text("\n".join(parts))
