"""Shows how the scale demo goes: a live line on a terminal, a plain one now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from deploy.local.regulation import Course, Show

_LINE_SECONDS: Final = 2.0
_WORKER: Final = "▪"


@contextmanager
def progress(console: Console) -> Iterator[Show]:
    """Show the course while a block runs, each time that there is something new."""
    if console.is_terminal:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            yield lambda course: live.update(
                Text(f"  {line(course)}", no_wrap=True, overflow="ellipsis"), refresh=True
            )
    else:
        with _lines(console) as show:
            yield show


@contextmanager
def _lines(console: Console) -> Iterator[Show]:
    next_at = 0.0

    def show(course: Course) -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + _LINE_SECONDS
            click.echo(line(course), file=console.file)

    yield show


def line(course: Course) -> str:
    """Where it is."""
    now = course.samples[-1]
    reading = course.decisions[-1].reading if course.decisions else None
    waits = (
        f"{reading.queued:,.0f} in line, oldest {reading.oldest_seconds:.1f} s" if reading else ""
    )
    return (
        f"{now.at:3.0f} s, {now.rate:4.0f} events/s, {waits}, "
        f"{now.workers:2} workers {_WORKER * now.workers}"
    )
