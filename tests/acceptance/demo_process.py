"""A demo as a process, with all that it starts."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.local.supervisor import ROOT, bare_environment

PATIENCE = 120.0
"""A machine may be busy with other things; nothing here waits so long on a quiet one."""


class Demo:
    """A running demo, what it has written so far, and the processes under it.

    Args:
        folder: for what it writes; its temporary files are in ``temporary``.
        arguments: of its command line.
        command: the demo's name.
    """

    def __init__(self, folder: Path, *arguments: str, command: str = "demo") -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self._output, self._errors = folder / "stdout", folder / "stderr"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local", command, *arguments],
                cwd=ROOT,
                env=bare_environment(os.environ, TMPDIR=str(self.temporary)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """Its stdout."""
        return self._output.read_text()

    @property
    def errors(self) -> str:
        """Its stderr."""
        return self._errors.read_text()

    @property
    def folders(self) -> list[Path]:
        """The temporary folders that it has left."""
        return list(self.temporary.iterdir())

    def started(self) -> dict[int, str]:
        """The processes that it started, and those that they started, with their commands."""
        parents = dict(processes())
        found: dict[int, str] = {}
        for pid in parents:
            ancestor = pid
            while ancestor in parents and ancestor != self.process.pid:
                ancestor = parents[ancestor]
            if ancestor == self.process.pid != pid:
                found[pid] = command(pid)
        return found

    def until(self, fact: Callable[[], object]) -> None:
        """Wait for a fact while it runs."""
        deadline = time.monotonic() + PATIENCE
        while not fact():
            assert self.process.poll() is None, self.errors
            assert time.monotonic() < deadline, self.errors
            time.sleep(0.01)

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()


def processes() -> Iterator[tuple[int, int]]:
    """Each process with its parent."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        yield int(status.parent.name), int(fields[1])


def command(pid: int) -> str:
    """What a process was started as; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def is_same(pid: int, was: str) -> bool:
    """Whether a process is still there."""
    return bool(was) and command(pid) == was
