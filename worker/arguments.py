"""Checks what a handler gives to its organization's state, before any of it is kept."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from shared.errors import StateError
from worker.value import LARGEST_INTEGER

MOST_KEY_BYTES: Final = 512
MOST_VALUE_BYTES: Final = 256 * 1024
LONGEST_EXPIRE: Final = LARGEST_INTEGER // 1000
"""Seconds, 285,000 years: Redis takes whole milliseconds, and Lua loses digits beyond these."""

_NUMBERS: Final = (int, float)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def shown(value: object) -> str:
    """The beginning of a value's repr, for an error; some have none that can be had."""
    try:
        return repr(value)[:80]
    except BaseException:  # noqa: BLE001  # it is anybody's code, and this is an error already
        return f"<{type(value).__name__}>"


def size(text: str) -> int:
    """The bytes of a text in Redis."""
    return len(text) if text.isascii() else len(text.encode())


def checked_key(key: object) -> str:
    """The key as plain text.

    An enum's member is a text with another `format`: it would be read under one name and written
    under another.

    Raises:
        StateError: it is no text, empty or too long.
    """
    if type(key) is not str:
        if not isinstance(key, str):
            raise StateError(f"state key: expected text, got {shown(key)}")
        key = str.__str__(key)
    try:
        length = size(key)
    except UnicodeEncodeError:
        raise StateError(f"state key: expected text, got {shown(key)}") from None
    if not 0 < length <= MOST_KEY_BYTES:
        raise StateError(f"state key: expected 1 to {MOST_KEY_BYTES} bytes, got {length}")
    return key


def checked_number(key: str, by: object) -> float:
    """What is added to a number.

    Raises:
        StateError: it is not a finite number within 2^53.
    """
    if (
        isinstance(by, bool)
        or not isinstance(by, _NUMBERS)
        or not abs(by) <= LARGEST_INTEGER  # which NaN isn't, either
    ):
        raise StateError(f"increment({key!r}): expected a number within 2^53, got {shown(by)}")
    return float(by)


def encoded(key: str, value: Any) -> str:
    """A value as JSON on one line, since a line break ends the JSON in what Redis holds.

    Raises:
        StateError: it is not JSON, is too large, or could not be read back.
    """
    try:
        json = msgspec.json.encode(value).decode()
        if "\n" in json:  # of a `msgspec.Raw`: all other line breaks are escaped
            json = msgspec.json.format(json, indent=-1)
        length = size(json)
        if length <= MOST_VALUE_BYTES:
            _check_readable(value, json)
    except (TypeError, ValueError, ArithmeticError, RecursionError) as exc:
        raise StateError(f"state value of {key!r}: expected JSON, got: {exc}") from exc
    if length > MOST_VALUE_BYTES:
        raise StateError(
            f"state value of {key!r}: expected at most {MOST_VALUE_BYTES} bytes of JSON, "
            f"got {length}"
        )
    return json


def _check_readable(value: Any, json: str) -> None:
    """See that a later `get` finds what is put now.

    msgspec copies a ``Raw`` unread, writes null for what is not finite, and writes whole numbers
    that it doesn't read. What is equal once it is read back has none of these; most values are.
    """
    if msgspec.json.decode(json) == value:
        return
    # The hook sees each `Raw`: one that is no JSON by itself may well be JSON with what is around.
    plain = msgspec.to_builtins(value, enc_hook=_check_raw, str_keys=True)
    if "null" in json and not _is_finite(plain):
        raise ValueError("a number that is not finite, for which JSON has no word")


def _check_raw(value: object) -> None:
    if not isinstance(value, msgspec.Raw):
        raise TypeError(f"an object of type {type(value).__name__}")
    msgspec.json.decode(value)


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    inner: Iterable[object] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        inner = value
    return all(_is_finite(each) for each in inner)


def milliseconds(expire: object) -> int:
    """The time until something goes; at least one millisecond.

    Raises:
        StateError: it is no number of seconds that Redis takes.
    """
    seconds = expire.total_seconds() if isinstance(expire, timedelta) else expire
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, _NUMBERS)
        or not 0 < seconds <= LONGEST_EXPIRE  # which NaN isn't, either
    ):
        raise StateError(
            f"expire: expected seconds, more than 0 and at most {LONGEST_EXPIRE}, "
            f"got {shown(expire)}"
        )
    return round(seconds * 1000) or 1


def whole_version(version: object) -> int:
    """A version as a whole number: that of a time is its epoch microseconds.

    Raises:
        StateError: it is neither an aware time nor a whole number within 2^53.
    """
    if isinstance(version, datetime):
        if version.utcoffset() is None:
            raise StateError(f"version: expected an aware time, got {shown(version)}")
        # After the year 2255 these are beyond 2^53: rounded as Lua would round them, both agree.
        return int(float((version - _EPOCH) // timedelta(microseconds=1)))
    if (
        isinstance(version, bool)
        or not isinstance(version, int)
        or not abs(version) <= LARGEST_INTEGER
    ):
        raise StateError(
            f"version: expected a time or a whole number within 2^53, got {shown(version)}"
        )
    return int(version)
