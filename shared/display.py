"""What came from outside, as text that nothing obeys: in terminals, in JSON lines, in errors."""

import codecs
import json
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from io import TextIOWrapper
from typing import Any, Final, NoReturn

import click
import msgspec

from shared.errors import SettingsError

USAGE_ERROR: Final = 2
"""The exit code of a command that can't do what it was told."""

_HUNDRED: Final = 100
_MINUTE: Final = 60
_LAST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
_INTEGERS: Final = range(-(2**63), 2**63)

# Terminals obey the C0 and C1 controls; bidi and invisible characters make text look like
# another; a lone surrogate can't be printed at all.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def escape_controls(text: str) -> str:
    r"""Show as text whatever could move a cursor, reorder a line, hide, or fail to print.

    A line feed becomes ``\n``, an escape ``\x1b``, a bidi override ``\u202e``. Other printable
    characters stay, whatever their script.
    """
    return _UNSAFE.sub(_as_escape, text)


def print_in_any_encoding() -> None:
    """Have no text fail to be printed to stdout since its encoding lacks a character.

    On a terminal that is a question mark, since lines are as wide as was reckoned; elsewhere JSON's
    escape, so that nothing is lost and JSON stays JSON.
    """
    out = sys.stdout
    # Mostly it lacks none; and one that was a file and is a pipe by now can't be changed.
    if isinstance(out, TextIOWrapper) and codecs.lookup(out.encoding).name != "utf-8":
        out.reconfigure(errors="replace" if out.isatty() else _ESCAPED)


def _escaped(exc: UnicodeError) -> tuple[str, int]:
    if not isinstance(exc, UnicodeEncodeError):
        raise exc
    return json.dumps(exc.object[exc.start : exc.end])[1:-1], exc.end


_ESCAPED: Final = "sellfern-escaped"
codecs.register_error(_ESCAPED, _escaped)


def size(number: int) -> str:
    """Bytes in few characters."""
    if number >= 1 << 30:
        return f"{number / (1 << 30):.1f} GiB"
    if number >= 1 << 20:
        return f"{number / (1 << 20):.1f} MiB"
    if number >= 1 << 10:
        return f"{number / (1 << 10):.1f} KiB"
    return f"{number} B"


def roughly(seconds: float) -> str:
    """A time as people say it: ``2d 3h``, ``4m 10s``, ``7s``."""
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        whole, seconds = divmod(seconds, length)
        if whole or parts:
            parts.append(f"{whole:.0f}{unit}")
    return " ".join(parts[:2]) or "0s"


def counted(number: int, one: str, many: str = "") -> str:
    """A number of things: ``1 event waits``, ``1,200 events wait``.

    Args:
        number: how many.
        one: what one is, and does.
        many: what more of them are; with an s behind it, unless somebody says otherwise.
    """
    return f"1 {one}" if number == 1 else f"{number:,} {many or f'{one}s'}"


def duration(seconds: float) -> str:
    """A time of any length: ``0 ms``, ``35 ms``, ``1.4 s``, ``4m 10s``, ``2d 3h``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{digits(seconds)} s"
    parts = roughly(round(seconds)).split()
    return " ".join(part for part in parts if not part.startswith("0"))


def digits(number: float) -> str:
    """A number to one place behind the point, where that says anything."""
    if abs(number) >= _HUNDRED or number == round(number):
        return f"{number:.0f}"
    return f"{number:.1f}"


def moment(seconds: float | None) -> str | None:
    """A moment as text, ISO 8601 in UTC to the millisecond; nothing where there is none.

    Args:
        seconds: since the epoch; ``None`` or 0 where there is none.
    """
    if not seconds:
        return None
    return _date(seconds).isoformat(timespec="milliseconds")


def clock(seconds: float) -> str:
    """A moment in UTC, to the second, for people."""
    return f"{_date(seconds):%Y-%m-%d %H:%M:%S} UTC"


def _date(seconds: float) -> datetime:
    """The moment, or the first or last that calendars have: somebody's hand may write any."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), _LAST), UTC)


def labelled(name: str, texts: Iterable[str], width: int) -> None:
    """Print some texts below each other, behind a name that ends at that column."""
    for number, text in enumerate(texts):
        click.echo(f"{'' if number else name:>{width}}  {escape_controls(text)}")


def json_line(value: object) -> str:
    """Give a value as JSON on one line, without the line feed, safe to show in a terminal.

    Raises:
        TypeError: the value holds something that JSON has no form for.
    """
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:  # a lone surrogate
        encoded = msgspec.json.encode(encodable(msgspec.to_builtins(value)))
    return escape_json(encoded).decode()


def encodable(value: Any) -> Any:
    """The same, with text for what UTF-8 or 64 bits can't hold: lone surrogates, large numbers."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case int() if value not in _INTEGERS:
            return str(value)
        case Mapping():
            return {encodable(key): encodable(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(map(encodable, value))
    return value


def escape_json(encoded: bytes) -> bytes:
    r"""Replace what a terminal would obey in encoded JSON by JSON's own ``\u`` escapes."""
    if encoded.isascii() and b"\x7f" not in encoded:  # nearly always; JSON has escaped the rest
        return encoded
    return _UNSAFE.sub(_as_json_escape, encoded.decode()).encode()


def fail(*messages: str) -> NoReturn:
    """Print each as one line ``error: …`` to stderr and leave with exit code 2.

    Raises:
        SystemExit: always.
    """
    for message in messages:
        click.echo(f"error: {escape_controls(message)}", err=True)
    raise SystemExit(USAGE_ERROR)


def refuse(error: SettingsError) -> NoReturn:
    """Print each thing that is wrong as a line ``error: …`` to stderr and leave with exit code 2.

    Raises:
        SystemExit: always.
    """
    for each in error.errors:
        click.echo(f"error: {escape_controls(str(each))}", err=True)
        show_below(each.detail, err=True)
    raise SystemExit(USAGE_ERROR)


def show_below(detail: str, *, err: bool = False) -> None:
    """Print lines that belong to the line before them: indented."""
    for line in filter(None, detail.split("\n")):
        click.echo(f"  {escape_controls(line)}", err=err)


def _as_escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _as_json_escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]
