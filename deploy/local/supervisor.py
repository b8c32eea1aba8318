"""Runs programs as child processes that end with the one that started them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from shared.errors import SellfernError
from shared.program.tables import truncate

# What is set here outlives the exec, so that no program has to know of it. One whose parent went
# before it was set would never be told; hence the comparison, after which it ends.
_END_WITH_PARENT: Final = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

ROOT: Final = Path(__file__).resolve().parents[2]
"""Where programs run, so that ``python -m`` finds this project's."""

STARTUP_SECONDS: Final = 30.0
"""How long a program may take until it logs what it is waited for."""

STOP_SECONDS: Final = 15.0
"""How long programs may take to stop when asked nicely."""

ANSWER_SECONDS: Final = 60.0
"""How long a command may take that is asked something."""

_STAYED: Final = "didn't stop when asked, and was killed"
_LOOK_SECONDS: Final = 0.02
_READ_BYTES: Final = 64 * 1024
_SHOWN_COLUMNS: Final = 300
# What a program needs to be found and to start. TMPDIR, so that a test's folder has what it leaves.
_INHERITED: Final = frozenset(
    {"HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV"}
)
# COVERAGE_ and PYTHON: what measures a test, and how, has to reach the processes that it starts.
_INHERITED_PREFIXES: Final = ("COVERAGE_", "LC_", "PYTHON")


class ProgramError(SellfernError):
    """A program doesn't do what it was started for; the message is one line.

    Attributes:
        log: the file with what it logged.
    """

    def __init__(self, message: str, log: Path) -> None:
        self.log = log
        super().__init__(message)


class Program:
    """One running program. Its stderr, the JSON lines of this project, is in its log.

    Args:
        name: for people, such as ``worker 1``.
        command: a path, then arguments.
        environ: all of its environment.
        folder: for the files with its log and its output, ``log`` and ``out``.
        runs_in: its current directory.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        folder: Path,
        runs_in: Path = ROOT,
    ) -> None:
        self.name = name
        self.log = folder / f"{name.replace(' ', '-')}.log"
        self.out = self.log.with_suffix(".out")
        # Files, not pipes: nobody has to keep reading, and they are there when the program isn't.
        with self.log.open("wb") as log, self.out.open("wb") as output:
            self._process = subprocess.Popen(
                [*launcher(), *command],
                cwd=runs_in,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                process_group=0,  # Ctrl-C is for the supervisor, which then stops its programs
            )

    @property
    def pid(self) -> int:
        """Its process id, and its process group's."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it hasn't ended."""
        return self._process.poll() is None

    def wait_for(self, event: str, seconds: float = STARTUP_SECONDS) -> dict[str, Any]:
        """Wait until it logs an event; its fields.

        Raises:
            ProgramError: it ended first, or took too long.
        """
        deadline = time.monotonic() + seconds
        while True:
            running = self.is_running  # asked first: what it logs at its end counts
            for line in self.lines():
                if line.get("event") == event:
                    return line
            if not running:
                raise self.ended_early()
            if time.monotonic() > deadline:
                raise ProgramError(f"{self.name} logged no {event} in {seconds:g} s", self.log)
            time.sleep(_LOOK_SECONDS)

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged, without what is no JSON."""
        found: list[dict[str, Any]] = []
        for text in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):  # a warning of the interpreter is no JSON
                line = json.loads(text)
                found += [line] if isinstance(line, dict) else []
        return found

    def output(self) -> str:
        """What it has written to stdout."""
        return self.out.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its process group; nothing happens when it has ended."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """End it at once; nothing happens when it has ended."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds: float) -> int:
        """Wait for its end; its exit code, negative for the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        return self._process.wait(seconds)

    def ended_early(self) -> ProgramError:
        """The error to raise when it has ended by itself."""
        code = self._process.wait()
        how = (
            f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        )
        errors = [line for line in last_lines(self.log) if line.startswith("error: ")]
        why = f": {errors[-1].removeprefix('error: ')}" if errors else ""
        return ProgramError(f"{self.name} {how}{why}", self.log)


class Supervisor:
    """Starts programs, and stops them all at the end of the ``with`` block, however it ends.

    They end with the process that started them, also when that is killed (on Linux). It doesn't
    need an event loop, so that an interrupt reaches it at any point.

    Args:
        folder: for the logs, one file a program.
        stop_seconds: how long programs may take to stop when asked nicely.
    """

    def __init__(self, folder: Path, *, stop_seconds: float = STOP_SECONDS) -> None:
        self._folder = folder
        self._stop_seconds = stop_seconds
        self._programs: list[Program] = []
        self._leaving: dict[Program, float] = {}

    @property
    def leaving(self) -> int:
        """How many programs have been dismissed and run still."""
        return len(self._leaving)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        try:
            self.stop()
        except ProgramError:
            if error is None:  # what went wrong first says more
                raise

    def start(self, name: str, module: str, *arguments: str, environ: Mapping[str, str]) -> Program:
        """Start ``python -m module``; it may not be ready yet."""
        # This interpreter, which may be a virtual environment's that no PATH names.
        command = [sys.executable, "-m", module, *arguments]
        program = Program(name, command, environ, self._folder)
        self._programs.append(program)
        return program

    def ask(
        self, module: str, questions: Sequence[Sequence[str]], *, environ: Mapping[str, str]
    ) -> list[str]:
        """Run ``python -m module`` with each list of arguments, side by side; their outputs.

        Raises:
            ProgramError: one ended with an error, or took too long.
        """
        asked = [
            self.start(" ".join((module, *arguments[:2])), module, *arguments, environ=environ)
            for arguments in questions
        ]
        # One deadline for all of them, since they run side by side.
        deadline = time.monotonic() + ANSWER_SECONDS
        for program in asked:
            problem = _problem(program, deadline, f"took longer than {ANSWER_SECONDS:g} s")
            if not program.is_running:
                self._programs.remove(program)
            if problem:
                raise problem
        return [program.output() for program in asked]

    def dismiss(self, program: Program) -> None:
        """Ask a program to stop, and don't wait; what goes wrong with that, `check` tells."""
        self._programs.remove(program)
        # `check` must not take its end, which was asked for, for one that nobody expected.
        self._leaving[program] = time.monotonic() + self._stop_seconds
        program.signal(signal.SIGTERM)

    def check(self) -> None:
        """Return if every program is running, or leaves as it should.

        Raises:
            ProgramError: one has ended by itself, or was dismissed and doesn't stop in time, or
                stops with an error.
        """
        for program in self._programs:
            if not program.is_running:
                raise program.ended_early()
        for program, deadline in list(self._leaving.items()):
            if program.is_running and time.monotonic() < deadline:
                continue
            if problem := _problem(program, deadline, _STAYED):
                raise problem
            del self._leaving[program]

    def stop(self) -> None:
        """Stop the programs; those that don't stop in time, or at a second interrupt, are killed.

        Raises:
            ProgramError: one had to be killed, or stopped with an error.
        """
        programs = [*self._programs, *self._leaving]
        asked, self._programs = self._programs, []
        self._leaving.clear()  # those were asked before; a second SIGTERM would hurry them
        try:
            for program in asked:
                program.signal(signal.SIGTERM)
                # One that stands still gets a SIGTERM only when it goes on.
                program.signal(signal.SIGCONT)
            deadline = time.monotonic() + self._stop_seconds
            # All of them are waited for before the first problem is raised: none may stay behind.
            problems = [_problem(program, deadline, _STAYED) for program in programs]
        finally:  # also where an impatient second Ctrl-C ends the waiting
            for program in programs:
                program.kill()
        for problem in filter(None, problems):
            raise problem


def _problem(program: Program, deadline: float, late: str) -> ProgramError | None:
    """Wait for the end of a program; what is wrong with it, such as being late."""
    try:
        code = program.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return ProgramError(f"{program.name} {late}", program.log)
    return program.ended_early() if code else None


def bare_environment(environ: Mapping[str, str], **settings: str) -> dict[str, str]:
    """Give what a Python program needs of an environment, and the settings.

    The settings of a shell are no part of it: a ``DURABILITY`` or a ``REDIS_URL`` that is set
    there is meant for something else.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    return kept | settings


def launcher() -> list[str]:
    """Give the words before a command, a path, that end it with this program, however that ends.

    Only Linux can do so; elsewhere there are none. Start the child from a thread that stays: the
    system takes its end for the parent's. A small Python rather than ``preexec_fn``, which isn't
    safe in a program with threads.
    """
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid())]


def last_lines(log: Path, number: int = 5) -> list[str]:
    """Give the last lines of a log, each cut to what a person reads."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        # A program that has gone wrong may have logged for hours; the end of it is what matters.
        file.seek(max(0, log.stat().st_size - _READ_BYTES))
        text = file.read().decode("utf-8", "replace")
        return [truncate(line, _SHOWN_COLUMNS) for line in text.splitlines()[-number:]]
    return []
