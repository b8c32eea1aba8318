"""Says where code stands, or where it raised, within bounds, whatever it does when it is asked."""

import asyncio
import base64
import contextlib
import importlib
import linecache
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Final

from worker.outcomes import MOST_ERROR_CHARACTERS, text_of

MOST_BYTES: Final = 8 * 1024
"""Of a traceback; of a longer one the end is kept, where the error itself stands."""

_TORN: Final = "…\n".encode()
"""In front of what is left of a longer one."""

_SHRINKS_BY: Final = 0.9
"""At the least, from one try to have it small enough to the next."""

_MOST_FRAMES: Final = 30
_MOST_AWAITED: Final = 20
_FIRST_FRAMES: Final = 5
_FRAMES_IN_GROUP: Final = 5
_MOST_ERRORS: Final = 10
"""Causes and parts of groups together: there may be ten thousand of them."""
_MOST_OF_A_GROUP: Final = 5
_MOST_NOTES: Final = 3
_LONGEST_NAME: Final = 300
_LONGEST_LINE: Final = 200
_LARGEST_SOURCE: Final = 4 * 1024 * 1024

_HERE: Final = str(Path(__file__).parent)
_OWN_HANDLERS: Final = f"{_HERE}/handlers/"
_BEFORE_THE_AUTHORS: Final = (
    f"{_HERE}/pipeline/",
    f"{_HERE}/loading.py",
    f"{_HERE}/lifespans.py",
    str(contextlib.__file__),
    "<frozen importlib",
    str(importlib.__file__),
)
"""What calls the author's code; from his first frame on, all are shown."""

_HEAD: Final = "Traceback (most recent call last):"
_BECAUSE: Final = "The above exception was the direct cause of the following exception:"
_MEANWHILE: Final = "During handling of the above exception, another exception occurred:"

# An author's class may have these names mean something else; Python's own can't be overridden.
_cause: Final[Any] = vars(BaseException)["__cause__"].__get__
_context: Final[Any] = vars(BaseException)["__context__"].__get__
_is_suppressed: Final[Any] = vars(BaseException)["__suppress_context__"].__get__
_frames: Final[Any] = vars(BaseException)["__traceback__"].__get__
_parts: Final[Any] = vars(BaseExceptionGroup)["exceptions"].__get__

Hide = Callable[[str], str]


def masked_text(error: BaseException, hide: Hide) -> str:
    """What it says, without secrets; masked before it is cut, so that no half of one is left."""
    return hide(text_of(error, whole=True))[:MOST_ERROR_CHARACTERS]


def traceback_of(error: BaseException, hide: Hide) -> str:
    """What Python would print of it: causes and groups too, lines of code, and no variables.

    Args:
        error: of an author's code; frames of the worker that only led to it are left out.
        hide: masks secrets; asked before anything is cut, so that no half of one is left.

    Returns:
        at most `MOST_BYTES` in UTF-8.
    """
    writer = _Writer(hide)
    try:
        writer.write(error, "", _MOST_FRAMES)
    except BaseException:  # noqa: BLE001  what was written until then is better than nothing
        writer.lines.append("… (the rest can't be printed)")
    raw = hide("\n".join(writer.lines)).encode(errors="backslashreplace")
    if len(raw) <= MOST_BYTES:
        return raw.decode()
    kept = raw[len(_TORN) - MOST_BYTES :].decode(errors="ignore")
    return _TORN.decode() + kept


def compressed(text: str, most: int) -> str:
    """A traceback, or an error, in few characters; of a long one the end.

    Args:
        text: without secrets.
        most: bytes of ASCII that may come of it.
    """
    raw = text.encode(errors="backslashreplace")[-MOST_BYTES:]
    # Scripts take any bytes for text, and a reader in Python doesn't.
    while len(packed := base64.b85encode(zlib.compress(raw))) > most:
        kept = int(len(raw) * min(most / len(packed), _SHRINKS_BY)) - len(_TORN)
        raw = _TORN + raw[-kept:].decode(errors="ignore").encode()
    return packed.decode()


def expanded(packed: str) -> str:
    """The text of which `compressed` has made it; empty where somebody's hand has changed it."""
    try:
        raw = zlib.decompressobj().decompress(base64.b85decode(packed), MOST_BYTES)
    except (ValueError, zlib.error):
        return ""
    return raw.decode(errors="replace")


@dataclass(slots=True)
class _Writer:
    """Gathers the lines.

    Attributes:
        hide: masks secrets.
        lines: so far.
        left: exceptions that may still be written.
        seen: those that were, since causes may go round in a circle.
    """

    hide: Hide
    lines: list[str] = field(default_factory=list)
    left: int = _MOST_ERRORS
    seen: set[int] = field(default_factory=set)

    def write(self, error: BaseException, indent: str, frames: int) -> None:
        """Write an exception behind those that led to it."""
        for each, link in reversed(list(self._chain(error))):
            self._write_one(each, indent, frames)
            if link:
                self._add(indent, "", link, "")

    def _chain(self, error: BaseException) -> Iterator[tuple[BaseException, str]]:
        """It and what led to it, each with the sentence that stands behind it; the last first."""
        link = ""
        each: BaseException | None = error
        while each is not None and id(each) not in self.seen and self.left > 0:
            self.seen.add(id(each))
            self.left -= 1
            yield each, link
            cause = _cause(each)
            link = _MEANWHILE if cause is None else _BECAUSE
            each = _context(each) if cause is None and not _is_suppressed(each) else cause

    def _write_one(self, error: BaseException, indent: str, most: int) -> None:
        frames = list(_frames_of(error))
        if frames:
            self._add(indent, _HEAD)
        first = min(_FIRST_FRAMES, most // 2) if len(frames) > most else 0
        for tb in frames[:first]:
            self._add(indent, *_frame_lines(tb))
        if first:
            self._add(indent, f"  … {len(frames) - most} more …")
        for tb in frames[first - most :] if first else frames:
            self._add(indent, *_frame_lines(tb))
        self._add(indent, *self._text(error).split("\n"))
        if issubclass(type(error), BaseExceptionGroup):
            self._write_parts(_parts(error), indent)

    def _write_parts(self, parts: tuple[BaseException, ...], indent: str) -> None:
        for number, part in enumerate(parts[:_MOST_OF_A_GROUP], start=1):
            if self.left <= 0:
                break
            self._add(indent, f"  +- {number} of {len(parts)}")
            self.write(part, f"{indent}  | ", _FRAMES_IN_GROUP)

    def _text(self, error: BaseException) -> str:
        text = masked_text(error, self.hide)
        notes = getattr(error, "__notes__", None)
        if type(notes) is list:
            said = [note for note in notes[:_MOST_NOTES] if type(note) is str]
            text = "\n".join((text, *(self.hide(note)[:MOST_ERROR_CHARACTERS] for note in said)))
        return text

    def _add(self, indent: str, *lines: str) -> None:
        self.lines += [f"{indent}{line}" for line in lines]


def _frames_of(error: BaseException) -> Iterator[TracebackType]:
    first: TracebackType | None = _frames(error)
    tb = first
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_BEFORE_THE_AUTHORS):
        tb = tb.tb_next
    tb = tb or first  # where there is none of his, it is ours to mend
    while tb is not None:
        if not tb.tb_frame.f_code.co_filename.startswith("<frozen importlib"):
            yield tb
        tb = tb.tb_next


def _frame_lines(tb: TracebackType) -> Iterator[str]:
    code, line = tb.tb_frame.f_code, tb.tb_lineno
    name = code.co_qualname[:_LONGEST_NAME]
    yield f'  File "{code.co_filename[:_LONGEST_NAME]}", line {line}, in {name}'
    source = _source_line(code, line)
    if source:
        yield f"    {source}"


def _source_line(code: CodeType, line: int | None) -> str:
    file = code.co_filename
    if line is None or (file.startswith(f"{_HERE}/") and not file.startswith(_OWN_HANDLERS)):
        return ""
    # Whoever compiles code names its file, which may be a pipe that nobody writes to.
    if file not in linecache.cache and not _is_plain(file):
        return ""
    return linecache.getline(file, line).strip()[:_LONGEST_LINE]


def _is_plain(file: str) -> bool:
    if not file.endswith(".py") or not file.startswith("/"):
        return False
    try:
        found = os.stat(file)  # noqa: PTH116  a path object would cost as much as all else here
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST_SOURCE


# Where code stands, on one line


_LIBRARIES: Final = re.compile(
    r"^<|[/\\](?:site|dist)-packages[/\\]|[/\\]lib[/\\]?python3\.|\.zip[/\\]"
)
"""What a file's name has in it that is a library's, Python's own, or none."""


def is_the_authors(file: str) -> bool:
    """Whether code of this file is neither the worker's nor a library's, by its name alone."""
    is_ours = file.startswith(f"{_HERE}/") and not file.startswith(_OWN_HANDLERS)
    return not is_ours and _LIBRARIES.search(file) is None


def stack_of(task: "asyncio.Task[Any] | None") -> str:
    """Where a task that waits has come to, the innermost call last; empty where that is unknown."""
    places: list[str] = []
    awaited: Any = task.get_coro() if task is not None else None
    while awaited is not None and len(places) < _MOST_AWAITED:
        frame: FrameType | None = getattr(awaited, "cr_frame", None) or getattr(
            awaited, "gi_frame", None
        )
        if frame is None:
            break
        places.append(place(frame.f_code, frame.f_lineno))
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return " > ".join(places)


def place(code: CodeType, line: int) -> str:
    """A place in the code, for a log line."""
    return f"{code.co_filename}:{line} in {code.co_name}"
