"""The command that shows the system in a terminal: as tables once, or as it changes."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Final

import click
import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shared import display
from shared.display import counted, duration, escape_controls, roughly, size
from shared.errors import Unavailable
from shared.program import tables
from shared.program.commands import json_option
from shared.queue.marker import unwatched_since
from shared.queue.partitions import Partitions, open_partitions
from shared.queue.reach import reached, sentences
from shared.redis.connection import REDIS_ERRORS, translate
from shared.settings.config import CommonSettings
from shared.settings.durations import parse_duration
from worker.operate.asking import ask
from worker.operate.history import History
from worker.operate.merged import look
from worker.operate.overview import OrganizationOverview, Overview, worst_first
from worker.operate.workers import WorkerOverview, sentence, slots_told, troubles

_BARS: Final = "▁▂▃▄▅▆▇█"
_SPARK: Final = 40
_TEXTS: Final = frozenset({"events", "lately", "organization", "condition"})
_GIVE_WAY: Final = frozenset({"organization", "condition"})
_FRAME_LINES: Final = 21
"""Lines of the screen that are not organizations: what wouldn't fit is cut off at the end, where
the others are told."""
_TABLE_LINES: Final = 5
"""Lines of a table with one row."""
_NARROW: Final = 80
"""Columns below which there is no room for reasons beside the numbers."""
_MOST_TROUBLES: Final = 3
_GAP: Final = 3  # columns between two of a table
_SHORTEST_NAME: Final = 8  # of an organization, with what tells that it was cut
_MOST: Final = 20
"""Organizations that are shown where nobody asks for all: with the rest of it, a screen full."""


# More often, and Redis would be busy with being looked at.
_SHORTEST: Final = 0.1


def _interval(_: click.Context, __: click.Parameter, text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as exc:
        raise click.BadParameter(f"expected {exc}, got {text!r:.40}") from None
    if seconds < _SHORTEST:
        raise click.BadParameter(f"expected at least 100ms, got {text!r:.40}")
    return seconds


@click.command()
@click.option("--watch", is_flag=True, help="Go on, until Ctrl-C.")
@click.option(
    "--all",
    "is_all",
    is_flag=True,
    help=f"All organizations, not only the {_MOST} with most waiting.",
)
@click.option(
    "--interval", callback=_interval, default="2s", show_default=True, help="Between two looks."
)
@json_option
def status(*, watch: bool, is_all: bool, interval: float, as_json: bool) -> None:
    """Show what waits, what runs, what died, and whose it is."""
    most = sys.maxsize if is_all else _MOST
    if watch:
        _watch(interval, most, as_json=as_json)
        return
    overview = ask(look).overview
    if as_json:
        click.echo(display.json_line(overview.of_the_worst(most)))
    else:
        print_tables(overview, most)


def _watch(interval: float, most: int, *, as_json: bool) -> None:
    """Look again and again; Ctrl-C is how that ends, so it is no failure."""
    # What is drawn again and again makes no sense in a file.
    if not as_json and not sys.stdout.isatty():
        display.fail("--watch: expected a terminal, or --json for one line a look, got neither")
    if not as_json and tables.stdout_console().is_dumb_terminal:
        expected = "a terminal that can be drawn on, or --json for one line a look"
        display.fail(f"--watch: expected {expected}, got TERM={os.environ.get('TERM', '')}")
    settings = CommonSettings.from_environ(os.environ)
    showing = nullcontext(partial(_print_line, most)) if as_json else _draw()
    asyncio.run(_go_on(settings, interval, showing))


_Show = Callable[[History, str], None]


async def _go_on(
    settings: CommonSettings, interval: float, showing: AbstractContextManager[_Show]
) -> None:
    stopped, loop, history = asyncio.Event(), asyncio.get_running_loop(), History()
    for number in (signal.SIGINT, signal.SIGTERM):
        # As an exception it might come anywhere, and leave the terminal as it was drawn.
        loop.add_signal_handler(number, stopped.set)
    async with open_partitions(settings, connections=1) as partitions:
        with showing as show:
            while not stopped.is_set():
                show(history, await _look(partitions, history))
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), interval)


def _print_line(most: int, history: History, problem: str) -> None:
    """A line for each look that worked."""
    if problem:
        click.echo(problem, err=True)
    elif history.latest is not None:
        click.echo(display.json_line(history.latest.of_the_worst(most)))


@contextmanager
def _draw() -> Iterator[_Show]:
    """The whole terminal, which is as it was before once this ends."""
    console = tables.stdout_console()
    # Drawn when something was looked at, and only then.
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield lambda history, problem: live.update(
            screen(history, problem, console.height, console.width), refresh=True
        )


async def _look(partitions: Partitions, history: History) -> str:
    """Add one look to the history; why that failed, or an empty text."""
    try:
        history.add(*await look(await reached(partitions)))
    except (*REDIS_ERRORS, Unavailable) as exc:
        if translate(exc).code == "redis_layout":
            return translate(exc).message
        now = time.strftime("%H:%M:%S", time.gmtime())
        return f"Redis does not answer at {now} UTC: {translate(exc).message}"
    return ""


def print_tables(overview: Overview, most: int) -> None:
    """Print an overview, with no more organizations than so many."""
    for each in (*_of_redis(overview), *_of_workers(overview)):
        click.echo(f"{each}\n", err=True)
    now = {**_now(overview), "redis": _memory(overview)}
    tables.draw([now], list(now), "Events now")
    dead = {f"dead: {reason}": number for reason, number in overview.dead_by_reason.items()}
    tables.draw(
        [{"outcome": name, "events": n} for name, n in (overview.counters | dead).items()],
        ["outcome", "events"],
        "Since the beginning",
    )
    organizations = worst_first(overview.organizations)
    shown, left_out = organizations[:most], organizations[most:]
    tables.draw(
        [
            {
                **msgspec.to_builtins(organization),
                "redis": size(organization.bytes_held),
                "condition": _condition(organization),
            }
            for organization in shown
        ],
        ["organization", "waiting", "running", "dead", "redis", "condition"],
        "Organizations",
    )
    if left_out:
        click.echo(f"{_more(left_out)} (--all)\n")
    tables.draw(
        [_worker(worker) for worker in overview.workers],
        ["worker", "host", "version", "up", "slots", "running", "stuck", "loop_delay", "handled"],
        "Workers",
    )


def _worker(worker: WorkerOverview) -> dict[str, object]:
    delay, started = worker.loop_delay, worker.started
    return {
        **msgspec.to_builtins(worker),
        "up": None if started is None else roughly(max(0.0, time.time() - started)),
        "loop_delay": None if delay is None else f"{delay * 1000:,.0f} ms",
    }


def _lines(texts: Sequence[str], width: int) -> int:
    """How many lines of a terminal they take at the most, broken between words."""
    return sum(1 + 2 * (len(text) // max(1, width)) for text in texts)


def screen(history: History, problem: str, height: int, width: int) -> RenderableType:
    """What a watch shows now. Whatever has no room is cut, but never a number.

    Args:
        history: the looks so far.
        problem: why the last one failed; empty where it didn't.
        height: lines of the terminal.
        width: its columns.
    """
    overview = history.latest
    if problem and overview is not None:
        known = time.strftime("%H:%M:%S", time.gmtime(overview.at))
        problem = f"{problem}; what follows was known at {known} UTC"
    told: list[RenderableType] = [Text(problem, style="bold red")] if problem else []
    if overview is None:
        return Group(*told, Text("Nothing is known yet.", style="dim"))
    left_out = sentences(overview.left_out)
    troubled = [*_of_workers(overview)]
    figures = list(_figures(overview, history, width))
    taken = _FRAME_LINES + len(left_out) + _TABLE_LINES * (len(figures) - 1)
    taken += _lines(troubled, width) + 2 * (len(problem) // max(1, width))
    return Group(
        *told,
        *(Text(each, style="bold red") for each in _of_redis(overview)),
        *(Text(each, style="bold yellow") for each in troubled),
        *(Text(escape_controls(each), style="bold red") for each in left_out),
        *figures,
        _rates(history, width),
        _workers(overview),
        *_organizations(overview, max(3, height - taken), width),
        Text("Ctrl-C ends", style="dim"),
    )


def _of_redis(overview: Overview) -> Iterator[str]:
    """What is to be known of Redis before all else is believed."""
    yield from (each.sentence for each in overview.incidents or ())
    if overview.unwatched_since:
        yield unwatched_since(overview.unwatched_since)


def _of_workers(overview: Overview) -> Iterator[str]:
    """What is stuck in one, or blocks it, and which ones are lost."""
    told = [sentence(each, overview.at) for each in troubles(overview.workers)]
    told += [each.sentence for each in overview.lost or ()]
    yield from map(escape_controls, told[:_MOST_TROUBLES])
    if told[_MOST_TROUBLES:]:
        yield f"… and {len(told[_MOST_TROUBLES:]):,} more (running, status --json)"


def sparkline(values: Sequence[float]) -> str:
    """A row of bars, the greatest of which is as high as a line."""
    most = max(values, default=0) or 1
    return "".join(_BARS[min(7, int(value / most * 7.999))] for value in values)


def _now(overview: Overview) -> dict[str, int | str]:
    oldest = overview.oldest_seconds
    return {
        "waiting": overview.waiting,
        "ready": overview.ready,
        "running": overview.running,
        "deferred": overview.deferred,
        "parked": overview.parked,
        # Seldom, and a terminal is narrow.
        **({"in turn": overview.in_turn} if overview.in_turn else {}),
        "no handler": overview.unhandled,
        **({"undivided": overview.undivided} if overview.undivided else {}),
        "dead": overview.dead,
        "oldest": "-" if oldest is None else roughly(oldest),
    }


def _figures(overview: Overview, history: History, width: int) -> Iterator[Table]:
    """One table or, on a narrow terminal, as many as it takes."""
    p99 = history.quantile(0.99)
    shown = _now(overview)
    del shown["no handler"]
    shown |= {"p99": "-" if p99 is None else duration(p99), "redis": _memory(overview)}
    row: dict[str, str] = {}
    for name, value in shown.items():
        text = value if isinstance(value, str) else f"{value:,}"
        if sum(max(map(len, each)) + _GAP for each in (*row.items(), (name, text))) > width:
            yield _table(list(row), [[*row.values()]])
            row = {}
        row[name] = text
    yield _table(list(row), [[*row.values()]])


def _rates(history: History, width: int) -> Table:
    rows = []
    for counter in ("accepted", "handled", "retried", "dead"):
        values = [each.rates[counter] for each in history.samples if each.rates]
        rate = history.rate(counter)
        told = [counter, "-" if rate is None else f"{rate:,.1f}/s"]
        room = max(1, min(_SPARK, width - sum(map(len, told)) - 3 * _GAP))
        rows.append([*told, sparkline(values[-room:])])
    return _table(["events", "rate", "lately"], rows)


def _workers(overview: Overview) -> Text:
    workers = overview.workers
    if not workers:
        return Text("No worker is alive.", style="bold red" if overview.waiting else "dim")
    # What workers say of themselves comes from Redis, and must not move the cursor.
    versions = ", ".join(sorted({escape_controls(worker.version) for worker in workers}))
    return Text(
        f"{len(workers):,} alive, {slots_told(workers, overview.running)}, version {versions}"
    )


def _organizations(overview: Overview, most: int, width: int) -> Iterator[RenderableType]:
    largest = worst_first(overview.organizations)
    is_narrow = width < _NARROW
    shown = largest[: most // 2 if is_narrow else most]
    names = ["organization", "waiting", "running", "dead", "redis"]
    rows = [
        [
            escape_controls(each.organization),
            f"{each.waiting:,}",
            f"{each.running:,}",
            f"{each.dead:,}",
            size(each.bytes_held),
            *([] if is_narrow else [_condition(each)]),
        ]
        for each in shown
    ]
    if is_narrow:
        names, *rows = _with_room_for_names([names, *rows], width)
    yield _table(names if is_narrow else [*names, "condition"], rows)
    for each in shown if is_narrow else []:
        what, _, why = _condition(each).partition(": ")
        if what:
            told = f"{what}: {escape_controls(each.organization)}{', ' * bool(why)}{why}"
            yield Text(told, no_wrap=True, overflow="ellipsis")
    if len(largest) > len(shown):
        yield Text(_more(largest[len(shown) :]), no_wrap=True, overflow="ellipsis")


def _with_room_for_names(lines: list[list[str]], width: int) -> list[list[str]]:
    """The lines without what says least, until there is room for whose numbers they are."""
    columns = [*zip(*lines, strict=True)]
    for name in ("redis", "running"):
        taken = sum(max(map(len, column)) + _GAP for column in columns[1:])
        if width - taken - _GAP >= _SHORTEST_NAME:
            break
        columns = [column for column in columns if column[0] != name]
    return [[*line] for line in zip(*columns, strict=True)]


def _more(left_out: Sequence[OrganizationOverview]) -> str:
    """What there is to say of those that aren't shown: who is held mustn't go unseen."""
    conditions = _conditions(left_out)
    of_these = f", of these {conditions}" if conditions else ""
    return f"… and {counted(len(left_out), 'more organization')}{of_these}"


def _conditions(organizations: Sequence[OrganizationOverview]) -> str:
    on_hold = [each.hold_word for each in organizations if each.throttled is not None]
    numbers = {
        "paused": sum(each.paused is not None for each in organizations),
        "throttled": on_hold.count("throttled"),
        "moving": on_hold.count("moving"),
        "held by a breaker": sum(bool(each.breaker) for each in organizations),
    }
    return ", ".join(f"{number:,} {what}" for what, number in numbers.items() if number)


def _memory(overview: Overview) -> str:
    limit = overview.memory.limit
    return size(overview.memory.used) + (f" of {size(limit)}" if limit else "")


def _condition(each: OrganizationOverview) -> str:
    if each.paused is not None:
        held = f", breaker {each.breaker}" if each.breaker else ""
        held += f", {each.hold_word}" if each.throttled is not None else ""
        return f"paused{held}: {escape_controls(each.pause_told(time.time()))}"
    if each.throttled is not None:
        return f"{each.hold_word}: {escape_controls(each.hold_told)}"
    breaker = _breaker(each)
    if breaker or each.failures or each.trouble:
        return _failing(each, breaker and f"breaker {breaker}")
    if each.is_slow:
        return "begins slowly"
    return "" if each.rate is None else f"at most {each.rate:g}/s"


def _failing(each: OrganizationOverview, breaker: str | None) -> str:
    row = f"{counted(each.failures, 'failure')} in a row" if each.failures else ""
    what = breaker or row or (each.trouble.word if each.trouble else "")
    why = escape_controls(each.failing(time.time()))
    return f"{what}{': ' * bool(why)}{why}"


def _breaker(organization: OrganizationOverview) -> str | None:
    if organization.breaker == "open" and organization.breaker_seconds is not None:
        return f"open, tries one in {roughly(organization.breaker_seconds)}"
    return organization.breaker


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        is_text = name in _TEXTS
        # What might be wrapped gives way first, so a number's column is as wide as it needs.
        table.add_column(
            Text(name, no_wrap=True, overflow="ellipsis"),
            justify="left" if is_text else "right",
            no_wrap=name not in _GIVE_WAY,
        )
    for row in rows:
        table.add_row(*(Text(each, no_wrap=True, overflow="ellipsis") for each in row))
    return table
