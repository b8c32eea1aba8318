"""A value of an organization's state, as it stands in Redis and as an operation changes it."""

import math
import re
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from shared.errors import StateError

LARGEST_INTEGER: Final = 2**53 - 1
"""Redis's Lua counts in doubles: beyond this a whole number loses digits."""

_RECEIVED_AT: Final = re.compile(r"(.*) ([0-9]{1,16})", re.DOTALL)
_VERSION: Final = re.compile(r"-?[0-9.e+]+")
_OPEN: Final = (",", ":", "[")
_BLANKS: Final = " \t\n\v\f\r"

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
