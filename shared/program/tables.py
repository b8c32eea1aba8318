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
    """Print rows to stdout as a table.

    Args:
        rows: what to list.
        columns: the keys to show, in this order; a row may lack some.
        title: the table's title.
    """
    table = Table(title=Text(title) if title else None, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(Text(column.replace("_", " ")), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(column))) for column in columns))
    if not table.row_count:
        click.echo(f"{title or 'rows'}: none")
        return
    stdout_console().print(table)


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
