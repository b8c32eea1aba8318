"""What the demo shows in a terminal of 80 columns."""

import shlex
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from deploy.local.account import Account, Evidence, Row
from deploy.local.stage import python_as_typed
from deploy.local.system import System
from deploy.local.traffic import Plan
from shared.display import escape_controls

_PIPE_COLUMNS: Final = 100
_LATE = "yellow"
_GOOD = "green"
_BAD = "bold red"


def console() -> Console:
    """A console on stdout; in a pipe it has a width that people read."""
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    return Console(emoji=False, highlight=False, width=width)


def opening(plan: Plan) -> Iterator[RenderableType]:
    """What is going to happen."""
    again = [delivery for delivery in plan.deliveries if delivery.is_again]
    other = sum(delivery.has_other_bytes for delivery in again)
    yield Text(
        f"{len(plan.events):,} events of {len(plan.organizations)} organizations, seed {plan.seed}",
        style="bold",
    )
    yield _indented(
        f"{len(again):,} are sent twice ({other:,} in other bytes), "
        f"{plan.out_of_order:,} after a later one of their order"
    )
    yield ""


def places(system: System) -> Iterator[RenderableType]:
    """What runs where."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row("  Redis", system.environ["REDIS_URL"], "appendfsync always")
    grid.add_row("  ingress", f"{system.url}…", f"pid {system.ingress.pid}")
    for worker, port in zip(system.workers, system.worker_admins, strict=True):
        grid.add_row(f"  {worker.name}", f"http://127.0.0.1:{port}/metrics", f"pid {worker.pid}")
    yield grid
    yield ""


def account_table(account: Account) -> RenderableType:
    """The rows of the account."""
    table = _table()
    table.add_column("account")
    table.add_column("expected", justify="right")
    table.add_column("got", justify="right")
    table.add_column("")
    table.add_column("told by", style="dim")
    for row in account.rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> tuple[Text, ...]:
    style = "dim" if row.is_part else ""
    mark = Text("✓", style=_GOOD) if row.balances else Text("✗", style=_BAD)
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
    table = _table()
    for name in ("happened", "event", "type", "status"):
        table.add_column(name)
    table.add_column("try", justify="right")
    table.add_column("sent as")
    latest = 0
    for entry in value["timeline"]:
        numbers = plan.numbers.get((organization, entry["event_id"]), [0])
        table.add_row(
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
    yield table


def verdict(account: Account) -> Iterator[RenderableType]:
    """Whether it balances, and if not, why."""
    parts = " + ".join(
        f"{account.got(name):,} {name}" for name in ("refused", "handled", "duplicates", "dead")
    )
    total = f"{account.got('sent'):,} sent = {parts}"
    if account.balances:
        yield Text.assemble(("✓ ", _GOOD), (total, "bold"))
        yield _indented("The account balances to the last event; each was applied once.")
        return
    yield Text("✗ The account doesn't balance:", style=_BAD)
    for complaint in account.complaints:
        yield _indented(f"- {escape_controls(complaint)}")


def look_around(system: System, plan: Plan) -> Iterator[RenderableType]:
    """How to look at what is still running."""
    settings = {
        "REDIS_URL": system.environ["REDIS_URL"],
        "ENDPOINTS_FILE": system.environ["ENDPOINTS_FILE"],
        "INGRESS_PORT": str(system.ingress_port),
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


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="")


def _indented(text: str) -> RenderableType:
    return Padding(Text(text), (0, 0, 0, 2), expand=False)
