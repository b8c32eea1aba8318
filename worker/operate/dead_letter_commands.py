"""The commands that show dead letters, in one group with those that act on them."""

import base64
import sys
from typing import Any, Final

import click

from shared import display
from shared.program import tables
from shared.program.commands import LazyGroup, json_option
from shared.queue.reach import Missing, Reach
from worker.operate import dead_letters as records
from worker.operate import runs
from worker.operate.asking import anyway_option, ask, fail_if_any
from worker.operate.dead_letters import DeadLetter, Selection
from worker.operate.failure_groups import MINUTES, FailureGroup, largest, unlisted
from worker.operate.meant import filter_of, filtered, say

_NAMES: Final = 12
"""The column at which the names end of what is shown of one."""

_SAMPLE: Final = 5
"""Of a larger group so many are to be tried first."""

_ACTIONS: Final = {
    "discard": "worker.operate.dead_letter_actions:discard",
    "replay": "worker.operate.dead_letter_actions:replay",
}


@click.group("dead-letters", cls=LazyGroup, lazy=_ACTIONS)
def dead_letters() -> None:
    """Look at the events that were given up, and act on them."""


@dead_letters.command("list")
@filtered
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@anyway_option
@json_option
def list_them(*, limit: int, yes: bool, as_json: bool, **wanted: Any) -> None:
    """List dead letters, an organization at a time, the newest first."""
    chosen = filter_of(wanted, yes=yes)

    async def collect(reach: Reach) -> list[DeadLetter]:
        found: list[DeadLetter] = []
        async for letter in records.select(reach, chosen, newest_first=True):
            found.append(letter)
            # One beyond the limit tells that there are more, without counting them.
            if len(found) > limit:
                break
        reach.check_some(await Selection(filter=chosen).among(reach))
        return found

    found = ask(collect)
    _print(found[:limit], as_json=as_json)
    if len(found) > limit:
        click.echo(f"only the first {limit}; --limit shows more", err=True)


def _print(letters: list[DeadLetter], *, as_json: bool) -> None:
    """Print a table; on a terminal, which is too narrow for it, a few lines each."""
    if as_json or not letters or not sys.stdout.isatty():
        tables.emit(
            map(_summary, letters),
            ["job", "died", "reason", "type", "event_id", "attempts", "held", "error"],
            as_json=as_json,
            title="Dead letters",
        )
        return
    for letter in letters:
        click.secho(display.escape_controls(letter.job), bold=True)
        for line in (
            f"{letter.reason}  died {display.moment(letter.died_at / 1000)}  "
            f"attempts: {letter.attempts}"
            + (f"  held redeliveries: {letter.held}" if letter.held else "")
            + "  replayed, waits" * letter.by_hand,
            f"{letter.type or '-'}  {letter.event_id or '-'}",
        ):
            click.echo(f"  {display.escape_controls(line)}")
        say(f"  {letter.error}")


@dead_letters.command()
@click.option("--type", help="Only this event type.")
@click.option("--reason", type=click.Choice(records.REASONS), help="Only this reason.")
@click.option("--organization", help="Only this organization's.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@anyway_option
@json_option
def groups(*, limit: int, yes: bool, as_json: bool, **wanted: Any) -> None:
    """List failure groups, the largest first: dead letters that died of one cause.

    Those of one organization, type and reason, at one place of the handlers' code, with the same
    error but for ids, numbers, dates and names. list, replay and discard take --group.
    """
    chosen = filter_of(wanted, yes=yes)

    async def collect(reach: Reach) -> tuple[list[FailureGroup], int | None, int]:
        found, number = await largest(reach, chosen, limit + 1)
        reach.check_some(await reach.having(chosen.organization))
        return found, number, await unlisted(reach)

    found, number, missing = ask(collect)
    _print_groups(found[:limit], as_json=as_json)
    if len(found) > limit:
        of = "" if number is None else f" of {number:,}"
        click.echo(f"only the first {limit}{of}; --limit shows more", err=True)
    if missing:
        told = f"{missing:,} dead letters of an earlier version are in no group yet"
        click.echo(f"{told}; a worker sees to that within {MINUTES} minutes", err=True)


def _print_groups(found: list[FailureGroup], *, as_json: bool) -> None:
    """Print a table; on a terminal, which is too narrow for it, a few lines each."""
    if as_json or not found or not sys.stdout.isatty():
        columns = ["group", "letters", "first", "last", "reason", "type", "error", "place"]
        tables.emit(map(_group_summary, found), columns, as_json=as_json, title="Failure groups")
        return
    for group in found:
        click.secho(f"{group.number:,}  {display.escape_controls(group.title)}", bold=True)
        sample = f" --limit {_SAMPLE}" if group.number > _SAMPLE else ""
        first, last = (display.moment(at / 1000) for at in (group.first_at, group.last_at))
        for line in (
            f"{group.reason}  {group.type or '-'}  {group.organization}  {group.place}",
            f"first {first}  last {last}",
            f"dead-letters replay --group {group.id}{sample}",
        ):
            click.echo(f"  {display.escape_controls(line)}")


def _group_summary(group: FailureGroup) -> dict[str, object]:
    return {
        "group": group.id,
        "organization": group.organization,
        "letters": group.number,
        "first": display.moment(group.first_at / 1000),
        "last": display.moment(group.last_at / 1000),
        "reason": group.reason,
        "type": group.type,
        "error": group.title,
        "place": group.place,
        "sample": group.sample,
    }


@dead_letters.command()
@click.argument("job")
@json_option
def show(job: str, *, as_json: bool) -> None:
    """Show one dead letter with its body."""
    letter = ask(lambda reach: records.find_anywhere(reach, job))
    if letter is None:
        display.fail(f"JOB: expected the job of a dead letter (see: dead-letters list), got {job}")
    row = {**_summary(letter), "body": letter.body.decode(errors="backslashreplace")}
    if as_json:
        past = [each.row() for each in letter.past.happenings]
        click.echo(display.json_line({**row, "traceback": letter.traceback, "history": past}))
        return
    for name, value in row.items():
        text = "-" if value in {None, ""} else str(value)
        display.labelled(name.replace("_", " "), [text], _NAMES)
    history = (
        f"{display.moment(each.at)}  {each.outcome} {each.number}: {each.said}"
        for each in letter.past.happenings
    )
    display.labelled("history", history, _NAMES)
    if letter.traceback:
        display.labelled("traceback", letter.traceback.split("\n"), _NAMES)


@dead_letters.command("runs")
@json_option
def list_runs(*, as_json: bool) -> None:
    """List the last replays and discards, in consoles and by commands, and how far each is."""
    found = ask(runs.read_all)
    columns = ("id", "started", "action", "about", "who", "by", "address", "state", "outcome")
    tables.emit(map(_run, found), columns, as_json=as_json, title="Runs")


def _run(run: runs.Run) -> dict[str, object]:
    named = {
        name: getattr(run, name) for name in ("about", "who", "by", "address", "state", "note")
    }
    return {
        "id": run.id,
        "action": run.verb,
        "started": display.moment(run.started),
        "ended": display.moment(run.ended),
        **named,
        "taken_up_by": run.taken_up or None,
        "looked_at": run.seen,
        "of": run.total,
        "outcome": run.outcome,
    }


@dead_letters.command()
@filtered
@anyway_option
def export(*, yes: bool, **wanted: Any) -> None:
    """Print dead letters as JSON lines, each with its payload in base64."""
    chosen = filter_of(wanted, yes=yes)

    async def printed(reach: Reach) -> tuple[int, list[Missing]]:
        number = 0
        async for letter in records.select(reach, chosen):
            # It may be any bytes, for which JSON has no place.
            payload = base64.b64encode(letter.payload).decode()
            past = [each.row() for each in letter.past.happenings]
            more = {"traceback": letter.traceback, "history": past, "payload": payload}
            click.echo(display.json_line({**_summary(letter), **more}))
            number += 1
        reach.check_some(await Selection(filter=chosen).among(reach))
        return number, reach.missing

    number, missing = ask(printed)
    # Whoever keeps what was printed would else take it for all there is.
    fail_if_any(missing, "what was printed is not all that matches")
    if not number:
        click.echo("nothing to export: no dead letter matches", err=True)


def _summary(letter: DeadLetter) -> dict[str, object]:
    return {
        "job": letter.job,
        **{name: getattr(letter, name) for name in records.TEXTS},
        "group": letter.group_id,
        "attempts": letter.attempts,
        "received": display.moment(letter.received_at / 1000),
        "died": display.moment(letter.died_at / 1000),
        "held": letter.held,
        "held_at": display.moment(letter.held_at / 1000),
        "replayed": display.moment(letter.replayed_at / 1000),
        "replayed_by": letter.replayed_by or None,
    }
