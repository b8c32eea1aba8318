"""Shows a verdict: a table of the faults, a table of the invariants."""

from collections import Counter, defaultdict
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from tests.chaos.checker import Event, Verdict
from tests.chaos.verdict import HELD

_STYLES: Final = {HELD: "green"}


def show(console: Console, verdict: Verdict, *, holds: bool) -> None:
    """Print it."""
    console.print(_faults(verdict))
    console.print(_invariants(verdict))
    console.print(", ".join(f"{name} {number}" for name, number in verdict.totals.items()))
    console.print("HOLDS" if holds else "DOES NOT HOLD", style="bold")


def _faults(verdict: Verdict) -> Table:
    table = Table(title="Faults", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("fault", "times", "accepted", "handled", "missing", "twice", "dead by reason"):
        table.add_column(
            column, justify="left" if column in {"fault", "dead by reason"} else "right"
        )
    by_fault: dict[str, list[Event]] = defaultdict(list)
    times: Counter[str] = Counter()
    for period in verdict.periods:
        by_fault[period.fault] += period.events
        times[period.fault] += 1
    for fault, events in by_fault.items():
        dead = Counter(event.dead for event in events if event.dead)
        table.add_row(
            fault,
            str(times[fault]),
            str(len(events)),
            str(sum(event.applied == 1 for event in events)),
            str(sum(not event.applied and not event.dead for event in events)),
            str(sum(event.applied > 1 for event in events)),
            ", ".join(f"{reason} {number}" for reason, number in sorted(dead.items())),
        )
    return table


def _invariants(verdict: Verdict) -> Table:
    table = Table(title="Invariants", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("invariant", "verdict", "detail"):
        table.add_column(column, overflow="fold")
    for finding in verdict.findings:
        style = _STYLES.get(finding.verdict, "bold red")
        table.add_row(finding.invariant, f"[{style}]{finding.verdict}[/]", finding.detail)
    return table
