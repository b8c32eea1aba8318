"""Settings read from a mapping of names to texts, such as the environment."""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote_plus, urlsplit

from shared.durations import parse_duration
from shared.errors import SettingsError

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

_URL_FORM: Final = "redis://host:port/database, rediss://… or unix://…"
_URL_OPTIONS: Final = frozenset({"client_name", "db", "password", "username"})
_TLS_OPTIONS: Final = frozenset(
    {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
)
_HIDDEN_OPTIONS: Final = frozenset({"password", "username"})

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


class RedisUrl:
    """The URL of a Redis server and database, whose password never shows.

    Takes ``redis://[[user]:password@]host[:port][/database]``, ``rediss://…`` for TLS and
    ``unix:///path/of.sock?db=0``. Of redis-py's query options it takes those that say where
    and who, not those that would change time-outs or the form of replies.

    Args:
        url: the URL as it was set.
        setting: the name to blame when it is wrong.

    Raises:
        SettingsError: it is no such URL. The message holds nothing of it but the scheme.
    """

    __slots__ = ("_masked", "_url")

    def __init__(self, url: str, *, setting: str = "REDIS_URL") -> None:
        parts = _split_url(url)
        if isinstance(parts, str):
            raise SettingsError(setting, parts, _scheme_only(url))
        self._url = url
        self._masked = _masked_url(parts)

    def reveal(self) -> str:
        """Give the URL with its password."""
        return self._url

    @property
    def is_unix_socket(self) -> bool:
        """Whether the server is reached by a file on this machine."""
        return self._url.startswith("unix://")

    def __eq__(self, other: object) -> bool:
        return self._url == other._url if isinstance(other, RedisUrl) else NotImplemented

    def __hash__(self) -> int:
        return hash((RedisUrl, self._url))

    def __repr__(self) -> str:
        return f"RedisUrl('{self._masked}')"

    def __str__(self) -> str:
        return self._masked


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
        """Give seconds, from a text such as ``30s``; bounds and default are such texts too."""
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
    """

    redis_url: RedisUrl
    endpoints_file: Path
    reference_file: Path | None
    log_level: LogLevel
    log_format: LogFormat
    tracing: TracingMode

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


def _split_url(url: str) -> SplitResult | str:
    """Take a Redis URL apart, or say what was expected in its place."""
    if not url.startswith(("redis://", "rediss://", "unix://")) or not url.isprintable():
        return _URL_FORM
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return f"{_URL_FORM}, with %2F, %23 and %3F for /, # and ? in a password"
    if parts.fragment:
        return "no # (in a password it is written %23)"
    return _wrong_place(parts) or _wrong_option(parts) or parts


def _wrong_place(parts: SplitResult) -> str | None:
    if parts.scheme == "unix":
        # redis-py would drop what stands before the first slash.
        whole = not parts.hostname and parts.path.strip("/")
        return None if whole else "the whole path of a socket after unix://, as in unix:///a.sock"
    if not parts.hostname:
        return f"a host after {parts.scheme}://"
    if parts.port == 0:  # redis-py would take 6379
        return "a port from 1 to 65535"
    if not re.fullmatch(r"/?[0-9]{0,5}", parts.path, re.ASCII):
        return "the number of a database after the host's /"
    return None


def _wrong_option(parts: SplitResult) -> str | None:
    given = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(given)
    known = _URL_OPTIONS | (_TLS_OPTIONS if parts.scheme == "rediss" else frozenset())
    if not options.keys() <= known:
        return "no query options but " + ", ".join(sorted(known))
    if len(options) < len(given):
        return "each query option once"
    if not re.fullmatch(r"[0-9]{1,5}", options.get("db", "0"), re.ASCII):
        return "a number in the query option db"
    return None


def _scheme_only(url: str) -> str:
    """Tell of a wrong URL what can't be a part of its password."""
    scheme = re.match(r"[a-z][a-z0-9+.-]{0,15}://", url)
    return f"{scheme[0]}…" if scheme else "something else"


def _masked_url(parts: SplitResult) -> str:
    who, at, where = parts.netloc.rpartition("@")
    user, colon, _ = who.partition(":")
    # A name without a password is often a password in the wrong place.
    masked = f"{user}:{_MASK}" if colon else _MASK
    query = "&".join(map(_masked_option, parts.query.split("&")))
    return f"{parts.scheme}://{masked + at if at else ''}{where}{parts.path}{query and '?' + query}"


def _masked_option(option: str) -> str:
    """Mask one option of a query; what is percent-encoded stays so, for it may be a line feed."""
    name, equals, _ = option.partition("=")
    return f"{name}{equals}{_MASK}" if unquote_plus(name) in _HIDDEN_OPTIONS else option
