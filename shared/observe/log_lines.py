"""How a log line is written: as JSON for machines, or as text for people."""

import datetime as dt
import enum
import re
import sys
import time
import traceback
import uuid
from collections.abc import Collection, Mapping
from decimal import Decimal
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final, cast

import msgspec

from shared.display import encodable, escape_controls, escape_json
from shared.settings.redis_url import RedisUrl
from shared.settings.secret import Secret

Fields = dict[str, Any]
"""What a log line says besides its time and level; ``event`` among it."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_TRACEBACK_LENGTH: Final = 8_000  # characters, of the end, where the error itself stands
_DEPTH: Final = 8  # of lists and mappings in each other

# An object of another type may hold a body or a secret, so it is taken apart or named.
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_SHOWN_BY_STR: Final = (Secret, RedisUrl, PurePath, uuid.UUID, Decimal, dt.timedelta)
_RESERVED: Final = frozenset({"timestamp", "level"})  # a field of such a name is shown as level_
_BARE: Final = re.compile(r"[\w.:/@+*-]+")

_BOLD, _DIM, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_COLOURS: Final = {
    "debug": "\x1b[34m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[1;31m",
}

encode: Final = msgspec.json.Encoder().encode


class _Clock:
    """Writes the time of now, UTC to the millisecond; the part above is kept for a second."""

    def __init__(self) -> None:
        self._last = (-1, "")

    def __call__(self) -> str:
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        known, prefix = self._last
        if second != known:
            prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._last = (second, prefix)
        return f"{prefix}{nanoseconds // 1_000_000:03d}Z"


now: Final = _Clock()


def render_json(level: str, fields: Fields) -> bytes:
    """Write a line that a machine reads; its time is that of the call."""
    if "exc_info" in fields or not _SCALARS.issuperset(map(type, fields.values())):
        fields = _plain_fields(fields)
    if not _RESERVED.isdisjoint(fields):
        fields = {f"{name}_" if name in _RESERVED else name: fields[name] for name in fields}
    line = {"timestamp": now(), "level": level, "event": fields.pop("event", None), **fields}
    try:
        encoded = encode(line)
    except (UnicodeEncodeError, OverflowError):
        encoded = encode(encodable(line))
    return escape_json(encoded) + b"\n"


class ConsoleRenderer:
    """Writes a line that a person reads: time, level, event, then name=value."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, level: str, fields: Fields) -> bytes:
        """Write a line; its time is that of the call."""
        return self.at(now(), level, fields)

    def at(self, timestamp: str, level: str, fields: Fields) -> bytes:
        """Write a line that somebody else made.

        Args:
            timestamp: when, as `render_json` writes it.
            level: its level; one that isn't known has no colour.
            fields: what it says besides.
        """
        fields = _plain_fields(fields)
        event = escape_controls(str(fields.pop("event", None)))
        # Of the author's code, and of ours: what has lines is shown as such.
        below = [fields.pop(name, None) for name in ("traceback", "exception")]
        head = (
            self._paint(_DIM, timestamp[11:-1]),
            self._paint(_COLOURS.get(level, ""), f"{level:<8}"),
            self._paint(_BOLD, event),
        )
        shown = (f"{_quoted(name)}={_quoted(str(value))}" for name, value in fields.items())
        lines = [" ".join((*head, *shown))]
        for text in below:
            lines += ["  " + escape_controls(line) for line in str(text or "").split("\n") if line]
        return ("\n".join(lines) + "\n").encode()

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colours else text


def _quoted(text: str) -> str:
    """Give a text that ends where it seems to: what is in it can't look like another field."""
    if _BARE.fullmatch(text):
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escape_controls(quoted)}"'


def _plain_fields(fields: Fields) -> Fields:
    """Replace what isn't a plain value; an ``exc_info`` becomes the text ``exception``."""
    plain: Fields = {}
    for name, value in fields.items():
        if type(value) in _SCALARS and name != "exc_info":
            plain[name] = value
        elif name != "exc_info":
            plain[name] = _plain(value)
        elif (error := _error_in(value)) is not None:
            plain["exception"] = _traceback_text(error)
    return plain


def _plain(value: object, depth: int = _DEPTH) -> object:
    """Give a value of JSON's types that tells of any value without showing a body."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value, depth)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _plain_collection(value, depth - 1) if depth else "…"
    return _plain_object(value)


def _plain_collection(value: Collection[object], depth: int) -> object:
    if isinstance(value, Mapping):
        return {str(_plain(key, 0)): _plain(item, depth) for key, item in value.items()}
    return [_plain(item, depth) for item in value]


def _plain_object(value: object) -> str:
    if isinstance(value, _SHOWN_BY_STR):
        return str(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, type):
        return value.__qualname__
    return f"<{type(value).__qualname__}>"


def _error_in(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return cast("ExcInfo", exc_info)[1]
    return sys.exception() if exc_info else None


def _traceback_text(error: BaseException) -> str:
    """Give the traceback as Python prints it, which shows lines of code and no variables."""
    text = "".join(traceback.format_exception(error)).rstrip()
    return text if len(text) <= _TRACEBACK_LENGTH else "…" + text[-_TRACEBACK_LENGTH:]
