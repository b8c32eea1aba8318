"""Runs something in a folder of its own: its exit code, and one line for whatever goes wrong."""

import asyncio
import contextlib
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.console import Console

from deploy.local.supervisor import ProgramError, last_lines
from shared.display import USAGE_ERROR, escape_controls
from shared.errors import SellfernError, SettingsError

BALANCED: Final = 0
UNBALANCED: Final = 1
FAILED: Final = USAGE_ERROR
Play = Callable[[Path], bool]
"""Plays the demo in a folder; whether its account balances."""

Result = TypeVar("Result")
_BY_SIGNAL: Final = 128
"""What shells add to a signal's number for the exit code."""

_LOOK_SECONDS: Final = 0.2
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Ending:
    """Which signal it was; before there was one, SIGINT."""

    number: int = signal.SIGINT
    is_over: bool = False

    def ignore_more(self) -> None:
        """Let the program come to its end: everything is stopped, and it is nearly there."""
        self.is_over = True
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[Ending]:
    """While the block runs, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt.

    All come as SIGINT, which `run_until_interrupted` waits for. It counts also where a shell has
    told its background job to ignore it.
    """
    ending = Ending()

    def interrupt(number: int, _frame: object) -> None:
        ending.number = number
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield ending
    finally:
        for number, handler in before.items():
            # Once everything is stopped, the old handlers would make a traceback of an impatient
            # Ctrl-C.
            if not ending.is_over:
                signal.signal(number, handler)


def run_until_interrupted(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine as ``asyncio.run`` does; each interrupt cancels it.

    The answer of asyncio itself to a second interrupt is an exception wherever the loop is just
    then, and that can leave a task group waiting for ever.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """

    async def watched() -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task  # noqa: S101  # a coroutine that runs is a task's
        # The loop takes SIGINT from `ended_by_signals` as long as it runs: an exception out of a
        # signal handler could come in the middle of any task, and leave it as it is.
        loop.add_signal_handler(signal.SIGINT, task.cancel)
        try:
            return await main
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def perform(name: str, play: Play, *, unbalanced: str = "", kept: Path | None = None) -> int:
    """Run a demo; its exit code. Its folder stays for whoever looks for what went wrong.

    Args:
        name: of the demo.
        play: does all of it.
        unbalanced: what to say where the account doesn't balance.
        kept: a folder that stays in any case, which ``play`` makes; None: one for this time alone.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stream that is no file's
            # A name that the terminal's encoding lacks must not end a demo whose events are all
            # right.
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # just suppressed
    folder = kept or Path(tempfile.mkdtemp(prefix=f"sellfern-{name}-"))
    code = BALANCED
    try:
        with ended_by_signals() as ending:
            code = _perform(name, play, folder, ending, unbalanced)
    finally:
        # What went well, or was interrupted, has nothing that anybody would look for.
        if kept is None and code not in {UNBALANCED, FAILED}:
            shutil.rmtree(folder, ignore_errors=True)
    return code


def python_as_typed() -> str:
    """This interpreter as one would type it here."""
    # The virtual environment's own name, not where it leads to: behind that are other packages.
    return shlex.quote(short(Path(sys.executable), Path.cwd()))


def short(path: Path, here: Path) -> str:
    """A path as one would type it in a folder."""
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def keep_running(check: Callable[[], None]) -> None:
    """Keep everything running until Ctrl-C, which is then no failure.

    Args:
        check: raises the error of whatever has ended by itself.
    """
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            check()
            time.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Say on a terminal what takes a while."""
    with Console(stderr=True).status(f"{what} …"):
        yield


def _perform(name: str, play: Play, folder: Path, ending: Ending, unbalanced: str) -> int:
    try:
        balances = play(folder)
    except KeyboardInterrupt:
        ending.ignore_more()
        click.echo("interrupted; everything is stopped", err=True)
        return _BY_SIGNAL + ending.number
    except Exception as exc:  # noqa: BLE001  # whatever it was, it is told in one line
        _tell_failure(name, exc, folder)
        return FAILED
    if balances:
        return BALANCED
    _tell(unbalanced, folder)
    return UNBALANCED


def _tell_failure(name: str, exc: Exception, folder: Path) -> None:
    """One line that says what is wrong, then where to read more."""
    # These say what is wrong in a line; of all others only the traceback does, and it is in a file.
    if isinstance(exc, SellfernError | OSError):
        message = str(exc)
    else:
        log = folder / f"{name}.log"
        log.write_text("".join(traceback.format_exception(exc)), encoding="utf-8")
        message = f"unexpected {type(exc).__name__}: {exc}; the traceback is in {log.name}"
    if isinstance(exc, SettingsError):  # nothing has run that could have logged
        click.echo(f"error: {escape_controls(message)}", err=True)
        return
    _tell(message, folder, log=exc.log if isinstance(exc, ProgramError) else None)


def _tell(message: str, folder: Path, *, log: Path | None = None) -> None:
    click.echo(f"error: {escape_controls(message)}", err=True)
    if log is not None:
        click.echo(f"  The last lines of {log.name}:", err=True)
        for line in last_lines(log):
            click.echo(f"    {escape_controls(line)}", err=True)
    click.echo(f"  The logs are in {folder}", err=True)
