"""Shows how far the demo is: bars on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

_LINE_SECONDS: Final = 1.0
_BAR_COLUMNS: Final = 24


@dataclass(frozen=True, slots=True)
class Figures:
    """Where the events are.

    Attributes:
        sent: deliveries that were begun.
        accepted: those that were accepted.
        refused: those that were refused.
        handled: events that changed the state.
        duplicates: deliveries that a worker found to be duplicates.
        retried: attempts that failed.
        dead: events that became dead letters.
    """

    sent: int = 0
    accepted: int = 0
    refused: int = 0
    handled: int = 0
    duplicates: int = 0
    retried: int = 0
    dead: int = 0

    @property
    def moved(self) -> int:
        """A number that grows whenever anything happens."""
        return self.sent + self.accepted + self.refused + self.ended + self.retried

    @property
    def ended(self) -> int:
        """New deliveries that the workers are done with."""
        return self.handled + self.duplicates + self.dead


@dataclass(frozen=True, slots=True)
class Goals:
    """What the figures will be in the end."""

    sent: int
    accepted: int
    handled: int


Show = Callable[[Figures], None]


@contextmanager
def progress(console: Console, goals: Goals) -> Iterator[Show]:
    """Show figures while a block runs, each time that it has new ones."""
    if console.is_terminal:
        with _bars(console, goals) as show:
            yield show
    else:
        with _lines(console, goals) as show:
            yield show


@contextmanager
def _bars(console: Console, goals: Goals) -> Iterator[Show]:
    columns = (
        TextColumn("  {task.description:<9}"),
        BarColumn(_BAR_COLUMNS),
        _Count(),
        _Rate(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=console) as bars:
        sent = bars.add_task("sent", total=goals.sent, note="")
        accepted = bars.add_task("accepted", total=goals.accepted, note="")
        handled = bars.add_task("handled", total=goals.handled, note="")

        def show(now: Figures) -> None:
            bars.update(sent, completed=now.sent)
            bars.update(accepted, completed=now.accepted, note=f"{now.refused} refused")
            note = f"{now.retried} retried, {now.dead} dead"
            bars.update(handled, completed=now.handled, note=note)

        yield show


class _Count(ProgressColumn):
    """How many of how many."""

    def render(self, task: Task) -> Text:
        total = f"{task.total or 0:,.0f}"
        return Text(f"{task.completed:>{len(total)},.0f}/{total}", style="bold")


class _Rate(ProgressColumn):
    """How many a second, from the first to the last."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("       -/s" if rate is None else f"{rate:>8,.0f}/s", style="cyan")


@contextmanager
def _lines(console: Console, goals: Goals) -> Iterator[Show]:
    last, told, next_at = Figures(), Figures(), 0.0

    def tell() -> None:
        nonlocal told, next_at
        told, next_at = last, time.monotonic() + _LINE_SECONDS
        line = (
            f"sent {told.sent:,} of {goals.sent:,}, accepted {told.accepted:,}, "
            f"refused {told.refused:,}, handled {told.handled:,} of {goals.handled:,}, "
            f"retried {told.retried:,}, dead {told.dead:,}"
        )
        click.echo(line, file=console.file)

    def show(now: Figures) -> None:
        nonlocal last
        last = now
        if time.monotonic() >= next_at:
            tell()

    yield show
    if last != told:
        tell()
