"""``python -m worker sql create``: the inbox's table in a handlers' database."""

import asyncio
import os

import click

from shared.errors import SettingsError
from shared.settings.reader import NOTHING


@click.group()
def sql() -> None:
    """What handlers' own databases need; see "A database, exactly once" in worker/README.md."""


@sql.command()
@click.option(
    "--setting",
    default="DATABASE_URL",
    show_default=True,
    metavar="NAME",
    help="The variable that holds the database's URL.",
)
@click.option("--show", is_flag=True, help="Print the statements, and change nothing.")
def create(setting: str, *, show: bool) -> None:
    """Make the inbox's table where it is missing."""
    # SQLAlchemy is an extra, and the list of commands has to come without.
    from worker.sql import inbox  # noqa: PLC0415

    url = os.environ.get(setting, "")
    if not url:
        raise SettingsError(setting, "the URL of a database", NOTHING)
    if show:
        click.echo(inbox.statements(url))
    elif asyncio.run(inbox.create(url)):
        click.echo("made")
    else:
        click.echo("it was there already")
