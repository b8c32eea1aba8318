"""An organization's values as a handler reads and changes them, before the commit."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from typing import Any, Final

import msgspec

from shared.errors import StateError

MOST_KEY_BYTES: Final = 512
MOST_VALUE_BYTES: Final = 256 * 1024
MOST_BYTES: Final = 1024 * 1024
"""What one event may write in all."""
MOST_OPERATIONS: Final = 1000
LARGEST_INTEGER: Final = 2**53 - 1
"""Redis's Lua counts in doubles: beyond this a whole number loses digits."""

_NEVER: Final = 0
_AS_IT_IS: Final = -1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Operation = tuple[Any, ...]
"""``(name, key, expire in ms, …)`` as ``settle.lua`` takes it."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value as it stands in Redis; ``json`` is empty for one that isn't there.

    Attributes:
        json: the value.
        version: orders the writes of ``put_if_newer``; ``None`` for an unversioned value.
        writer: id of the event that wrote that version.
    """

    json: str = ""
    version: int | None = None
    writer: str = ""

    @classmethod
    def parse(cls, raw: bytes | None) -> "Value":
        """Read the form that ``settle.lua`` writes."""
        if raw is None:
            return cls()
        json, newline, rest = raw.decode(errors="replace").partition("\n")
        if not newline:
            return cls(json)
        version, _, writer = rest.partition("\n")
        return cls(json, int(float(version)), writer)

    def is_older(self, version: int, writer: str) -> bool:
        """Whether a write with this version replaces it; the event id decides a tie.

        An event's own later write does.
        """
        if self.version is None:
            return True
        return (version, writer.encode()) >= (self.version, self.writer.encode())


def apply(before: Value, operation: Operation, writer: str) -> Value:
    """The value after an operation; the same as ``settle.lua`` works out at the commit.

    Raises:
        StateError: it is an increment of something that is not a number.
    """
    match operation:
        case ("put", _, _, json):
            return Value(json)
        case ("put_if_newer", _, _, json, version):
            return Value(json, version, writer) if before.is_older(version, writer) else before
        case ("increment", key, _, by):
            return replace(before, json=_incremented(before.json, by, key))
        case ("delete", _, _, None):
            return replace(before, json="")
        case ("delete", _, _, version):
            return Value("", version, writer) if before.is_older(version, writer) else before
    raise AssertionError(operation)


def _incremented(json: str, by: float, key: str) -> str:
    number = msgspec.json.decode(json) if json else 0
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise StateError(f"increment({key!r}): expected a number, got {type(number).__name__}")
    # Lua has one kind of number: 2.0 and 2 are the same to it, and are written as 2.
    total = float(number) + by
    if abs(total) > LARGEST_INTEGER:
        raise StateError(f"increment({key!r}): the sum is beyond 2^53 - 1")
    return str(int(total)) if total == int(total) else repr(total)


class State:
    """One organization's values, for the time of one attempt.

    What was read is checked at the commit: where a value has changed meanwhile, nothing is
    written and the handler runs again. What was written is seen by later reads of the same
    attempt, and by nobody else before the commit.

    Args:
        read: fetches a raw value by its key.
        event_id: of the event that is handled; it decides between equal versions.
        tombstone: seconds that a deleted version stays known.
    """

    def __init__(
        self, read: Callable[[str], Awaitable[bytes | None]], *, event_id: str, tombstone: float
    ) -> None:
        self._read = read
        self._event_id = event_id
        self._tombstone = tombstone
        self._base: dict[str, Value] = {}
        self._bytes = 0
        self.reads: dict[str, str] = {}
        self.operations: list[Operation] = []

    async def get(self, key: str, default: Any = None) -> Any:
        """The value under a key, as plain Python values.

        Raises:
            StateError: the key is empty or too long, or an increment before this read was of
                something that is not a number.
        """
        _check_key(key)
        value = await self._view(key)
        return msgspec.json.decode(value.json) if value.json else default

    async def put(self, key: str, value: Any, *, expire: float | timedelta | None = None) -> None:
        """Write a value, whatever was there.

        Args:
            key: any text of at most 512 bytes.
            value: anything that is JSON, of at most 256 KiB.
            expire: seconds until it goes; without it, it stays.

        Raises:
            StateError: one of these limits.
        """
        self._add("put", key, _milliseconds(expire), _encode(key, value))

    async def put_if_newer(
        self,
        key: str,
        value: Any,
        version: datetime | int,
        *,
        expire: float | timedelta | None = None,
    ) -> None:
        """Write a value unless a newer version is there; decided at the commit.

        Deliveries come in any order: with ``version=event.created_at`` the last change wins.
        Between equal versions the event with the larger id wins.

        Raises:
            StateError: a limit of ``put``, or a version that is neither an aware time nor a
                whole number within 2^53.
        """
        self._add(
            "put_if_newer", key, _milliseconds(expire), _encode(key, value), _version(version)
        )

    async def delete(self, key: str, *, version: datetime | int | None = None) -> None:
        """Remove a value; with a version, unless a newer one is there.

        A versioned value leaves its version behind for a while, so that an older write that is
        late doesn't bring it back.
        """
        self._add(
            "delete",
            key,
            round(self._tombstone * 1000),
            None if version is None else _version(version),
        )

    async def increment(
        self, key: str, by: float = 1, *, expire: float | timedelta | None = None
    ) -> None:
        """Add to a number, which is 0 where there is none; applied at the commit, unread.

        Args:
            key: any text of at most 512 bytes.
            by: what to add; may be negative.
            expire: seconds until it goes; without it, an expiry that is set stays.

        Raises:
            StateError: ``by`` is not a finite number within 2^53.
        """
        _check_number(key, by)
        self._add(
            "increment", key, _AS_IT_IS if expire is None else _milliseconds(expire), float(by)
        )

    def _add(self, name: str, key: str, expire: int, *rest: Any) -> None:
        _check_key(key)
        self._bytes += len(key.encode()) + (len(rest[0]) if isinstance(rest[0], str) else 0)
        if len(self.operations) >= MOST_OPERATIONS:
            raise StateError(f"one event may change the state {MOST_OPERATIONS} times at the most")
        if self._bytes > MOST_BYTES:
            raise StateError(f"one event may write {MOST_BYTES} bytes at the most")
        self.operations.append((name, key, expire, *rest))

    async def _view(self, key: str) -> Value:
        """What is there, with this attempt's own operations on top."""
        mine = [operation for operation in self.operations if operation[1] == key]
        puts = [i for i, operation in enumerate(mine) if operation[0] == "put"]
        if puts:  # nothing before the last put shows, so nothing of it needs to be read
            mine, value = mine[puts[-1] :], Value()
        else:
            value = await self._stored(key)
        for operation in mine:
            value = apply(value, operation, self._event_id)
        return value

    async def _stored(self, key: str) -> Value:
        if key not in self._base:
            raw = await self._read(key)
            # The digest names the value that was read; nothing is protected by it.
            self.reads[key] = sha1(raw, usedforsecurity=False).hexdigest() if raw else ""
            self._base[key] = Value.parse(raw)
        return self._base[key]


def _check_key(key: str) -> None:
    try:
        size = len(key.encode())
    except (UnicodeEncodeError, AttributeError):
        raise StateError(f"state key: expected text, got {key!r:.80}") from None
    if not 0 < size <= MOST_KEY_BYTES:
        raise StateError(f"state key: expected 1 to {MOST_KEY_BYTES} bytes, got {size}")


def _check_number(key: str, by: object) -> None:
    if (
        isinstance(by, bool)
        or not isinstance(by, int | float)
        or not abs(by) <= LARGEST_INTEGER  # which NaN isn't, either
    ):
        raise StateError(f"increment({key!r}): expected a number within 2^53, got {by!r}")


def _encode(key: str, value: Any) -> str:
    try:
        json = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise StateError(f"state value of {key!r}: expected JSON, got: {exc}") from exc
    if len(json) > MOST_VALUE_BYTES:
        raise StateError(
            f"state value of {key!r}: expected at most {MOST_VALUE_BYTES} bytes of JSON, "
            f"got {len(json)}"
        )
    return json.decode()


def _milliseconds(expire: float | timedelta | None) -> int:
    if expire is None:
        return _NEVER
    seconds = expire.total_seconds() if isinstance(expire, timedelta) else expire
    if not (math.isfinite(seconds) and seconds > 0):
        raise StateError(f"expire: expected a positive number of seconds, got {expire!r}")
    return max(1, round(seconds * 1000))


def _version(version: datetime | int) -> int:
    if isinstance(version, datetime):
        if version.tzinfo is None:
            raise StateError(f"version: expected an aware time, got {version!r}")
        return (version - _EPOCH) // timedelta(microseconds=1)
    if type(version) is not int or abs(version) > LARGEST_INTEGER:
        raise StateError(f"version: expected a time or a whole number in 2^53, got {version!r}")
    return version
