"""The settings in force: what each is, and who says so."""

import os
from collections.abc import Callable

import click

from shared import display
from shared.errors import SettingsError
from shared.program import tables
from shared.program.env_file import names_from_file
from shared.settings.reader import Reader

settings_option = click.option(
    "--settings", is_flag=True, help="Only print each setting in force, and who says so."
)
"""The option of a check that leaves it at that."""


def print_settings(*reads: Callable[[Reader], object], as_json: bool) -> None:
    """Print each setting that these read, with its source; no secret shows.

    Args:
        reads: read settings.
        as_json: print JSON lines instead of a table.

    Raises:
        SystemExit: some are wrong; they stand on stderr then, and the exit code is 2.
    """
    reader, wrong = Reader(os.environ), None
    try:
        with reader:
            for read in reads:
                read(reader)
    except SettingsError as exc:
        wrong = exc
    # Those that are right are shown all the same: they are what the wrong ones are held against.
    rows = [
        {"name": name, "value": value, "source": _source(reader, name)}
        for name, value in reader.shown.items()
    ]
    tables.emit(rows, ["name", "value", "source"], as_json=as_json, title="Settings in force")
    if wrong is not None:
        display.refuse(wrong)


def _source(reader: Reader, name: str) -> str:
    file = names_from_file().get(name)
    if file is not None:
        return f"env file {file}"
    if not reader.is_set(name) and (path := reader.shown.get(f"{name}_FILE")):
        return f"file {path}"
    return "environment" if reader.is_set(name) else "default"
