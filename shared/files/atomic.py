"""Replaces a file as a whole: whoever reads it, and a crash, meets the old one or the new one."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
"""The mode of a file that may hold secrets."""


def replace_file(path: Path, content: bytes, *, new_mode: int = PRIVATE) -> None:
    """Write a file's new content, keep its mode and owner, and return once it is on disk.

    A link stays a link; what it points to is replaced. Two that write one file at the same time
    have to take turns by themselves.

    Args:
        path: the file.
        content: all of it.
        new_mode: the mode of a file that wasn't there before.

    Raises:
        OSError: it can't be done; the file is as it was.
    """
    target = path.resolve()
    # Always the same name, so that what a crash leaves behind is overwritten by the next try.
    draft = target.with_name(f".{target.name}.new")
    draft.unlink(missing_ok=True)
    try:
        _write(draft, content, _status(target), new_mode)
        draft.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _write(draft: Path, content: bytes, like: os.stat_result | None, new_mode: int) -> None:
    # O_EXCL: in a folder that others write to, nobody may lay a link in the way.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        if like is None:
            os.fchmod(descriptor, new_mode)
        else:
            _take_after(descriptor, like)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _take_after(descriptor: int, like: os.stat_result) -> None:
    """Give the new file the old one's owner and mode, or refuse: a program may read it by them."""
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(descriptor, like.st_uid, like.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(like.st_mode))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
