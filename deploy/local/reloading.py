"""A worker that is started anew when a file of its handlers changes."""

import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from watchfiles import PythonFilter, watch

from deploy.local.log_view import LogView
from deploy.local.supervisor import STOP_SECONDS, Program
from shared.errors import SettingsError

_LOOK_MILLISECONDS: Final = 100
_TOGETHER_MILLISECONDS: Final = 400
"""Changes that come in such a time are one: an editor or git writes several files."""

_PAUSE_SECONDS: Final = 1.0
"""Until a worker that has ended by itself is there again."""


def watched(handlers: str, project: Path) -> tuple[Path, bool]:
    """The folder whose changes concern these handlers, and whether those below it do as well.

    Nothing is imported: the module may have an error that is about to be mended.

    Args:
        handlers: ``package.module:name``.
        project: the folder that they are imported from.

    Raises:
        SettingsError: there is no such module or package.
    """
    name = handlers.partition(":")[0].partition(".")[0]
    spec = PathFinder.find_spec(name, [str(project), *sys.path])
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))), True
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent, False
    raise SettingsError("--handlers", f"a module to import from {project}", repr(handlers))


def changes(folder: Path, *, below: bool) -> Iterator[list[str]]:
    """The Python files that have changed, again and again; an empty list where none has.

    Args:
        folder: what is watched, from the first list on.
        below: whether its sub-folders are, too.
    """
    for found in watch(
        folder,
        watch_filter=PythonFilter(),
        recursive=below,
        debounce=_TOGETHER_MILLISECONDS,
        rust_timeout=_LOOK_MILLISECONDS,
        yield_on_timeout=True,
    ):
        yield sorted({_named(Path(path), folder) for _, path in found})


def _named(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder.parent)) if path.is_relative_to(folder.parent) else str(path)


class ReloadedWorker:
    """Keeps a worker running while the block runs, each time with the newest files.

    Args:
        start: starts one.
        view: shows what it says.
    """

    def __init__(self, start: Callable[[], Program], view: LogView) -> None:
        self._start = start
        self._view = view
        self._program: Program | None = None
        self._is_due = True
        self._begin_at = 0.0
        self._kill_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._program is not None:
            self._program.kill()

    def look(self, changed: Collection[str] = ()) -> None:
        """Do what there is to do now; never waits.

        Args:
            changed: files that have.
        """
        if changed:
            self._renew(changed)
        program = self._program
        if program is not None and not program.is_running:
            self._ended(program)
        elif program is not None and self._kill_at and time.monotonic() > self._kill_at:
            program.kill()
        if self._program is None and self._is_due and time.monotonic() >= self._begin_at:
            self._begin()

    def stop(self) -> None:
        """Ask it to stop and wait until it has; it is killed where it takes too long."""
        program, self._is_due = self._program, False
        if program is None:
            return
        program.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while program.is_running and time.monotonic() < deadline:
            self._view.show()
            time.sleep(_LOOK_MILLISECONDS / 1000)
        program.kill()
        self._view.finish(program.name)

    def _renew(self, changed: Collection[str]) -> None:
        first, *others = changed
        more = f" and {len(others)} more" if others else ""
        self._view.say("worker", f"{first}{more} changed: a new worker takes over")
        self._is_due, self._begin_at = True, 0.0
        if self._program is not None and not self._kill_at:
            self._kill_at = time.monotonic() + STOP_SECONDS
            self._program.signal(signal.SIGTERM)

    def _begin(self) -> None:
        self._is_due, self._kill_at = False, 0.0
        self._program = self._start()
        self._view.follow(self._program)

    def _ended(self, program: Program) -> None:
        """Say how it has ended where nobody asked for it, and when there will be another."""
        self._view.finish(program.name)
        self._program = None
        if self._kill_at:
            return
        had_begun = any(line.get("event") == "worker_started" for line in program.lines())
        then = "it starts anew" if had_begun else "the next change of a file starts it anew"
        how = str(program.ended_early()).partition(":")[0]  # why, it has said itself
        self._view.say("worker", f"{how}; {then}")
        self._is_due, self._begin_at = had_begun, time.monotonic() + _PAUSE_SECONDS
