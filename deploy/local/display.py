"""What the demo shows, in the 80 columns of a terminal or in a log."""

import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import click
from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column, Table
from rich.text import Text

from deploy.local.account import Account, Evidence, Row
from deploy.local.plan import Plan
from deploy.local.stage import python_as_typed
from deploy.local.system import System
from shared.display import escape_controls
from shared.queue.partition import home

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
    def ended(self) -> int:
        """New deliveries that the workers are done with."""
        return self.handled + self.duplicates + self.dead


Show = Callable[[Figures], None]


@contextmanager
def progress(console: Console, goals: Figures) -> Iterator[Show]:
    """Show figures while a block runs: bars on a terminal, a plain line now and then elsewhere.

    Args:
        console: where to.
        goals: what the figures will be in the end.
    """
    if console.is_terminal:
        with _bars(console, goals) as show:
            yield show
    else:
        with now_and_then(console, _LINE_SECONDS) as tell:
            yield lambda now: tell(_line(now, goals))


@contextmanager
def _bars(console: Console, goals: Figures) -> Iterator[Show]:
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
        # Rich's own column shows bytes.
        rate = task.finished_speed or task.speed
        return Text("       -/s" if rate is None else f"{rate:>8,.0f}/s", style="cyan")


@contextmanager
def now_and_then(console: Console, seconds: float) -> Iterator[Callable[[str], None]]:
    """Print a line each so many seconds of those that a block has, and its last one in any case."""
    last, told, next_at = "", "", 0.0

    def tell(line: str) -> None:
        nonlocal last, told, next_at
        last = line
        # Where no terminal is there is a log, which nobody reads if it has a line for each look.
        if time.monotonic() >= next_at:
            told, next_at = line, time.monotonic() + seconds
            click.echo(line, file=console.file)

    yield tell
    # The end is what somebody looks for in a log.
    if last != told:
        click.echo(last, file=console.file)


def _line(now: Figures, goals: Figures) -> str:
    return (
        f"sent {now.sent:,} of {goals.sent:,}, accepted {now.accepted:,}, "
        f"refused {now.refused:,}, handled {now.handled:,} of {goals.handled:,}, "
        f"retried {now.retried:,}, dead {now.dead:,}"
    )


_PIPE_COLUMNS: Final = 100
_LATE = "yellow"
_GOOD = "green"
_BAD = "bold red"


def console() -> Console:
    """A console on stdout; in a pipe it has a width that people read."""
    # Without a terminal Rich takes 80 columns, and would break commands that are to be copied.
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    return Console(emoji=False, highlight=False, width=width)


def show(console: Console, parts: Iterable[RenderableType]) -> None:
    """Print one below the other."""
    for part in parts:
        console.print(part)


def opening(plan: Plan) -> Iterator[RenderableType]:
    """What is going to happen."""
    again = [delivery for delivery in plan.deliveries if delivery.is_again]
    other = sum(delivery.has_other_bytes for delivery in again)
    yield Text(
        f"{len(plan.events):,} events of {len(plan.organizations)} organizations, seed {plan.seed}",
        style="bold",
    )
    yield indented(
        f"{len(again):,} are sent twice ({other:,} in other bytes), "
        f"{plan.out_of_order:,} after a later one of their order"
    )
    yield ""


def places(system: System) -> Iterator[RenderableType]:
    """What runs where."""
    grid = Table.grid(padding=(0, 2))
    number = system.partitions
    divided = f", {number} partitions" if number > 1 else ""
    grid.add_row("  Redis", system.environ["REDIS_URL"], f"appendfsync always{divided}")
    grid.add_row("  ingress", f"{system.url}…", f"pid {system.ingress.pid}")
    for worker, port in zip(system.workers, system.worker_admins, strict=True):
        grid.add_row(f"  {worker.name}", f"http://127.0.0.1:{port}/metrics", f"pid {worker.pid}")
    yield grid
    yield ""


def account_table(account: Account) -> RenderableType:
    """The rows of the account."""
    rows = table("account", right("expected"), right("got"), "", Column("told by", style="dim"))
    for row in account.rows:
        rows.add_row(*_cells(row))
    return rows


def _cells(row: Row) -> tuple[Text, ...]:
    style = "dim" if row.is_part else ""
    mark = Text("✓", style=_GOOD) if row.balances else Text("✗", style=_BAD)
    # The code of an ingress's answer is text from another program.
    name = escape_controls(row.name)
    return (
        Text(f"  {name}" if row.is_part else name, style=style),
        Text(f"{row.expected:,}", style=style),
        Text(f"{row.got:,}", style=style if row.balances else _BAD),
        mark,
        Text(row.note),
    )


def projection(plan: Plan, evidence: Evidence) -> Iterator[RenderableType]:
    """One order as ``worker state`` knows it, with when its events were sent."""
    organization, order = plan.most_shuffled
    value = evidence.orders.get(plan.most_shuffled, {"status": "unknown", "timeline": []})
    yield Text.assemble(
        f"  {order} of {organization}, as worker state knows it: ", (str(value["status"]), "bold")
    )
    rows = table("happened", "event", "type", "status", right("try"), "sent as")
    latest = 0
    for entry in value["timeline"]:
        numbers = plan.numbers.get((organization, entry["event_id"]), [0])
        rows.add_row(
            f"{datetime.fromisoformat(entry['at']):%H:%M:%S}",
            Text(escape_controls(entry["event_id"])),
            Text(escape_controls(entry["type"])),
            Text(escape_controls(entry["status"] or "")),
            str(evidence.attempts.get((organization, entry["event_id"]), 1)),
            Text(
                ", ".join(str(number + 1) for number in numbers),
                style=_LATE if numbers[0] < latest else "",
            ),
        )
        latest = max(latest, numbers[0])
    yield rows


def partitions(plan: Plan, evidence: Evidence) -> Iterator[RenderableType]:
    """What each of several partitions has; of a single queue nothing."""
    number = len(evidence.partitions)
    if not number:
        return
    rows = table("partition", "organizations", right("handled"), right("dead"))
    for partition, dead in enumerate(evidence.partitions):
        there = [each.id for each in plan.organizations if home(each.id, number) == partition]
        handled = sum(organization in there for organization, _ in evidence.applied)
        rows.add_row(str(partition), ", ".join(there) or "none", f"{handled:,}", f"{dead:,}")
    yield rows


def verdict(account: Account) -> Iterator[RenderableType]:
    """Whether it balances, and if not, why."""
    parts = " + ".join(
        f"{account.got(name):,} {name}" for name in ("refused", "handled", "duplicates", "dead")
    )
    total = f"{account.got('sent'):,} sent = {parts}"
    if account.balances:
        yield Text.assemble(("✓ ", _GOOD), (total, "bold"))
        yield indented("The account balances to the last event; each was applied once.")
        return
    yield from unbalanced(account.complaints)


def look_around(system: System, plan: Plan) -> Iterator[RenderableType]:
    """How to look at what is still running."""
    settings = {
        "REDIS_URL": system.environ["REDIS_URL"],
        "ENDPOINTS_FILE": system.environ["ENDPOINTS_FILE"],
        "INGRESS_PORT": str(system.ingress_port),
        **({"PARTITIONS": str(system.partitions)} if system.partitions > 1 else {}),
    }
    organization = plan.organizations[0]
    yield ""
    yield Text("All of it is still running; Ctrl-C stops it. To look around:", style="bold")
    for name, value in settings.items():
        yield Text(f"  export {name}={shlex.quote(value)}")
    for command in (
        "worker status",
        "worker dead-letters list --limit 5",
        f"worker state {organization.id} orders/",
        f"ingress send {organization.endpoint} order.updated",
    ):
        yield Text(f"  {python_as_typed()} -m {command}")


def unbalanced(complaints: Iterable[str]) -> Iterator[RenderableType]:
    """That an account doesn't balance, and why."""
    yield Text("✗ The account doesn't balance:", style=_BAD)
    for complaint in complaints:
        yield indented(f"- {escape_controls(complaint)}")


def table(*columns: Column | str) -> Table:
    """A table whose head is underlined, without frames."""
    look = box.SIMPLE_HEAD
    return Table(*columns, box=look, padding=(0, 1, 0, 0), pad_edge=False, header_style="")


def right(name: str) -> Column:
    """A column of numbers, which stand on its right."""
    return Column(name, justify="right")


def indented(text: str) -> RenderableType:
    """A text that stays indented where it is broken."""
    return Padding(Text(text), (0, 0, 0, 2), expand=False)
