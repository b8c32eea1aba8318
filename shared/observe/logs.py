"""Where log lines go: an event name with fields, to one stream."""

import asyncio
import atexit
import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, Final, TextIO, cast

import msgspec

from shared.display import escape_json
from shared.observe.log_lines import ConsoleRenderer, Fields, encode, now, render_json
from shared.observe.log_writer import LogWriter
from shared.observe.structlog_alone import (
    EventDict,
    FilteringBoundLogger,
    Processor,
    WrappedLogger,
    structlog,
)
from shared.settings.config import LogFormat, LogLevel

LAST_SECONDS: Final = 1.0
"""What the last lines of a process may take, where their reader stalls."""

_LEVELS: Final = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))


def get_logger(**initial: object) -> FilteringBoundLogger:
    """Give a logger whose lines bear the initial fields; it may be made before `configure`.

    Name what happened by a constant and the rest by fields:
    ``log.info("event_handled", event_id=event.id)``. A field that holds bytes shows their
    number, an object of an unknown type shows its type: no body gets into the log.
    """
    return cast("FilteringBoundLogger", structlog.get_logger(**initial))


class FixedLine:
    """A kind of line that is said thousands of times a second; its fields are named beforehand.

    It is logged as `get_logger`'s would log it at level info, at a third of the cost: the lines of
    one turn of the event loop are handed over together. Whoever else logs hands them over first,
    so the order is kept.

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
        if _OUTPUT.render is render_json and _OUTPUT.trace_id is None:
            line = self._line(now(), "info", self._event, *values)
            try:
                encoded = encode(line)
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
        stream: a text stream over bytes, as stderr is, which is the default. What a file or a pipe
            gets is written soon by a thread; anything else is written at once.
    """
    target = sys.stderr if stream is None else stream
    _OUTPUT.open(cast("BinaryIO", target.buffer))
    _OUTPUT.least = getattr(logging, level.upper())
    if fmt == "json":
        _OUTPUT.render = render_json
    else:
        _OUTPUT.render = ConsoleRenderer(colours=target.isatty())
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


def flush(seconds: float) -> bool:
    """Write all lines that wait, in so many seconds; false where that can't be done.

    Any thread may ask, though the others hang: it is what to do before a process ends itself.
    """
    _OUTPUT.hand_over()
    return _OUTPUT.writer is None or _OUTPUT.writer.flush(seconds)


class _Output:
    """Where all lines go: nobody waits for it, and it never raises an error of its own.

    A log that can't be written (a full disk, a reader that stalls or left, a field whose
    ``__str__`` raises) must not stop the work.
    """

    least: int
    render: Callable[[str, Fields], bytes]
    trace_id: Callable[[], str | None] | None = None
    put: Callable[..., None]
    writer: LogWriter | None = None

    def __init__(self) -> None:
        self._gathered: deque[bytes] = deque()
        self._is_due = False

    def open(self, target: BinaryIO) -> None:
        """Let lines go to a stream from now on."""
        former, self.writer = self.writer, None
        try:
            self.writer = LogWriter(target.fileno(), self._gap)
        except (OSError, ValueError):  # a stream in memory, say, which nobody has to wait for
            self.put = partial(_write_at_once, target)
        else:
            self.put = self.writer.put
        if former is not None:
            former.close()

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
            self.hand_over()
        self.put(line)

    def gather(self, line: bytes) -> None:
        """Write a line with the others of this turn of the loop."""
        self._gathered.append(line)  # first: whoever hands over meanwhile takes it, or it is due
        if not self._is_due:
            self._is_due = True
            try:
                asyncio.get_running_loop().call_soon(self.hand_over)
            except RuntimeError:
                self.hand_over()

    def hand_over(self) -> None:
        """Have what is gathered written; any thread may, though the loop's goes on to gather."""
        self._is_due = False
        lines: list[bytes] = []
        with contextlib.suppress(IndexError):  # whoever is quicker
            while True:
                lines.append(self._gathered.popleft())
        if lines:
            self.put(b"".join(lines), len(lines))

    # structlog calls the method that is named after the level.
    debug = info = warning = error = critical = write

    def forked(self) -> None:
        self._gathered.clear()  # the parent's to write
        self._is_due = False
        if self.writer is not None:
            self.writer.forked()

    def _gap(self, lines: int) -> bytes:
        return self.line("warning", {"event": "log_lines_lost", "count": lines})


def _write_at_once(target: BinaryIO, line: bytes, _lines: int = 1) -> None:
    try:
        target.write(line)
        target.flush()
    except (OSError, ValueError):
        return


_OUTPUT: Final = _Output()

atexit.register(flush, LAST_SECONDS)
os.register_at_fork(after_in_child=_OUTPUT.forked)


def _output() -> _Output:
    return _OUTPUT


def _process(_logger: WrappedLogger, method: str, fields: EventDict) -> bytes:
    return _OUTPUT.line(method, cast("Fields", fields))


# One list for ever, since loggers keep the one that they were first used with.
_PROCESSORS: Final[list[Processor]] = [_process]


class _StandardHandler(logging.Handler):
    """Sends the standard library's records the same way."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Send a record, without the lock that others would wait for.

        An argument whose ``__str__`` hangs would keep it for ever, and the watchdog logs, too.
        """
        kept: object = self.filter(record)  # from Python 3.12 on, perhaps another record
        if kept:
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return bool(kept)

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
