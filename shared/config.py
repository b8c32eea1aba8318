"""Settings read from a mapping of names to texts, such as the environment."""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

from shared.durations import parse_duration
from shared.errors import SettingsError
from shared.redis_url import RedisUrl

LogFormat = Literal["json", "console"]
"""How log lines look."""

TracingMode = Literal["off", "otlp"]
"""What ``TRACING`` may say."""

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
"""The least urgent lines that are logged."""

NOTHING: Final = "nothing"
"""What a `SettingsError` says it got where a setting is missing."""

_MASK: Final = "***"
_GOT_LENGTH: Final = 80
_LAST_PORT: Final = 65_535
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,30}")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,4})?")

_Choice = TypeVar("_Choice", bound=str)


class Secret:
    """A text that shows in no log, no message and no traceback; only `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Give the text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return f"Secret('{_MASK}')"

    def __str__(self) -> str:
        return _MASK


class Reader:
    """Reads typed settings from texts; one that is missing or wrong is a `SettingsError`.

    An empty text counts as unset. A default of None means that the setting must be there.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(
        self,
        name: str,
        default: str | None = None,
        *,
        expected: str = "a text",
        pattern: str | None = None,
    ) -> str:
        """Give a text, which matches ``pattern`` as a whole where one is given."""
        text = self._environ.get(name, "")
        if not text:
            return _required(name, default, expected)
        if pattern is not None and re.fullmatch(pattern, text) is None:
            raise _wrong(name, expected, text)
        return text

    def secret(self, name: str, default: str | None = None) -> Secret:
        """Give a secret; one whose default is the empty text is optional, and false if unset."""
        text = self._environ.get(name, "")
        return Secret(text or _required(name, default, "a secret"))

    def integer(
        self,
        name: str,
        default: int | None,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
        noun: str = "a whole number",
    ) -> int:
        """Give a whole number within its bounds, both of them allowed."""
        expected = noun + _bounds(minimum, maximum)
        text = self._environ.get(name, "")
        if not text:
            return _required(name, default, expected)
        if not _INTEGER.fullmatch(text) or not _within(int(text), minimum, maximum):
            raise _wrong(name, expected, text)
        return int(text)

    def port(self, name: str, default: int | None) -> int:
        """Give a TCP port; 0 lets the system pick one."""
        return self.integer(name, default, minimum=0, maximum=_LAST_PORT, noun="a port")

    def number(
        self,
        name: str,
        default: float | None,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> float:
        """Give a finite number within its bounds, both of them allowed."""
        expected = "a number" + _bounds(minimum, maximum)
        text = self._environ.get(name, "")
        if not text:
            return _required(name, default, expected)
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value) or not _within(value, minimum, maximum):
            raise _wrong(name, expected, text)
        return value

    def duration(
        self,
        name: str,
        default: str | None,
        *,
        minimum: str | None = None,
        maximum: str | None = None,
    ) -> float:
        """Give seconds, from a text such as ``30s`` or ``30``; bounds and default are texts too."""
        least = None if minimum is None else parse_duration(minimum)
        most = None if maximum is None else parse_duration(maximum)
        expected = f"a duration{_bounds(minimum, maximum)} (such as 200ms, 30s, 5m, 2h or 7d)"
        text = self._environ.get(name, "") or _required(name, default, expected)
        try:
            seconds = parse_duration(text)
        except ValueError:
            raise _wrong(name, expected, text) from None
        if not _within(seconds, least, most):
            raise _wrong(name, expected, text)
        return seconds

    def choice(self, name: str, options: Sequence[_Choice], default: _Choice | None) -> _Choice:
        """Give one of the options, which are in lower case; the text may be in any."""
        expected = "one of " + ", ".join(options)
        text = self._environ.get(name, "")
        if not text:
            return _required(name, default, expected)
        for option in options:
            if option == text.lower():
                return option
        raise _wrong(name, expected, text)

    def flag(self, name: str, default: bool) -> bool:  # noqa: FBT001  # a default, as elsewhere
        """Give a yes or a no: true, yes, on, 1 or false, no, off, 0."""
        text = self._environ.get(name, "").lower()
        if not text:
            return default
        if text not in _TRUE | _FALSE:
            raise _wrong(name, "true or false", text)
        return text in _TRUE


@dataclass(frozen=True, slots=True)
class CommonSettings:
    """What both programs need to be told.

    Attributes:
        redis_url: the Redis that they share.
        endpoints_file: the TOML file of endpoints and their secrets.
        reference_file: the imported reference data; None where none is named.
        log_level: the least urgent lines that are logged.
        log_format: JSON for machines, console for people.
        tracing: whether spans are made, and where they go.
        drain_seconds: how long what is in hand may take to finish after SIGTERM.
    """

    redis_url: RedisUrl
    endpoints_file: Path
    reference_file: Path | None
    log_level: LogLevel
    log_format: LogFormat
    tracing: TracingMode
    drain_seconds: float

    @classmethod
    def from_reader(cls, reader: Reader, *, terminal: bool | None = None) -> Self:
        """Read them.

        Args:
            reader: where from.
            terminal: whether people read the log; by default, whether stderr is a terminal.

        Raises:
            SettingsError: one is wrong; none is required.
        """
        read_by_people = sys.stderr.isatty() if terminal is None else terminal
        levels: tuple[LogLevel, ...] = ("debug", "info", "warning", "error", "critical")
        formats: tuple[LogFormat, ...] = ("json", "console")
        tracings: tuple[TracingMode, ...] = ("off", "otlp")
        reference_file = reader.text("REFERENCE_FILE", "")
        return cls(
            redis_url=RedisUrl(reader.text("REDIS_URL", "redis://127.0.0.1:6379/0")),
            endpoints_file=Path(reader.text("ENDPOINTS_FILE", "endpoints.toml")),
            reference_file=Path(reference_file) if reference_file else None,
            log_level=reader.choice("LOG_LEVEL", levels, "info"),
            log_format=reader.choice(
                "LOG_FORMAT", formats, "console" if read_by_people else "json"
            ),
            tracing=reader.choice("TRACING", tracings, "off"),
            # One rule, since both programs are often given one environment.
            drain_seconds=reader.duration("DRAIN_SECONDS", "25s", minimum="1s", maximum="1h"),
        )


_Value = TypeVar("_Value")


def _required(name: str, default: _Value | None, expected: str) -> _Value:
    if default is None:
        raise SettingsError(name, expected, NOTHING)
    return default


def _wrong(name: str, expected: str, text: str) -> SettingsError:
    shown = text if len(text) <= _GOT_LENGTH else text[: _GOT_LENGTH - 1] + "…"
    return SettingsError(name, expected, repr(shown))


def _within(value: float, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def _bounds(minimum: object, maximum: object) -> str:
    if minimum is None and maximum is None:
        return ""
    if maximum is None:
        return f" of at least {minimum}"
    if minimum is None:
        return f" of at most {maximum}"
    return f" from {minimum} to {maximum}"
