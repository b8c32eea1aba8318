"""Which dead letters a command means: its options, and what is there by them."""

import shutil
import sys
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, fields
from heapq import heappush, heappushpop
from typing import Any

import click

from shared import display
from shared.program import tables
from shared.queue.reach import Reach
from worker.operate import dead_letters as records
from worker.operate.asking import ask, known_organization
from worker.operate.dead_letters import DeadLetter, Selection
from worker.operate.dead_lists import Filter, owner_of
from worker.operate.failure_groups import ID_PATTERN
from worker.operate.revival import why_left_alone

_PREVIEW = 10

Command = Callable[..., Any]


def _ago(age: str) -> int:
    try:
        return records.ago(age)
    except ValueError as exc:
        raise click.BadParameter(f"expected {exc}, got {age!r:.40}") from None


def _group(_context: click.Context, _option: click.Parameter, group: str | None) -> str | None:
    if group is not None and not ID_PATTERN.fullmatch(group):
        raise click.BadParameter(
            f"expected what dead-letters groups shows, as org_1:0f3a5c7e9b1d, got {group!r:.80}"
        )
    return group


def _age_option(name: str, field_: str, text: str) -> Callable[[Command], Command]:
    return click.option(name, field_, type=_ago, metavar="AGE", help=text)


def filtered(command: Command) -> Command:
    """The options that say which dead letters are meant."""
    for option in (
        _age_option("--younger-than", "died_after", "Died within, as 2h."),
        _age_option("--older-than", "died_before", "Died before, as 7d."),
        click.option("--type", help="Only this event type."),
        click.option("--reason", type=click.Choice(records.REASONS), help="Only this reason."),
        click.option(
            "--group", callback=_group, help="Only this group (see: dead-letters groups)."
        ),
        click.option("--organization", help="Only this organization's."),
    ):
        command = option(command)
    return command


dry_run_option = click.option("--dry-run", is_flag=True, help="Only say which ones are meant.")
all_option = click.option("--all", "everything", is_flag=True, help="All there are.")
jobs_argument = click.argument("jobs", nargs=-1, metavar="[JOB]...")


@dataclass
class Meant:
    """What a command acts on: what was there when it was counted, nothing that died since.

    Attributes:
        selection: which ones.
        number: how many there are.
        unprovable: how many of those that match only ``--force`` replays.
        unusable: how many of those hold nothing to replay.
        of: how many match, where ``number`` is of a sample of them; else ``None``.
        about: which ones, in words.
    """

    selection: Selection
    about: str = ""
    number: int = 0
    unprovable: int = 0
    unusable: int = 0
    of: int | None = None

    async def count(self, reach: Reach, *, limit: int | None = None, force: bool = False) -> None:
        """Count them, and show the first ones.

        Args:
            reach: where they are.
            limit: no more than so many are meant, the oldest of those that a replay would take.
            force: whether that takes the unprovable ones, too.
        """
        named = await self.selection.by_names_of_now(reach)
        self.selection = Selection(named.jobs, await records.those_of_now(reach, named.filter))
        found, sample = set[str](), _Oldest(limit or 0)
        async for letter in self.selection.letters(reach):
            found.add(letter.job)
            self.unprovable += letter.reason == "unprovable"
            self.unusable += not letter.is_usable
            if limit is None and len(found) <= _PREVIEW:
                say(_line(letter))
            elif limit is not None and not why_left_alone(letter, force=force):
                sample.add(letter)
        reach.check_some(await self.selection.among(reach))
        await self._tell_absent(reach, found)
        self.number = len(found)
        if limit is not None:
            self.of, jobs, lines = self.number, *sample.taken()
            self.number, self.selection = len(jobs), Selection(jobs)
            for line in lines[:_PREVIEW]:
                say(line)
        if self.number > _PREVIEW:
            click.echo(f"  … and {self.number - _PREVIEW:,} more")

    async def _tell_absent(self, reach: Reach, found: set[str]) -> None:
        for job in self.selection.jobs:
            # Of one that is in a partition that is left out nobody knows.
            there = all(each in reach for each in await Selection((job,)).among(reach))
            if there and job not in found:
                click.echo(f"no dead letter: {display.escape_controls(job)}", err=True)


@dataclass
class _Oldest:
    """Of many dead letters, those that died first; of the others nothing is kept.

    Attributes:
        most: how many.
    """

    most: int
    _heap: list[tuple[int, int, str, str]] = field(default_factory=list)
    _seen: int = 0

    def add(self, letter: DeadLetter) -> None:
        self._seen += 1
        # What died last is the first to go, of what died at once whoever came last.
        item = (-letter.died_at, -self._seen, letter.job, _line(letter))
        if len(self._heap) < self.most:
            heappush(self._heap, item)
        else:
            heappushpop(self._heap, item)

    @property
    def is_full(self) -> bool:
        return len(self._heap) >= self.most

    def taken(self) -> tuple[tuple[str, ...], list[str]]:
        """Their jobs, the oldest first, and a line about each."""
        rows = sorted(self._heap, reverse=True)
        return tuple(job for _, _, job, _ in rows), [line for *_, line in rows]


async def oldest(
    reach: Reach, selection: Selection, most: int, *, force: bool, is_again: bool = False
) -> tuple[str, ...]:
    """The jobs of the first to have died, of those that a replay would take.

    Args:
        reach: where they are.
        selection: of which.
        most: how many.
        force: whether the replay takes the unprovable ones, too.
        is_again: whether those are left out that wait by a replay.
    """
    sample = _Oldest(most)
    if most <= 0:
        return ()
    # Those of one organization come in order: of twenty thousand, five needn't be looked for.
    is_in_order = not selection.jobs and owner_of(selection.filter) not in {None, "?"}
    async with aclosing(selection.letters(reach)) as letters:
        async for letter in letters:
            if not (is_again and letter.by_hand) and not why_left_alone(letter, force=force):
                sample.add(letter)
            if is_in_order and sample.is_full:
                break
    jobs, _ = sample.taken()
    return jobs


def _line(letter: DeadLetter) -> str:
    about = f"{letter.reason}  {letter.type or '-'}  {letter.event_id or '-'}"
    return f"  {letter.job}  {about}"


def selected(  # what a command was given
    jobs: tuple[str, ...],
    wanted: dict[str, Any],
    *,
    everything: bool,
    yes: bool,
    limit: int | None = None,
    force: bool = False,
) -> Meant:
    """What a command acts on; never everything by accident."""
    filters = any(value is not None for value in wanted.values())
    # Never everything by an accident such as an empty variable in a script.
    if sum((bool(jobs), filters, everything)) != 1:
        display.fail("expected jobs, or filters such as --organization, or --all; one of the three")
    chosen = Selection(tuple(dict.fromkeys(jobs)), filter_of(wanted, yes=yes))
    meant = Meant(chosen, _about(chosen, limit))
    ask(lambda reach: meant.count(reach, limit=limit, force=force))
    return meant


def _about(selection: Selection, limit: int | None) -> str:
    """Which ones somebody means, in words."""
    if selection.jobs:
        return f"{len(selection.jobs):,} chosen" if selection.jobs[1:] else selection.jobs[0]
    given = {field.name: getattr(selection.filter, field.name) for field in fields(Filter)}
    said = [f"{name.replace('_', ' ')} {_said(it)}" for name, it in given.items() if it is not None]
    sample = "" if limit is None else f"the oldest {limit:,} of: "
    return sample + (", ".join(said) or "all")


def _said(value: str | int) -> str | None:
    try:
        return display.moment(value / 1000) if isinstance(value, int) else value
    except (OverflowError, OSError, ValueError):  # before there were clocks
        return "ever"


def filter_of(wanted: dict[str, Any], *, yes: bool) -> Filter:
    """The filter that the options say."""
    organization = wanted["organization"]
    if organization is not None and organization != "?":  # the jobs of no organization
        organization = known_organization(organization, yes=yes, name="--organization")
    # The options are named as the fields are.
    return Filter(**{**wanted, "organization": organization})


def say(line: str) -> None:
    """Print a line; on a terminal, as much of it as has room."""
    line = display.escape_controls(line)
    if sys.stdout.isatty():
        line = tables.truncate(line, shutil.get_terminal_size().columns)
    click.echo(line)
