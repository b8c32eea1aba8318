"""``python -m worker handlers``: which handler runs for what."""

import os
from collections.abc import Iterator
from typing import Any

import click

from shared.program.commands import json_option
from shared.program.tables import emit
from shared.settings.durations import format_duration
from shared.settings.reader import Reader
from worker.loading import load_handlers
from worker.registry import Handlers, Registration, shown
from worker.settings import read_handlers

_COLUMNS = ("event", "organization", "handler", "data", "turn", "takes")


@click.command()
@click.argument("event", required=False)
@click.option("--organization", metavar="ORG", help="Whose event it is.")
@json_option
def handlers(event: str | None, organization: str | None, *, as_json: bool) -> None:
    """List what runs for what; for EVENT, the one first that runs, and what it runs instead of.

    Reads no more than the handlers. Exit code 1 where nothing runs for EVENT.
    """
    with Reader(os.environ) as reader:
        path = read_handlers(reader)
    found = load_handlers(path)
    chosen = list(found) if event is None else list(_ranked(found, event, organization))
    title = "handlers" if event is None else f"handlers for {event}"
    emit(map(_row, chosen), _COLUMNS, as_json=as_json, title=title)
    if not chosen:
        raise SystemExit(1)


def _ranked(found: Handlers[Any], event: str, organization: str | None) -> Iterator[Registration]:
    """Those that match, the most specific first; without an organization, those of each."""
    matching = [
        each for each in found if each.matches(event, organization or each.organization or "")
    ]
    yield from sorted(matching, key=lambda each: each.rank, reverse=True)


def _row(registration: Registration) -> dict[str, object]:
    is_ignored = registration.function is None
    return {
        "event": registration.pattern,
        "organization": registration.organization,
        "handler": "(ignored)" if is_ignored else registration.name,
        "data": None if is_ignored else shown(registration.data.type),
        "turn": _turn(registration),
        "takes": shown(registration.resources) if registration.lender else None,
    }


def _turn(registration: Registration) -> str | None:
    turn = registration.turn
    if turn is None:
        return None
    quiet = f", quiet {format_duration(turn.quiet / 1000)}" if turn.quiet else ""
    latest = ", the latest" if turn.latest else ""
    return (turn.field or "by a function") + latest + quiet
