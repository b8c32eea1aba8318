"""The command that shows the system in a terminal, once or as it changes."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

import click
from redis.asyncio import Redis
from rich.live import Live

from shared import display
from shared.errors import SettingsError
from shared.program import tables
from shared.program.commands import json_option
from shared.redis.connection import REDIS_ERRORS, open_redis, translate
from shared.settings.config import CommonSettings
from shared.settings.durations import parse_duration
from worker.operate.asking import ask
from worker.operate.history import History
from worker.operate.overview import read_overview
from worker.operate.status_screen import print_tables, screen

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
    "--interval", callback=_interval, default="2s", show_default=True, help="Between two looks."
)
@json_option
def status(*, watch: bool, interval: float, as_json: bool) -> None:
    """Show what waits, what runs, what died, and whose it is."""
    if watch:
        _watch(interval, as_json=as_json)
        return
    overview = ask(read_overview)
    if as_json:
        click.echo(display.json_line(overview))
    else:
        print_tables(overview)


def _watch(interval: float, *, as_json: bool) -> None:
    """Look again and again; Ctrl-C is how that ends, so it is no failure."""
    if not as_json and not sys.stdout.isatty():
        display.fail("--watch: expected a terminal, or --json for one line a look, got neither")
    try:
        settings = CommonSettings.from_environ(os.environ)
        asyncio.run(_go_on(settings, interval, _print_line if as_json else _draw))
    except SettingsError as exc:
        display.refuse(exc)


_Show = Callable[[History, str], None]


async def _go_on(
    settings: CommonSettings, interval: float, showing: Callable[[], AbstractContextManager[_Show]]
) -> None:
    stopped, loop, history = asyncio.Event(), asyncio.get_running_loop(), History()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with open_redis(settings.redis_url, connections=1) as redis:
        with showing() as show:
            while not stopped.is_set():
                show(history, await _look(redis, history))
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), interval)


@contextmanager
def _print_line() -> Iterator[_Show]:
    """A line for each look that worked."""

    def show(history: History, problem: str) -> None:
        if problem:
            click.echo(problem, err=True)
        else:
            click.echo(display.json_line(history.latest))

    yield show


@contextmanager
def _draw() -> Iterator[_Show]:
    """The whole terminal, which is as it was before once this ends."""
    console = tables.stdout_console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield lambda history, problem: live.update(
            screen(history, problem, console.height), refresh=True
        )


async def _look(redis: Redis, history: History) -> str:
    """Add one look to the history; why that failed, or an empty text."""
    try:
        history.add(await read_overview(redis))
    except REDIS_ERRORS as exc:
        now = time.strftime("%H:%M:%S", time.gmtime())
        return f"Redis does not answer at {now} UTC: {translate(exc).message}"
    return ""
