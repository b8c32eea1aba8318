"""Log lines: an event name with fields, as JSON for machines or as text for people."""

import asyncio
import datetime as dt
import enum
import logging
import re
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from pathlib import PurePath
from types import TracebackType
from typing import Any, BinaryIO, Final, TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from shared.config import LogFormat, LogLevel, Secret
from shared.display import escape_controls, escape_json
from shared.redis_url import RedisUrl

Fields = dict[str, Any]
"""What a log line says besides its time and level; ``event`` among it."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_TRACEBACK_LENGTH: Final = 8_000  # characters, of the end, where the error itself stands
_JSON_BITS: Final = 63  # of a number, besides its sign
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

_LEVELS: Final = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))

_encode: Final = msgspec.json.Encoder().encode


def get_logger(**initial: object) -> FilteringBoundLogger:
    """Give a logger whose lines bear the initial fields; it may be made before `configure`.

    Name what happened by a constant and the rest by fields:
    ``log.info("event_handled", event_id=event.id)``. A field that holds bytes shows their
    number, an object of an unknown type shows its type: no body gets into the log.
    """
    return cast("FilteringBoundLogger", structlog.get_logger(**initial))


def get_gathering_logger() -> FilteringBoundLogger:
    """Give a logger for a line an event: a turn of the event loop writes its lines at once.

    Use it, after `configure`, for what is said thousands of times a second. Whoever else logs
    writes what was gathered first, so the order is kept; a process that is killed loses the lines
    of its last turn.
    """
    return cast("FilteringBoundLogger", structlog.get_logger(_GATHERED).bind())


class Form:
    """A kind of line that is said thousands of times a second; its fields are named beforehand.

    It is logged as `get_gathering_logger` would log it at level info, at a third of the cost.

    Args:
        event: what happened.
        names: of the fields.
    """

    def __init__(self, event: str, *names: str) -> None:
        self._event = event
        self._names = names
        self._line = msgspec.defstruct("Line", ["timestamp", "level", "event", *names])

    def __call__(self, *values: str | float | None) -> None:
        """Log a line with these values, in the order of the names."""
        if _OUTPUT.least > logging.INFO:
            return
        if _OUTPUT.render is _render_json and _OUTPUT.trace_id is None:
            line = self._line(_now(), "info", self._event, *values)
            try:
                encoded = _encode(line)
            except (UnicodeEncodeError, OverflowError):
                pass  # said below, with what JSON can hold
            else:
                _OUTPUT.gather(escape_json(encoded) + b"\n")
                return
        fields = {"event": self._event, **dict(zip(self._names, values, strict=True))}
        _OUTPUT.gather(_OUTPUT.line("info", fields))


def configure(*, level: LogLevel, fmt: LogFormat, stream: TextIO | None = None) -> None:
    """Send the lines of this project and of the standard library's loggers to a stream.

    arq's loggers stay at WARNING, since it logs arguments, and so bodies, at INFO.

    Args:
        level: the least urgent lines that are logged.
        fmt: the form of the lines.
        stream: a text stream over bytes, as stderr is, which is the default.
    """
    target = sys.stderr if stream is None else stream
    _OUTPUT.target = cast("BinaryIO", target.buffer)
    _OUTPUT.least = getattr(logging, level.upper())
    if fmt == "json":
        _OUTPUT.render = _render_json
    else:
        _OUTPUT.render = _ConsoleRenderer(colours=target.isatty())
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_output,
        cache_logger_on_first_use=True,
    )
    _configure_standard_library(level.upper())


def show_trace(trace_id: Callable[[], str | None] | None) -> None:
    """Let every line bear the trace that it belongs to, if it does; ``None``: no more."""
    _OUTPUT.trace_id = trace_id


class _Output:
    """Where all lines go: one write a line, and never an error of its own.

    A log that can't be written (a full disk, a reader that left, a field whose ``__str__``
    raises) must not stop the work.
    """

    target: BinaryIO
    least: int
    render: Callable[[str, Fields], bytes]
    trace_id: Callable[[], str | None] | None = None

    def __init__(self) -> None:
        self._gathered: list[bytes] = []

    def line(self, level: str, fields: Fields) -> bytes:
        event = fields.get("event")
        if self.trace_id is not None and (trace_id := self.trace_id()):
            fields["trace_id"] = trace_id
        try:
            return self.render(level, fields)
        except Exception as error:  # noqa: BLE001  # whatever a field's own code raises
            lost = event if isinstance(event, str) else None
            fields = {"event": "log_line_failed", "error": type(error).__name__, "lost": lost}
            return self.render(level, fields)

    def write(self, line: bytes) -> None:
        if self._gathered:
            line = self._taken() + line
        try:
            self.target.write(line)
            self.target.flush()
        except (OSError, ValueError):
            return

    # structlog calls the method that is named after the level.
    debug = info = warning = error = critical = write

    def gather(self, line: bytes) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.write(line)
            return
        if not self._gathered:
            loop.call_soon(self._write_gathered)
        self._gathered.append(line)

    def _write_gathered(self) -> None:
        if self._gathered:
            self.write(b"")

    def _taken(self) -> bytes:
        lines, self._gathered = self._gathered, []
        return b"".join(lines)


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


_now: Final = _Clock()


def _render_json(level: str, fields: Fields) -> bytes:
    if "exc_info" in fields or not _SCALARS.issuperset(map(type, fields.values())):
        fields = _plain_fields(fields)
    if not _RESERVED.isdisjoint(fields):
        fields = {f"{name}_" if name in _RESERVED else name: fields[name] for name in fields}
    line = {"timestamp": _now(), "level": level, "event": fields.pop("event", None), **fields}
    try:
        encoded = _encode(line)
    except (UnicodeEncodeError, OverflowError):
        encoded = _encode(_harmless(line))
    return escape_json(encoded) + b"\n"


class _ConsoleRenderer:
    """Writes a line that a person reads: time, level, event, then name=value."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, level: str, fields: Fields) -> bytes:
        fields = _plain_fields(fields)
        event = escape_controls(str(fields.pop("event", None)))
        exception = fields.pop("exception", None)
        head = (
            self._paint(_DIM, _now()[11:-1]),
            self._paint(_COLOURS[level], f"{level:<8}"),
            self._paint(_BOLD, event),
        )
        shown = (f"{_quoted(name)}={_quoted(str(value))}" for name, value in fields.items())
        lines = [" ".join((*head, *shown))]
        if exception is not None:
            lines += ["  " + escape_controls(line) for line in str(exception).split("\n") if line]
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


def _harmless(value: object) -> object:
    """Give what JSON can hold for a lone surrogate and for a number of over 64 bits."""
    if isinstance(value, Mapping):
        return {_harmless(key): _harmless(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_harmless(item) for item in value]
    if isinstance(value, str) or (isinstance(value, int) and value.bit_length() > _JSON_BITS):
        return str(value).encode("utf-8", "backslashreplace").decode()
    return value


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


_OUTPUT: Final = _Output()


class _Gathering:
    """The same, for lines that may wait for the end of a turn; what is urgent doesn't."""

    debug = info = staticmethod(_OUTPUT.gather)
    warning = error = critical = staticmethod(_OUTPUT.write)


_GATHERED: Final = _Gathering()


def _output(output: _Output | _Gathering = _OUTPUT) -> _Output | _Gathering:
    return output


def _process(_logger: WrappedLogger, method: str, fields: EventDict) -> bytes:
    return _OUTPUT.line(method, cast("Fields", fields))


# One list for ever, since loggers keep the one that they were first used with.
_PROCESSORS: Final[list[Processor]] = [_process]


class _StandardHandler(logging.Handler):
    """Sends the standard library's records the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: Fields = {"event": _message(record), "logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        _OUTPUT.write(_OUTPUT.line(_level_name(record.levelno), fields))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  # the arguments don't fit; they may be bodies, so not shown
        return record.msg if isinstance(record.msg, str) else f"<{type(record.msg).__qualname__}>"


def _level_name(number: int) -> str:
    return next((name for least, name in _LEVELS if number >= least), "debug")


def _configure_standard_library(level: str) -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _StandardHandler):
            root.removeHandler(handler)
    root.addHandler(_StandardHandler())
    root.setLevel(level)
    logging.getLogger("arq").setLevel(max(root.level, logging.WARNING))
    # An access log would say at the ingress's full speed what the metrics count.
    logging.getLogger("aiohttp.access").setLevel(logging.CRITICAL + 1)
