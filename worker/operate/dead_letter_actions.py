"""``python -m worker dead-letters replay`` and ``discard``."""

import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
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
from shared.errors import Unavailable
from shared.program.commands import yes_option
from shared.queue.actions import on_stderr, whoami
from shared.queue.reach import Missing
from shared.redis.connection import REDIS_ERRORS
from worker.operate import revival
from worker.operate.actions import record_command
from worker.operate.asking import ask, fail_if_any
from worker.operate.fates import PATIENCE
from worker.operate.meant import (
    Meant,
    all_option,
    dry_run_option,
    filtered,
    jobs_argument,
    selected,
)
from worker.operate.runs import Going, Run, Verb, new_id
from worker.settings import WorkerSettings

_LINE_EVERY = 1000
_LINE_AFTER = 5.0
# What a shell says of a program that SIGINT has ended.
_INTERRUPTED = 130
_DIED_AGAIN = 1
"""The exit code of a replay of which something died again."""


@click.command()
@jobs_argument
@filtered
@all_option
@click.option("--rate", type=click.FloatRange(0.1, 100_000), default=100.0, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="No more than so many, the oldest first.")
@click.option("--force", is_flag=True, help="The unprovable ones, too.")
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=PATIENCE,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long, from the last one on, for what becomes of them; 0: don't.",
)
@dry_run_option
@yes_option
def replay(
    *,
    jobs: tuple[str, ...],
    everything: bool,
    rate: float,
    limit: int | None,
    force: bool,
    wait: float,
    dry_run: bool,
    yes: bool,
    **wanted: Any,
) -> None:
    """Give dead letters another life; each passes judgement anew.

    It stops by itself when ten in a row have died again. Interrupting it loses nothing, and
    running it again goes on. It tells what became of them: exit code 1 where any died again, 0
    otherwise, though some wait still. --limit 5 tries a few before all.
    """
    meant = selected(jobs, wanted, everything=everything, yes=yes, limit=limit, force=force)
    if meant.unprovable and not force:
        click.echo(f"{meant.unprovable:,} of them unprovable, left alone without --force")
    if meant.unusable:
        click.echo(f"{meant.unusable:,} of them without the payload that came, left alone")
    if not _confirmed("replay", meant, dry_run=dry_run, yes=yes):
        return
    run = _run("replay", meant, rate=rate, force=force)
    done = run.progress

    async def replayed(going: Going) -> None:
        with _progress("replaying", meant.number) as told:
            replay = await going.replaying(told)
            await replay.run(going.letters())
        if done.waiting and wait:
            with _progress("handled or dead", done.followed) as told:
                await replay.wait(wait, told)

    def so_far() -> str:
        return done.sentence if done.is_awaited else _and_the_rest(done.queued, "replayed")

    with _saying_how_far(so_far):
        missing = ask(lambda reach: _to_its_end(Going(run, reach, on_stderr), replayed))
    _tell(done)
    fail_if_any(missing)
    _fail_if_stopped(run)
    if done.died_again:
        raise SystemExit(_DIED_AGAIN)


@click.command()
@jobs_argument
@filtered
@all_option
@dry_run_option
@yes_option
def discard(
    *, jobs: tuple[str, ...], everything: bool, dry_run: bool, yes: bool, **wanted: Any
) -> None:
    """Give dead letters up for good; a late redelivery doesn't bring them back."""
    meant = selected(jobs, wanted, everything=everything, yes=yes)
    if not _confirmed("discard", meant, dry_run=dry_run, yes=yes):
        return
    run = _run("discard", meant)

    async def discarded(going: Going) -> None:
        # The workers' own, since it counts as handled for as long as what they handle.
        going.retention = WorkerSettings.from_mapping(os.environ).policy.limits.dedupe_retention
        with _progress("discarding", meant.number) as told:
            await going.discard(going.letters(), told)

    with _saying_how_far(lambda: _and_the_rest(run.discarded, "discarded")):
        missing = ask(lambda reach: _to_its_end(Going(run, reach, on_stderr), discarded))
    moved = run.progress.moved
    left = f", {moved:,} on their way to another partition" if moved else ""
    click.echo(f"{run.discarded:,} discarded{left}")
    fail_if_any(missing)
    _fail_if_stopped(run)


def _run(verb: Verb, meant: Meant, **options: Any) -> Run:
    """What is kept of it, so that a console shows it, and goes on with it if nobody else does."""
    who, host = whoami()
    about: dict[str, Any] = {"about": meant.about, "who": who, "by": "command", "address": host}
    return Run(verb, **about, total=meant.number, selection=meant.selection, **options)


async def _to_its_end(
    going: Going, work: Callable[[Going], Coroutine[Any, Any, None]]
) -> list[Missing]:
    run, reach = going.run, going.reach
    run.id = new_id(reach)
    # Of an earlier user's rights, say; that is no reason not to act.
    with suppress(*REDIS_ERRORS, Unavailable):
        await going.begin()
    await record_command(reach, run.verb, about=run.about, run=run.id, outcome="begun")
    await going.to_its_end(work(going))
    return reach.missing


def _fail_if_stopped(run: Run) -> None:
    if run.state in {"stopped", "interrupted"} and not run.progress.stopped:
        display.fail(f"{run.note}; nothing is lost, the same command goes on with the rest")


def _confirmed(verb: str, meant: Meant, *, dry_run: bool, yes: bool) -> bool:
    if not meant.number:
        display.fail(f"nothing to {verb}: expected at least one dead letter, got none that matches")
    number = f"{meant.number:,}" + (f" of {meant.of:,}" if meant.of is not None else "")
    if dry_run:
        click.echo(f"would {verb} {number}")
        return False
    if not yes and not click.confirm(f"{verb} {number}?"):
        click.echo("nothing was changed")
        return False
    return True


@contextmanager
def _saying_how_far(so_far: Callable[[], str]) -> Iterator[None]:
    """Say on Ctrl-C how far it has come, and where Redis has gone, which was said then."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(display.escape_controls(f"interrupted: {so_far()}"), err=True)
        raise SystemExit(_INTERRUPTED) from None
    except SystemExit:
        click.echo(display.escape_controls(so_far()), err=True)
        raise


def _and_the_rest(number: int, done: str) -> str:
    return f"{number:,} {done} so far; nothing is lost, the same command goes on with the rest"


def _tell(done: revival.Progress) -> None:
    told = [done.sentence]
    told += [f"{done.absent:,} gone meanwhile"] if done.absent else []
    told += [f"{done.unprovable:,} unprovable left alone"] if done.unprovable else []
    told += [f"{done.unusable:,} without the payload that came"] if done.unusable else []
    told += [f"{done.moved:,} on their way to another partition"] if done.moved else []
    click.echo(display.escape_controls(", ".join(told)))
    if done.stopped:
        _warn(
            f"stopped: the last {revival.FAILURES_IN_A_ROW} replays died again; "
            "the rest is left as it was (see: dead-letters list)"
        )
    elif done.died_again:
        _warn(f"{done.died_again:,} died again (see: dead-letters list)")
    if done.waiting and done.is_awaited:
        click.echo("what waits still: events show ID, status", err=True)


def _warn(message: str) -> None:
    click.echo(f"error: {message}", err=True)


@contextmanager
def _progress(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a plain line now and then elsewhere."""
    # On stderr, so that what a command prints can be piped.
    if not sys.stderr.isatty():
        said = monotonic()

        def line(seen: int) -> None:
            nonlocal said
            if (seen and seen % _LINE_EVERY == 0) or monotonic() - said > _LINE_AFTER:
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
