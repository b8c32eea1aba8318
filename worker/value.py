"""A value of an organization's state: what may become one, how it stands in Redis, and changes."""

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from shared.errors import StateError
from shared.settings.durations import seconds_in

LARGEST_INTEGER: Final = 2**53 - 1
"""Redis's Lua counts in doubles: beyond this a whole number loses digits."""

_RECEIVED_AT: Final = re.compile(r"(.*) ([0-9]{1,16})", re.DOTALL)
_VERSION: Final = re.compile(r"-?[0-9.e+]+")
_OPEN: Final = (",", ":", "[")
_BLANKS: Final = " \t\n\v\f\r"

MOST_KEY_BYTES: Final = 512
MOST_VALUE_BYTES: Final = 256 * 1024
LONGEST_EXPIRE: Final = LARGEST_INTEGER // 1000
"""Seconds, 285,000 years: Redis takes whole milliseconds, and Lua loses digits beyond these."""

_NUMBERS: Final = (int, float)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Operation = tuple[Any, ...]
"""``(name, key, expire in ms, …)`` as ``settle.lua`` takes it."""


class Value(msgspec.Struct, frozen=True):
    """A value as it stands in Redis; ``json`` is empty for one that isn't there.

    Attributes:
        json: the value.
        version: orders the writes of ``put_if_newer``; ``None`` for an unversioned value.
        writer: id of the event that wrote that version.
        received_at: when that event was received, epoch milliseconds; 0 where it isn't known.
    """

    json: str = ""
    version: int | None = None
    writer: str = ""
    received_at: int = 0

    @classmethod
    def parse(cls, raw: bytes | None) -> "Value":
        """Read the form that ``settle.lua`` writes, and those that it used to write.

        Older workers wrote no received-at, and kept the line breaks of a ``msgspec.Raw``.
        """
        text = "" if raw is None else raw.decode(errors="replace")
        if "\n" not in text:
            return cls(text)
        # Of JSON that has line breaks, the version and the writer are the last two lines.
        for lines in (text.split("\n", 2), text.rsplit("\n", 2)):
            value = cls._versioned(*lines) if len(lines) == 3 else None  # noqa: PLR2004
            if value is not None:
                return value
        return cls(text)

    @classmethod
    def _versioned(cls, json: str, version: str, written: str) -> "Value | None":
        # A number that has a line of its own in unversioned JSON comes after one of `_OPEN`.
        number = _whole(version)
        if number is None or json.rstrip(_BLANKS).endswith(_OPEN) or not written.strip(_BLANKS):
            return None
        # An id may hold blanks, too; but what this version writes always ends in a received-at. An
        # older value whose id looks like that counts as received long ago, as older values do.
        match = _RECEIVED_AT.fullmatch(written)
        return cls(json, number, *((match[1], int(match[2])) if match else (written, 0)))

    def is_older(self, version: int, received_at: int, writer: str) -> bool:
        """Whether a write with this version replaces it.

        Between equal versions the event that was received later does, then the one with the
        larger id; and an event's own later write.
        """
        if self.version is None:
            return True
        mine = (self.version, self.received_at, self.writer.encode())
        return (version, received_at, writer.encode()) >= mine

    def decoded(self, key: str) -> Any:
        """The value in plain Python values; it must be there.

        Raises:
            StateError: what stands there under this key is not JSON; nothing of ours wrote it.
        """
        try:
            return msgspec.json.decode(self.json)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise StateError(f"state value of {key!r}: expected JSON in Redis: {exc}") from exc


def apply(before: Value, operation: Operation, writer: str, received_at: int) -> Value:
    """The value after an operation; the same as ``settle.lua`` works out at the commit.

    Raises:
        StateError: it is an increment of something that is not a number.
    """
    match operation:
        case ("put", _, _, json):
            return Value(json)
        case ("put_if_newer", _, _, json, version):
            after = Value(json, version, writer, received_at)
            return after if before.is_older(version, received_at, writer) else before
        case ("increment", key, _, by):
            return replace(before, json=_incremented(before, by, key))
        case ("delete", _, _, None):
            return replace(before, json="")
        case ("delete", _, _, version):
            after = Value("", version, writer, received_at)
            return after if before.is_older(version, received_at, writer) else before
    raise AssertionError(operation)


def _incremented(before: Value, by: float, key: str) -> str:
    number = before.decoded(key) if before.json else 0
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise StateError(f"increment({key!r}): expected a number, got {type(number).__name__}")
    # Lua has one kind of number: 2.0 and 2 are the same to it, and are written as 2. A larger one
    # than twice the limit can't come back within it, and might be none that a double holds.
    total = math.inf if abs(number) > 2 * LARGEST_INTEGER + 2 else float(number) + by
    if abs(total) > LARGEST_INTEGER:
        raise StateError(f"increment({key!r}): the sum is beyond 2^53 - 1")
    return str(int(total)) if total == int(total) else repr(total)


def _whole(text: str) -> int | None:
    """A version as Lua prints it: with an exponent where it is a time far away."""
    try:
        number = float(text) if _VERSION.fullmatch(text) else math.nan
    except ValueError:
        return None
    return int(number) if math.isfinite(number) else None


# What a handler gives, before any of it is kept


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
    seconds = seconds_in(expire)
    if seconds is None or not 0 < seconds <= LONGEST_EXPIRE:  # which NaN isn't, either
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
