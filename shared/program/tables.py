"""What commands list: a table in a terminal, or JSON lines.

Apart from `shared.display`, since drawing costs a program's start a tenth of a second, and only
commands draw.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import click
from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.display import escape_controls, json_line

_PIPE_WIDTH: Final = 10_000  # no terminal: no line is broken, so grep and cut work
_LONGEST_WORD: Final = 30
"""Longer ones may be broken where a terminal is narrow; numbers and moments are shorter."""
_LEAST: Final = 12
"""Columns that a text of many words has at the least."""


def truncate(text: str, width: int) -> str:
    """Cut text that takes more than ``width`` columns of a terminal; an ellipsis tells."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…"


def emit(
    rows: Iterable[Mapping[str, object]],
    columns: Sequence[str],
    *,
    as_json: bool,
    title: str | None = None,
) -> None:
    """Print rows to stdout: one JSON object a line with all that a row has, or a table.

    Args:
        rows: what to list; with ``as_json`` each is printed as soon as it comes.
        columns: the keys that the table shows, in this order; a row may lack some.
        as_json: print JSON lines.
        title: the table's title.
    """
    if as_json:
        for row in rows:
            # As they come: a long listing begins at once, and may be cut short by `head`.
            click.echo(json_line(row))
    else:
        draw(rows, columns, title)


def stdout_console() -> Console:
    """Give a rich console on stdout that shows text as it is: no emoji codes, no guessing."""
    terminal = sys.stdout.isatty()
    return Console(
        emoji=False, highlight=False, soft_wrap=False, width=None if terminal else _PIPE_WIDTH
    )


def draw(rows: Iterable[Mapping[str, object]], columns: Sequence[str], title: str | None) -> None:
    """Print rows to stdout as a table; as a list of what each has where that has no room.

    Args:
        rows: what to list.
        columns: the keys to show, in this order; a row may lack some.
        title: the table's title.
    """
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    if not cells:
        click.echo(f"{title or 'rows'}: none")
        return
    names = [column.replace("_", " ") for column in columns]
    console = stdout_console()
    widths = _widths([names, *cells], console.width)
    table = _records(names, cells) if widths is None else _table(names, widths, cells)
    table.title, table.title_justify = Text(title) if title else None, "left"
    console.print(table)


def _widths(lines: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """How wide each column is, so that nothing of up to `_LONGEST_WORD` is broken; if it can be."""
    columns = [*zip(*lines, strict=True)]
    widths = [min(room, max(map(cell_len, column))) for column in columns]
    least = [min(width, _least(column)) for width, column in zip(widths, columns, strict=True)]
    room -= 3 * len(columns) + 1  # what is between them
    if sum(least) > room:
        return None
    while sum(widths) > room:
        able = [each for each, width in enumerate(widths) if width > least[each]]
        widths[max(able, key=widths.__getitem__)] -= 1
    return widths


def _least(column: Iterable[str]) -> int:
    longest = max(cell_len(word) for text in column for word in text.split() or [""])
    return max(_LEAST, min(longest, _LONGEST_WORD))


def _table(names: Sequence[str], widths: Sequence[int], cells: Iterable[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name, width in zip(names, widths, strict=True):
        table.add_column(Text(name), overflow="fold", width=width)
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _records(names: Sequence[str], cells: Iterable[Sequence[str]]) -> Table:
    """A line or more for each thing that a row has, and an empty one behind each row."""
    width = max(map(len, names))
    table = Table(box=None, show_header=False)
    table.add_column(overflow="fold")
    for row in cells:
        for name, cell in zip(names, row, strict=True):
            if cell:
                table.add_row(Text.assemble((f"{name:<{width}}", "bold"), "  ", cell))
        table.add_row()
    return table


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return escape_controls(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return escape_controls(", ".join(value))
    if isinstance(value, Mapping | list | tuple):
        return json_line(value)
    return escape_controls(str(value))
