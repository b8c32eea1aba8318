"""The programs under measurement, started as processes and ended with their block."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from tests.bench.environments import ROOT, CannotRunError, last_line

PATIENCE: Final = 60.0
"""Seconds that a program may take to begin, and that a measurement may make no progress."""

_LOOK: Final = 0.005

popen: Callable[..., Any] = subprocess.Popen
"""Starts a process; the tests have another way to do that."""


class Program:
    """A process whose error output goes to a file, as an operator would have it."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    @contextlib.contextmanager
    def started(
        cls, command: Sequence[str], environ: Mapping[str, str], log: Path
    ) -> Iterator[Self]:
        """Start it for the time of a block; its end is a kill, so that it takes no time."""
        with log.open("wb") as output:
            process = popen(
                command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=output
            )
        try:
            yield cls(process, log)
        finally:
            process.kill()
            process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise CannotRunError if it has ended."""
        if self._process.poll() is not None:
            raise CannotRunError(f"it ended: {last_line(self._log.read_text(errors='replace'))}")

    def logged(self, event: str) -> dict[str, Any]:
        """Wait until it has logged an event as JSON; the line's fields."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            # Before the look: it may end with what is looked for.
            has_ended = self._process.poll() is not None
            lines = self._log.read_text(errors="replace").splitlines()
            found.extend(json.loads(line) for line in lines if f'"event":"{event}"' in line)
            if has_ended and not found:
                self.check()
            return bool(found)

        wait_until(look, f"it has not logged {event}")
        return found[0]

    def end(self, seconds: float = PATIENCE) -> None:
        """End it as an operator would.

        Raises:
            CannotRunError: it doesn't end in time.
        """
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise CannotRunError(f"it does not end within {seconds:g} s") from None

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def cpu_seconds(self) -> float:
        """The processor time that it has used; 0 where that can't be read."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """The memory that it has in use; 0 where that can't be read."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def wait_until(holds: Callable[[], bool], otherwise: str, seconds: float = PATIENCE) -> None:
    """Wait for a fact.

    Raises:
        CannotRunError: it doesn't come true in time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise CannotRunError(f"{otherwise} within {seconds:g} s")
        time.sleep(_LOOK)


def environment(redis_url: str, endpoints: Path, **changes: str) -> dict[str, str]:
    """Our programs' environment: their defaults, but for the ports."""
    ours = ("WORKER_", "INGRESS_", "MAX_", "LOG_", "DURABILITY", "BENCH_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        "REDIS_URL": redis_url,
        "ENDPOINTS_FILE": str(endpoints),
        "LOG_FORMAT": "json",
        "INGRESS_PORT": "0",
        "INGRESS_ADMIN_PORT": "0",
        "WORKER_ADMIN_PORT": "0",
        **changes,
    }


WORKER: Final = (sys.executable, "-m", "worker")
INGRESS: Final = (sys.executable, "-m", "ingress")


class Gate:
    """Lets programs begin at the same moment, see `tests.bench.peers.gate`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "gate"
        self.folder.mkdir()

    def await_ready(self, programs: Sequence[Program]) -> None:
        """Wait until so many programs could begin."""

        def look() -> bool:
            for program in programs:
                program.check()
            return len(list(self.folder.glob("ready-*"))) >= len(programs)

        wait_until(look, "not every process was ready")

    def open(self) -> None:
        """Let them begin."""
        (self.folder / "open").touch()
