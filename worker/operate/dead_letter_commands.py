"""The commands that act on dead letters."""

import base64
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from shared import display
from shared.program import tables
from shared.program.commands import json_option, yes_option
from shared.queue.reach import Missing, Reach
from worker.operate import dead_letters as records
from worker.operate import revival
from worker.operate.asking import anyway_option, ask, known_organization
from worker.operate.dead_letters import DeadLetter, Filter, Selection
from worker.settings import WorkerSettings

_LINE_EVERY = 1000
_LINE_AFTER = 5.0
_PREVIEW = 10
# What a shell says of a program that SIGINT has ended.
_INTERRUPTED = 130

Command = Callable[..., Any]


def _ago(age: str) -> int:
    try:
        return records.ago(age)
    except ValueError as exc:
        raise click.BadParameter(f"expected {exc}, got {age!r:.40}") from None


def _filtered(command: Command) -> Command:
    """The options that say which dead letters are meant."""
    for option in (
        click.option("--younger-than", "died_after", type=_ago, help="Died within, as 2h."),
        click.option("--older-than", "died_before", type=_ago, help="Died before, as 7d."),
        click.option("--type", help="Only this event type."),
        click.option("--reason", type=click.Choice(records.REASONS), help="Only this reason."),
        click.option("--organization", help="Only this organization's."),
    ):
        command = option(command)
    return command


_dry_run = click.option("--dry-run", is_flag=True, help="Only say which ones are meant.")
_all = click.option("--all", "everything", is_flag=True, help="All there are.")
_jobs = click.argument("jobs", nargs=-1, metavar="[JOB]...")


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at the events that were given up, and act on them."""


@dead_letters.command("list")
@_filtered
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@anyway_option
@json_option
def list_them(*, limit: int, yes: bool, as_json: bool, **wanted: Any) -> None:
    """List dead letters, an organization at a time, the newest first."""
    chosen = _filter(wanted, yes=yes)

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
            f"{letter.reason}  died {_time(letter.died_at)}  attempts: {letter.attempts}"
            + (f"  held redeliveries: {letter.held}" if letter.held else ""),
            f"{letter.type or '-'}  {letter.event_id or '-'}",
            letter.error,
        ):
            _say(f"  {line}")


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
        click.echo(display.json_line({**row, "traceback": letter.traceback}))
        return
    for name, value in row.items():
        text = "-" if value in {None, ""} else display.escape_controls(str(value))
        click.echo(f"{name.replace('_', ' '):>12}  {text}")
    for number, line in enumerate(letter.traceback.split("\n") if letter.traceback else []):
        click.echo(f"{'' if number else 'traceback':>12}  {display.escape_controls(line)}")


@dead_letters.command()
@_filtered
@anyway_option
def export(*, yes: bool, **wanted: Any) -> None:
    """Print dead letters as JSON lines, each with its payload in base64."""
    chosen = _filter(wanted, yes=yes)

    async def printed(reach: Reach) -> tuple[int, list[Missing]]:
        number = 0
        async for letter in records.select(reach, chosen):
            # It may be any bytes, for which JSON has no place.
            payload = base64.b64encode(letter.payload).decode()
            more = {"traceback": letter.traceback, "payload": payload}
            click.echo(display.json_line({**_summary(letter), **more}))
            number += 1
        reach.check_some(await Selection(filter=chosen).among(reach))
        return number, reach.missing

    number, missing = ask(printed)
    # Whoever keeps what was printed would else take it for all there is.
    _fail_if_any(missing, "what was printed is not all that matches")
    if not number:
        click.echo("nothing to export: no dead letter matches", err=True)


@dead_letters.command()
@_jobs
@_filtered
@_all
@click.option("--rate", type=click.FloatRange(0.1, 100_000), default=100.0, show_default=True)
@click.option("--force", is_flag=True, help="The unprovable ones, too.")
@_dry_run
@yes_option
def replay(
    *,
    jobs: tuple[str, ...],
    everything: bool,
    rate: float,
    force: bool,
    dry_run: bool,
    yes: bool,
    **wanted: Any,
) -> None:
    """Give dead letters another life; each passes judgement anew.

    It stops by itself when ten in a row have died again. Interrupting it loses nothing, and
    running it again goes on.
    """
    meant = _selected(jobs, wanted, everything=everything, yes=yes)
    if meant.unprovable and not force:
        click.echo(f"{meant.unprovable:,} of them unprovable, left alone without --force")
    if meant.unusable:
        click.echo(f"{meant.unusable:,} of them without the payload that came, left alone")
    if not _confirmed("replay", meant, dry_run=dry_run, yes=yes):
        return
    done = revival.Progress()

    async def run(reach: Reach) -> list[Missing]:
        with _progress("replaying", meant.number) as told:
            replaying = revival.Replay(reach, rate, force=force, told=told, progress=done)
            await replaying.run(meant.selection.letters(reach))
        return reach.missing

    with _interruptible(lambda: done.queued, "replayed"):
        missing = ask(run)
    _tell(done)
    _fail_if_any(missing)


@dead_letters.command()
@_jobs
@_filtered
@_all
@_dry_run
@yes_option
def discard(
    *, jobs: tuple[str, ...], everything: bool, dry_run: bool, yes: bool, **wanted: Any
) -> None:
    """Give dead letters up for good; a late redelivery doesn't bring them back."""
    meant = _selected(jobs, wanted, everything=everything, yes=yes)
    if not _confirmed("discard", meant, dry_run=dry_run, yes=yes):
        return
    gone = 0

    async def run(reach: Reach) -> list[Missing]:
        # The workers' own, since it counts as handled for as long as what they handle.
        retention = WorkerSettings.from_mapping(os.environ).policy.limits.dedupe_retention
        with _progress("discarding", meant.number) as told:

            def one_more() -> None:
                nonlocal gone
                gone += 1
                told(gone)

            letters = meant.selection.letters(reach)
            await revival.discard_all(reach, letters, retention=retention, told=one_more)
        return reach.missing

    with _interruptible(lambda: gone, "discarded"):
        missing = ask(run)
    click.echo(f"{gone:,} discarded")
    _fail_if_any(missing)


def _fail_if_any(
    missing: list[Missing], so: str = "nothing is lost, the same command goes on with the rest"
) -> None:
    """Say that it isn't done for all that were meant."""
    if missing:
        numbers = ", ".join(str(each.partition) for each in missing)
        display.fail(f"left out: partition {numbers}; {so}")


@dataclass
class Meant:
    """What a command acts on: what was there when it was counted, nothing that died since.

    Attributes:
        selection: which ones.
        number: how many there are.
        unprovable: how many of them only ``--force`` replays.
        unusable: how many of them hold nothing to replay.
    """

    selection: Selection
    number: int = 0
    unprovable: int = 0
    unusable: int = 0

    async def count(self, reach: Reach) -> None:
        """Count them, and show the first ones."""
        # By the clock that is behind the others: what dies while somebody reads isn't meant.
        until = min(moment for _, moment in await reach.gather(records.now)) + 1
        named = await self.selection.by_names_of_now(reach)
        self.selection = Selection(named.jobs, named.filter.until(until))
        found: set[str] = set()
        async for letter in self.selection.letters(reach):
            found.add(letter.job)
            self.unprovable += letter.reason == "unprovable"
            self.unusable += not letter.is_usable
            if len(found) <= _PREVIEW:
                about = f"{letter.reason}  {letter.type or '-'}  {letter.event_id or '-'}"
                _say(f"  {letter.job}  {about}")
        reach.check_some(await self.selection.among(reach))
        self.number = len(found)
        if self.number > _PREVIEW:
            click.echo(f"  … and {self.number - _PREVIEW:,} more")
        for job in self.selection.jobs:
            # Of one that is in a partition that is left out nobody knows.
            there = all(each in reach for each in await Selection((job,)).among(reach))
            if there and job not in found:
                click.echo(f"no dead letter: {display.escape_controls(job)}", err=True)


def _selected(
    jobs: tuple[str, ...], wanted: dict[str, Any], *, everything: bool, yes: bool
) -> Meant:
    """What a command acts on; never everything by accident."""
    filters = any(value is not None for value in wanted.values())
    # Never everything by an accident such as an empty variable in a script.
    if sum((bool(jobs), filters, everything)) != 1:
        display.fail("expected jobs, or filters such as --organization, or --all; one of the three")
    meant = Meant(Selection(tuple(dict.fromkeys(jobs)), _filter(wanted, yes=yes)))
    ask(meant.count)
    return meant


def _filter(wanted: dict[str, Any], *, yes: bool) -> Filter:
    organization = wanted["organization"]
    if organization is not None and organization != "?":  # the jobs of no organization
        organization = known_organization(organization, yes=yes, name="--organization")
    # The options are named as the fields are.
    return Filter(**{**wanted, "organization": organization})


def _say(line: str) -> None:
    """Print a line; on a terminal, as much of it as has room."""
    line = display.escape_controls(line)
    if sys.stdout.isatty():
        line = tables.truncate(line, shutil.get_terminal_size().columns)
    click.echo(line)


def _confirmed(verb: str, meant: Meant, *, dry_run: bool, yes: bool) -> bool:
    if not meant.number:
        display.fail(f"nothing to {verb}: expected at least one dead letter, got none that matches")
    if dry_run:
        click.echo(f"would {verb} {meant.number:,}")
        return False
    if not yes and not click.confirm(f"{verb} {meant.number:,}?"):
        click.echo("nothing was changed")
        return False
    return True


@contextmanager
def _interruptible(number: Callable[[], int], done: str) -> Iterator[None]:
    """Say on Ctrl-C how far it has come."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(
            f"interrupted: {number():,} {done} so far; nothing is lost, "
            "the same command goes on with the rest",
            err=True,
        )
        raise SystemExit(_INTERRUPTED) from None


def _tell(done: revival.Progress) -> None:
    told = [f"{done.queued:,} replayed"]
    told += [f"{done.died_again:,} of them dead again so far"] if done.died_again else []
    told += [f"{done.known:,} waiting already"] if done.known else []
    told += [f"{done.absent:,} gone meanwhile"] if done.absent else []
    told += [f"{done.unprovable:,} unprovable left alone"] if done.unprovable else []
    told += [f"{done.unusable:,} without the payload that came"] if done.unusable else []
    told += [f"{done.moved:,} on their way to another partition"] if done.moved else []
    click.echo(", ".join(told))
    if done.stopped:
        display.fail(
            f"stopped: the last {revival.FAILURES_IN_A_ROW} replays died again; "
            "the rest is left as it was (see: dead-letters list)"
        )


@contextmanager
def _progress(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a plain line now and then elsewhere."""
    # On stderr, so that what a command prints can be piped.
    if not sys.stderr.isatty():
        said = monotonic()

        def line(seen: int) -> None:
            nonlocal said
            if seen % _LINE_EVERY == 0 or monotonic() - said > _LINE_AFTER:
                said = monotonic()
                click.echo(f"{doing}: {seen:,} of {total:,}", err=True)

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda seen: bar.update(task, completed=seen)


def _summary(letter: DeadLetter) -> dict[str, object]:
    return {
        "job": letter.job,
        **{name: getattr(letter, name) for name in records.TEXTS},
        "attempts": letter.attempts,
        "received": _time(letter.received_at),
        "died": _time(letter.died_at),
        "held": letter.held,
        "held_at": _time(letter.held_at),
    }


def _time(milliseconds: int) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).isoformat(timespec="milliseconds")
