"""``python -m worker events``: what is known of one event."""

import shutil
import sys
from typing import Any, Final

import click

from shared import display
from shared.program.commands import json_option
from shared.queue.reach import Missing, Reach
from worker.operate.asking import anyway_option, ask, known_organization
from worker.operate.lookup import FoundEvent
from worker.operate.searching import LIMITS, Limits, Search, search_everywhere
from worker.operate.timeline import timeline, written

_NOT_FOUND = 1


@click.group()
def events() -> None:
    """Find out where an event is, and how it got there."""


@events.command()
@click.argument("event_id", metavar="ID")
@click.option("--organization", metavar="ORG", help="Whose it is: found faster.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=LIMITS.seconds,
    show_default=True,
    help="So long, at most, through what waits.",
)
@anyway_option
@json_option
def show(
    event_id: str, *, organization: str | None, seconds: float, yes: bool, as_json: bool
) -> None:
    """Show the story of the event with this id, Sellfern's or its job's.

    Its acceptance, each attempt, what it waits for now, its end; what isn't known isn't said.

    What waits and no worker has had yet is known by its body alone, so all that waits is looked
    through. Exit code 1 where it isn't found; how much was looked at is said.
    """
    if organization is not None:
        organization = known_organization(organization, yes=yes, name="--organization")

    async def searched(reach: Reach) -> tuple[Search, list[Missing]]:
        limits = Limits(seconds=seconds)
        return await search_everywhere(reach, event_id, organization, limits), reach.missing

    search, missing = ask(searched)
    for number, found in enumerate(search.found):
        if as_json:
            click.echo(display.json_line(_row(found)))
        else:
            click.echo("\n" * bool(number), nl=False)
            _print(found)
    if not search.found:
        _tell_not_found(search, missing)
        raise SystemExit(_NOT_FOUND)


def _tell_not_found(search: Search, missing: list[Missing]) -> None:
    click.echo(f"not found: {search.sentence}", err=True)
    if search.is_whole and not missing:
        see = " (see: dead-letters list)" * search.has_looked
        click.echo(f"{search.meaning}{see}", err=True)
    elif not search.is_whole:
        click.echo("it may be among the others: --organization ORG, or more --seconds", err=True)


def _row(event: FoundEvent) -> dict[str, Any]:
    """What is known, by names that stay; what isn't known is null."""
    letter, mark, last = event.letter, event.mark, event.past.last
    return {
        "event_id": event.event_id or None,
        "type": event.type or None,
        "organization": event.organization,
        "endpoint": event.endpoint or None,
        "job": event.job,
        "state": event.state,
        "where": event.place.text,
        "accepted": display.moment(event.received_at),
        "due": display.moment(event.due_at),
        "attempts": event.attempts if event.is_counted else None,
        "throttled": event.throttled,
        "mark": mark and mark.state,
        "mark_job": mark and mark.job,
        "mark_until": mark and display.moment(mark.expires_at),
        "last_attempt": last and last.number,
        "last_attempt_at": last and display.moment(last.at),
        "last_error": letter.error if letter else last.said if last else None,
        "died": letter and display.moment(letter.died_at / 1000),
        "reason": letter and letter.reason,
        "held": letter.held if letter else 0,
        "traceback": (letter.traceback if letter else event.past.traceback) or None,
        "timeline": [each.row() for each in timeline(event)],
    }


_NAMES: Final = 15
"""The column at which the names end of what is shown of one."""

_TOLD_BELOW: Final = {"timeline", "traceback", "last_attempt", "last_attempt_at"}


def _print(event: FoundEvent) -> None:
    row = _row(event)
    if row["mark_job"] == event.job:
        row["mark_job"] = None
    for name, value in row.items():
        if name not in _TOLD_BELOW and (value not in {None, "", 0} or name == "attempts"):
            text = "-" if value is None else str(value)
            display.labelled(name.replace("_", " "), [text], _NAMES)
    if row["traceback"]:
        display.labelled("traceback", row["traceback"].split("\n"), _NAMES)
    click.echo()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for line in written(timeline(event), width):
        click.echo(line)
