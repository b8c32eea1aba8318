"""Versions of files: which one was read, and whether there is another by now."""

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import time_ns
from typing import Final, Self

from shared.files.patient import FileHangs, PatientFiles


@dataclass(frozen=True, slots=True)
class Failure:
    """Why nothing is known about a file.

    Attributes:
        why: in a few words.
        hangs: whether the file system just doesn't answer.
    """

    why: str
    hangs: bool = False

    @classmethod
    def of(cls, error: OSError | ValueError) -> Self:
        """What an error says."""
        why = getattr(error, "strerror", None) or "not a path"
        return cls(why, isinstance(error, FileHangs))


Stamp = tuple[int, ...] | Failure
"""What the file system says of a file, or why it says nothing; it changes with the content."""

MOST_BYTES: Final = 16 * 1024 * 1024
"""Of one file. What is mounted by mistake may have no end, as ``/dev/zero`` hasn't: reading all of
it would take the program's memory, and with it everybody's endpoints."""

CERTAIN_AFTER: Final = 2_000_000_000
"""Nanoseconds: two changes that are nearer than this may have one time stamp."""


@dataclass(frozen=True, slots=True)
class Version:
    """What a file held when it was read.

    Attributes:
        stamp: before it was read.
        read_at: nanoseconds since the epoch.
        content: all of it, or why it can't be read.
        digest: of the content.
    """

    stamp: Stamp
    read_at: int
    content: bytes | Failure
    digest: bytes | Failure

    @property
    def is_certain(self) -> bool:
        """Whether the same stamp means the same content."""
        if isinstance(self.stamp, Failure):
            return True
        if isinstance(self.content, Failure) and self.content.hangs:
            return False
        # Changed just before the reading, it may change once more within the same time stamp.
        return max(self.stamp[-2:]) < self.read_at - CERTAIN_AFTER


class FileVersions:
    """The last version of each file that was asked for, read only where its stamp differs.

    A link's stamp is that of what it points to, so it differs when Kubernetes swaps a folder behind
    a link.

    Args:
        files: asks the file system.
    """

    def __init__(self, files: PatientFiles) -> None:
        self._files = files
        self._versions: dict[Path, Version] = {}

    def stamps(self, paths: Iterable[Path]) -> dict[Path, Stamp]:
        """The stamp of each file as it is now."""
        answers = self._files.each(stamp_of, paths)
        return {
            path: answer if isinstance(answer, tuple) else Failure.of(answer)
            for path, answer in answers.items()
        }

    def differ(self, stamps: Mapping[Path, Stamp]) -> bool:
        """Whether a file may have changed since it was read, or is no longer asked for."""
        versions = self._versions
        if versions.keys() != stamps.keys():
            return True
        return any(
            version.stamp != stamps[path] or not version.is_certain
            for path, version in versions.items()
        )

    def refresh(self, stamps: Mapping[Path, Stamp]) -> set[Path]:
        """Read what differs.

        Args:
            stamps: of the files that are meant.

        Returns:
            The files whose content is another than before.
        """
        # Before the reading, so that a change during it counts as later.
        now = time_ns()
        doubtful = [path for path, stamp in stamps.items() if self._is_doubtful(path, stamp)]
        readable = [path for path in doubtful if not isinstance(stamps[path], Failure)]
        answers = self._files.each(content_of, readable)
        return {path for path in doubtful if self._take(path, stamps[path], now, answers.get(path))}

    def _take(
        self, path: Path, stamp: Stamp, now: int, answer: bytes | OSError | ValueError | None
    ) -> bool:
        """Keep what was read; whether it is another content than before."""
        content: bytes | Failure
        if isinstance(stamp, Failure):
            content = stamp
        elif isinstance(answer, bytes):
            content = answer
        else:
            content = Failure.of(answer or OSError())
        digest = sha256(content).digest() if isinstance(content, bytes) else content
        before = self._versions.get(path)
        self._versions[path] = Version(stamp, now, content, digest)
        # A file that was only touched is no news: nothing that depends on it is made anew.
        return before is None or before.digest != digest

    def content(self, path: Path) -> bytes | Failure:
        """What a file held when it was read, or why it couldn't be."""
        return self._versions[path].content

    def keep_only(self, paths: Iterable[Path]) -> None:
        """Forget the other files."""
        kept = set(paths)
        for path in self._versions.keys() - kept:
            del self._versions[path]

    def _is_doubtful(self, path: Path, stamp: Stamp) -> bool:
        version = self._versions.get(path)
        return version is None or version.stamp != stamp or not version.is_certain


def stamp_of(path: Path | str) -> tuple[int, ...]:
    """What changes with a file, behind whatever links it lies.

    Raises:
        OSError: the file system says nothing of it.
        ValueError: no path can be called so.
    """
    found = os.stat(path)  # noqa: PTH116  # a third of the time, ten thousand times
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def content_of(path: Path) -> bytes:
    """What a file holds.

    Raises:
        OSError: it can't be read, or is too long.
        ValueError: no path can be called so.
    """
    with path.open("rb") as file:
        # One byte more tells that there are more.
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"more than {MOST_BYTES // 1024**2} MiB")
    return content
