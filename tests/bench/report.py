"""What was measured, as files: a table and a plot a section, and all numbers as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.bench.charts import Bars, Lines, draw
from tests.bench.figures import Figure
from tests.bench.machine import Machine

NUMBERS: Final = "results.json"
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
    """Write a section's files, and its numbers among those of the other sections."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{section.name}.md").write_text(document(section, machine))
    (folder / f"{section.name}.svg").write_text(draw(section.chart))
    numbers = folder / NUMBERS
    known = msgspec.json.decode(numbers.read_bytes()) if numbers.exists() else {}
    known[section.name] = {
        "figures": {name: asdict(figure) for name, figure in section.figures.items()},
        "missing": section.missing,
        "raw": section.raw,
        "machine": asdict(machine),
    }
    numbers.write_bytes(msgspec.json.format(msgspec.json.encode(known), indent=1) + b"\n")
