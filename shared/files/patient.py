"""Files, asked about in threads of their own, so that one that never answers holds nothing up."""

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic, thread_time
from typing import Any, Final, Generic, TypeAlias, TypeVar

from shared.errors import SellfernError

LIMIT: Final = 5.0
"""Seconds that a file system may take to answer about one file."""

AWAITED_AFTER: Final = 1.0
"""Seconds after which it is said what is waited for."""

MOST_STUCK: Final = 8
"""Threads that wait for one folder: the files beside so many aren't even asked about."""

_Answer = TypeVar("_Answer")

Ask = Callable[[Path], _Answer]
"""Asks the file system about one path; raises OSError or ValueError."""

_Answers: TypeAlias = dict[Path, _Answer | OSError | ValueError]


class FileHangs(SellfernError, OSError):
    """The file system doesn't answer about a file, as a dead network mount doesn't."""

    def __init__(self, limit: float) -> None:
        super().__init__(errno.ETIMEDOUT, f"no answer from the file system within {limit:g} s")


class PatientFiles:
    """Asks about files one by one, and goes on without one that doesn't answer.

    The system lets nobody interrupt such a call, so its thread is left behind: it ends when the
    answer comes, or with the process, which doesn't wait for it. Until then the path is asked about
    again ever more rarely: something else may be mounted there by now.

    Args:
        limit: seconds for each answer.
        awaited: told of a path that is waited for longer than `AWAITED_AFTER`, in the thread that
            asks.
    """

    def __init__(
        self, limit: float = LIMIT, awaited: Callable[[Path], None] = lambda _: None
    ) -> None:
        self.limit = limit
        self.worked = 0.0
        """Seconds of a processor that the answers have taken so far."""
        self._awaited = awaited
        # By what was asked, too: of some files the size is told though nothing can be read.
        self._stuck: dict[tuple[Ask[Any], Path], _Stuck] = {}

    @property
    def stuck(self) -> frozenset[Path]:
        """The paths that nothing is known about since they don't answer."""
        return frozenset(path for _, path in self._stuck.copy())

    def each(self, ask: Ask[_Answer], paths: Iterable[Path]) -> _Answers[_Answer]:
        """Ask about every path.

        Args:
            ask: run in another thread.
            paths: to ask about.

        Returns:
            The answer to each, or the error; `FileHangs` where there is none.
        """
        answers: _Answers[_Answer] = {}
        waiting = self._askable(ask, paths, answers) + self._due(ask, answers)
        while waiting:
            batch = _Batch(ask, waiting)
            hung = batch.run(self.limit, self._awaited, self._answered)
            answers.update(batch.answers)
            self.worked += batch.worked
            for path in self.stuck & batch.answers.keys():
                self._stuck.pop((ask, path), None)
            if hung is None:
                break
            before = self._stuck.get((ask, hung))
            pause = self.limit if before is None else before.pause * 2
            self._stuck[ask, hung] = _Stuck(batch, monotonic() + pause, pause)
            answers[hung] = FileHangs(self.limit)
            if batch.has_ended:  # the answer came at this very moment
                self._answered(batch, hung)
            # Others of its folder are likely on the same dead mount: they come last.
            rest = [path for path in waiting if path not in answers]
            rest.sort(key=lambda path: path.parent == hung.parent)
            waiting = self._askable(ask, rest, answers)
        return answers

    def _askable(
        self, ask: Ask[_Answer], paths: Iterable[Path], answers: _Answers[_Answer]
    ) -> list[Path]:
        """Those that may be asked about; the others have their answer."""
        all_stuck = self._stuck.copy()
        if not all_stuck:
            return list(paths)
        stuck = {path for asked, path in all_stuck if asked == ask}
        folders = [path.parent for _, path in all_stuck]
        full = {folder for folder in folders if folders.count(folder) >= MOST_STUCK}
        askable = []
        for path in paths:
            if path in stuck or path.parent in full:
                answers[path] = FileHangs(self.limit)
            else:
                askable.append(path)
        return askable

    def _due(self, ask: Ask[_Answer], answers: _Answers[_Answer]) -> list[Path]:
        """One path that didn't answer and may be asked about again; each may cost a thread."""
        now = monotonic()
        for (asked, path), stuck in self._stuck.copy().items():
            if asked == ask and path in answers and now >= stuck.due:
                del answers[path]
                return [path]
        return []

    def _answered(self, batch: "_Batch[Any]", path: Path) -> None:
        stuck = self._stuck.get((batch.ask, path))
        if stuck is not None and stuck.batch is batch:
            self._stuck.pop((batch.ask, path), None)


@dataclass(frozen=True, slots=True)
class _Stuck:
    """A path that doesn't answer: who waits for it, and when it may be asked about again."""

    batch: object
    due: float
    pause: float


class _Batch(Generic[_Answer]):
    """One thread's work; whoever started it may leave it behind at any path."""

    def __init__(self, ask: Ask[_Answer], paths: Sequence[Path]) -> None:
        self.answers: _Answers[_Answer] = {}
        self.has_ended = False
        self.worked = 0.0
        self.ask = ask
        self._paths = paths
        self._lock = Lock()
        self._done = Event()
        self._at = paths[0]
        self._since = monotonic()
        self._left = False

    def run(
        self,
        limit: float,
        awaited: Callable[[Path], None],
        answered: "Callable[[_Batch[Any], Path], None]",
    ) -> Path | None:
        """Work through the paths; returns the one that doesn't answer in time, if one doesn't."""
        # A daemon: nobody waits for it, neither this program's end.
        Thread(target=self._work, args=(answered,), name="files", daemon=True).start()
        told: Path | None = None
        while not self._done.wait(min(limit, AWAITED_AFTER) / 4):
            with self._lock:
                at, took = self._at, monotonic() - self._since
                if took >= limit:
                    self._left = True
                    return at
            if took >= AWAITED_AFTER and at != told:
                told = at
                awaited(at)
        return None

    def _work(self, answered: "Callable[[_Batch[Any], Path], None]") -> None:
        started = thread_time()
        for path in self._paths:
            with self._lock:
                self._at, self._since = path, monotonic()
            answer = _answer(self.ask, path)
            with self._lock:
                if self._left:
                    break
                self.answers[path] = answer
        self.worked = thread_time() - started
        self.has_ended = True
        if self._left:
            answered(self, self._at)
        self._done.set()


def _answer(ask: Ask[_Answer], path: Path) -> _Answer | OSError | ValueError:
    try:
        return ask(path)
    except (OSError, ValueError) as exc:  # ValueError: a name that no path can have
        return exc.with_traceback(None)


def toml_files(path: Path) -> list[Path]:
    """The files that a path stands for: itself, or those of a folder that are called ``*.toml``.

    Names that begin with a dot are left out: Kubernetes keeps its versions and editors their drafts
    under such ones.

    Raises:
        OSError: the path can't be looked at.
    """
    try:
        names = [each.name for each in path.iterdir()]
    except NotADirectoryError:
        return [path]
    return sorted(
        path / name for name in names if name.endswith(".toml") and not name.startswith(".")
    )
