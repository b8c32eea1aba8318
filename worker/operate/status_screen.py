"""How a terminal shows an overview: as tables once, as a screen that is drawn again and again."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shared.display import escape_controls, size
from shared.program import tables
from worker.operate.history import History
from worker.operate.overview import OrganizationOverview, Overview

_BARS: Final = "▁▂▃▄▅▆▇█"
_SPARK: Final = 40
_FRAME_LINES: Final = 16
"""Lines of the screen that are not organizations."""


def print_tables(overview: Overview) -> None:
    """Print an overview."""
    oldest = overview.oldest_seconds
    now = {
        "waiting": overview.waiting,
        "ready": overview.ready,
        "running": overview.running,
        "deferred": overview.deferred,
        "parked": overview.parked,
        "no handler": overview.unhandled,
        "dead": overview.dead,
        "oldest": "-" if oldest is None else roughly(oldest),
        "redis": _memory(overview),
    }
    tables.emit([now], list(now), as_json=False, title="Events now")
    tables.emit(
        [{"outcome": name, "events": n} for name, n in overview.counters.items()]
        + [
            {"outcome": f"dead: {name}", "events": n} for name, n in overview.dead_by_reason.items()
        ],
        ["outcome", "events"],
        as_json=False,
        title="Since the beginning",
    )
    tables.emit(
        [
            {
                **msgspec.to_builtins(organization),
                "breaker": _breaker(organization),
                "throttled": _throttled(organization),
                "redis": size(organization.bytes_held),
            }
            for organization in overview.organizations
        ],
        ["organization", "waiting", "running", "dead", "redis", "paused", "breaker", "throttled"],
        as_json=False,
        title="Organizations",
    )
    tables.emit(
        [msgspec.to_builtins(worker) for worker in overview.workers],
        ["worker", "host", "version", "slots", "running", "stuck", "handled"],
        as_json=False,
        title="Workers",
    )


def screen(history: History, problem: str, height: int) -> RenderableType:
    """What a watch shows now.

    Args:
        history: the looks so far.
        problem: why the last one failed; empty where it didn't.
        height: lines of the terminal.
    """
    told: list[RenderableType] = [Text(problem, style="bold red")] if problem else []
    overview = history.latest
    if overview is None:
        return Group(*told, Text("Nothing is known yet.", style="dim"))
    return Group(
        *told,
        _figures(overview, history),
        _rates(history),
        _workers(overview),
        _organizations(overview, max(3, height - _FRAME_LINES)),
        Text("Ctrl-C ends", style="dim"),
    )


def roughly(seconds: float) -> str:
    """A time as people say it: ``2d 3h``, ``4m 10s``, ``7s``."""
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        whole, seconds = divmod(seconds, length)
        if whole or parts:
            parts.append(f"{whole:.0f}{unit}")
    return " ".join(parts[:2]) or "0s"


def sparkline(values: Sequence[float]) -> str:
    """A row of bars, the greatest of which is as high as a line."""
    most = max(values, default=0) or 1
    return "".join(_BARS[min(7, int(value / most * 7.999))] for value in values)


def _figures(overview: Overview, history: History) -> Table:
    oldest = overview.oldest_seconds
    p99 = history.quantile(0.99)
    return _table(
        ["waiting", "ready", "running", "deferred", "parked", "dead", "oldest", "p99", "redis"],
        [
            [
                *(
                    f"{number:,}"
                    for number in (
                        overview.waiting,
                        overview.ready,
                        overview.running,
                        overview.deferred,
                        overview.parked,
                        overview.dead,
                    )
                ),
                "-" if oldest is None else roughly(oldest),
                "-" if p99 is None else f"{p99:.3g}s",
                _memory(overview),
            ]
        ],
    )


def _rates(history: History) -> Table:
    rows = []
    for counter in ("accepted", "handled", "retried", "dead"):
        values = [each.rates[counter] for each in history.samples if each.rates][-_SPARK:]
        rate = history.rate(counter)
        rows.append([counter, "-" if rate is None else f"{rate:,.1f}/s", sparkline(values)])
    return _table(["events", "rate", "lately"], rows)


def _workers(overview: Overview) -> Text:
    workers = overview.workers
    if not workers:
        return Text("No worker is alive.", style="bold red" if overview.waiting else "dim")
    slots = sum(worker.slots for worker in workers)
    versions = ", ".join(sorted({escape_controls(worker.version) for worker in workers}))
    return Text(
        f"{len(workers):,} alive, {overview.running:,} of {slots:,} slots busy, version {versions}"
    )


def _organizations(overview: Overview, most: int) -> Table:
    largest = sorted(overview.organizations, key=lambda each: (-each.waiting, each.organization))
    rows = [
        [
            escape_controls(each.organization),
            f"{each.waiting:,}",
            f"{each.running:,}",
            f"{each.dead:,}",
            size(each.bytes_held),
            _condition(each),
        ]
        for each in largest[:most]
    ]
    if len(largest) > most:
        rows.append([f"and {len(largest) - most:,} more", "", "", "", "", ""])
    return _table(["organization", "waiting", "running", "dead", "redis", "condition"], rows)


def _memory(overview: Overview) -> str:
    limit = overview.memory.limit
    return size(overview.memory.used) + (f" of {size(limit)}" if limit else "")


def _condition(each: OrganizationOverview) -> str:
    if each.paused is not None:
        return f"paused: {escape_controls(each.paused)}"
    if (throttled := _throttled(each)) is not None:
        return f"throttled: {throttled}"
    breaker = _breaker(each)
    if breaker:
        return f"breaker {breaker}"
    return f"{each.failures:,} failures in a row" if each.failures else ""


def _throttled(organization: OrganizationOverview) -> str | None:
    if organization.throttled is None or organization.throttled_seconds is None:
        return None
    why = escape_controls(organization.throttled)
    return f"{why}, for {roughly(organization.throttled_seconds)} still"


def _breaker(organization: OrganizationOverview) -> str | None:
    if organization.breaker == "open" and organization.breaker_seconds is not None:
        return f"open, tries one in {roughly(organization.breaker_seconds)}"
    return organization.breaker


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        is_text = name in {"events", "lately", "organization", "condition"}
        table.add_column(
            Text(name), justify="left" if is_text else "right", no_wrap=True, overflow="ellipsis"
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table
