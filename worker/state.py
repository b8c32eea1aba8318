"""An organization's values as a handler reads and changes them, before the commit."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from functools import wraps
from hashlib import sha1
from inspect import CORO_CREATED, getcoroutinelocals, getcoroutinestate
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

from shared.errors import StateError
from worker.value import (
    LARGEST_INTEGER,
    Operation,
    Value,
    apply,
    checked_key,
    checked_number,
    encoded,
    milliseconds,
    shown,
    size,
    whole_version,
)

MOST_BYTES: Final = 1024 * 1024
"""What one event may write in all."""
MOST_OPERATIONS: Final = 1000

_NEVER: Final = 0
_AS_IT_IS: Final = -1
_ROOM: Final = 64
"""Calls to remember before those that have ended are looked for."""

P = ParamSpec("P")
T = TypeVar("T")


def _noted(
    method: Callable[Concatenate["State", P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["State", P], Coroutine[Any, Any, T]]:
    """Have a call noticed that nobody awaits: Python warns of it on stderr only, and late.

    What is given out is the method's own coroutine: tasks and ``gather`` take it, and a type
    checker flags one that is not awaited.
    """

    def call(self: "State", *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        coroutine = method(self, *args, **kwargs)
        self.note(coroutine)
        return coroutine

    return cast("Callable[Concatenate[State, P], Coroutine[Any, Any, T]]", wraps(method)(call))


class State:
    """One organization's values, for the time of one attempt.

    What was read is checked at the commit: where a value has changed meanwhile, nothing is
    written and the handler runs again. What was written is seen by later reads of the same
    attempt, and by nobody else before the commit.

    Args:
        read: fetches a raw value by its key.
        event_id: of the event that is handled; it decides between equal versions.
        received_at: when the event was received, epoch milliseconds; it decides before the id.
            0 is before all that is known: a value written so gives way to any other.
        tombstone: seconds that a deleted version stays known.

    Attributes:
        reads: the digest of each raw value that was read, by its key; empty for an absent one.
        operations: what is to be committed, in this order.
        received_at: as given; 0 where that is no number that Lua counts exactly.
        unawaited: once closed, the first call that nobody has awaited to its end, such as
            ``state.put('k')``; empty where there is none.
    """

    def __init__(
        self,
        read: Callable[[str], Awaitable[bytes | None]],
        *,
        event_id: str,
        received_at: int = 0,
        tombstone: float,
    ) -> None:
        self._read = read
        self._event_id = event_id
        self._tombstone = tombstone
        self._base: dict[str, Value] = {}
        self._bytes = 0
        self._calls: list[Any] = []
        self._room = _ROOM
        self._closed = ""
        self._is_checked = True
        self.received_at = received_at if 0 <= received_at <= LARGEST_INTEGER else 0
        self.reads: dict[str, str] = {}
        self.operations: list[Operation] = []
        self.unawaited = ""

    def close(self, why: str) -> None:
        """Let nothing be read or written from now on: the attempt has ended.

        Args:
            why: what every later call raises as a ``StateError``, and every ``get`` that is
                under way. The first reason stays.
        """
        if not self._closed:
            self._closed = why
            if self._calls:
                self.unawaited = _first_unawaited(self._calls)
                self._calls.clear()

    def commit_elsewhere(self) -> None:
        """Leave the attempt's commit to another database: two commits can't be one.

        From now on nothing can be written here, and what was read, or will be, isn't checked at
        the commit: so no change of it has the handler run again.

        Raises:
            StateError: something is written here already, or the attempt has ended.
        """
        self._check_open()
        if self.operations:
            raise StateError(
                "the organization's state is written to already, and a database can't be committed "
                "in one step with it: expected the one or the other in one attempt"
            )
        self._is_checked = False
        self.reads.clear()

    def note(self, call: Coroutine[Any, Any, Any]) -> None:
        """Have it noticed where nobody awaits this call, of whatever is the attempt's own.

        Args:
            call: named, with its first argument, as it is to be told: ``Database.once`` is told
                as ``database.once('part')``.
        """
        self._calls.append(call)
        if len(self._calls) > self._room:
            self._make_room()

    @_noted
    async def get(self, key: str, default: Any = None) -> Any:
        """The value under a key, as plain Python values.

        Reads of one key at the same time see the same value: the first that has come.

        Raises:
            StateError: the key is empty or too long, an increment before this read was of
                something that is not a number, what stands there is not JSON, or the attempt
                has ended.
        """
        key = self._key(key)
        value = await self._view(key)
        return value.decoded(key) if value.json else default

    @_noted
    async def put(self, key: str, value: Any, *, expire: float | timedelta | None = None) -> None:
        """Write a value, whatever was there.

        Args:
            key: any text of at most 512 bytes.
            value: anything that is JSON, of at most 256 KiB. A ``msgspec.Raw`` is stored without
                its line breaks.
            expire: seconds until it goes, at most 2^53 ms; without it, it stays.

        Raises:
            StateError: one of these limits, a number that is not finite, or the attempt has
                ended.
        """
        key = self._key(key)
        self._add("put", key, _until(expire), encoded(key, value))

    @_noted
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
        Between equal versions the event that was received later wins, then the one with the
        larger id. An event keeps its received-at over retries, and over a replay of its dead
        letter; a resend in other bytes, or of an event that is dead, has a new one.

        Raises:
            StateError: a limit of ``put``, or a version that is neither an aware time nor a
                whole number within 2^53.
        """
        key = self._key(key)
        number = whole_version(version)
        json = encoded(key, value)
        self._add("put_if_newer", key, _until(expire), json, number)

    @_noted
    async def delete(self, key: str, *, version: datetime | int | None = None) -> None:
        """Remove a value; with a version, unless a newer one is there, as in ``put_if_newer``.

        A versioned value leaves its version behind for a while, so that an older write that is
        late doesn't bring it back.

        Raises:
            StateError: the key or the version is none, or the attempt has ended.
        """
        key = self._key(key)
        number = None if version is None else whole_version(version)
        self._add("delete", key, milliseconds(self._tombstone), number)

    @_noted
    async def increment(
        self, key: str, by: float = 1, *, expire: float | timedelta | None = None
    ) -> None:
        """Add to a number, which is 0 where there is none; applied at the commit, unread.

        Args:
            key: any text of at most 512 bytes.
            by: what to add; may be negative.
            expire: seconds until it goes; without it, an expiry that is set stays.

        Raises:
            StateError: ``by`` is not a finite number within 2^53, or the attempt has ended.
        """
        key = self._key(key)
        number = checked_number(key, by)
        self._add("increment", key, _AS_IT_IS if expire is None else _until(expire), number)

    def _check_open(self) -> None:
        if self._closed:
            raise StateError(f"the organization's state is closed: {self._closed}")

    def _make_room(self) -> None:
        # What has run to its end has no frame any more.
        self._calls = [call for call in self._calls if call.cr_frame is not None]
        # Twice as many as there are, or those that run at once would be looked at for each.
        self._room = max(_ROOM, 2 * len(self._calls))

    def _key(self, key: object) -> str:
        self._check_open()
        return checked_key(key)

    def _add(self, name: str, key: str, expire: int, *rest: Any) -> None:
        if not self._is_checked:
            raise StateError(
                f"{name}({shown(key)}): a database has this attempt's commit, which can't be one "
                "step with that of the organization's state"
            )
        total = self._bytes + size(key)
        if isinstance(rest[0], str):
            total += size(rest[0])
        # Before anything is noted: a handler may go on after the error, and what it has been
        # refused must not be committed.
        if len(self.operations) >= MOST_OPERATIONS:
            raise StateError(f"one event may change the state {MOST_OPERATIONS} times at the most")
        if total > MOST_BYTES:
            raise StateError(f"one event may write {MOST_BYTES} bytes at the most")
        self._bytes = total
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
            value = apply(value, operation, self._event_id, self.received_at)
        return value

    async def _stored(self, key: str) -> Value:
        if key not in self._base:
            raw = await self._read(key)
            self._check_open()
            # Another read of the key may have been quicker. Its value is the one that is checked
            # and that all see: a later one might hold a neighbour's commit in between. To share
            # one read would save a little, and have to care for whoever's task is cancelled.
            if key not in self._base:
                if self._is_checked:
                    # The digest names the value that was read; nothing is protected by it.
                    digest = "" if raw is None else sha1(raw, usedforsecurity=False).hexdigest()
                    self.reads[key] = digest
                self._base[key] = Value.parse(raw)
        return self._base[key]


def _until(expire: float | timedelta | None) -> int:
    return _NEVER if expire is None else milliseconds(expire)


def _first_unawaited(calls: Sequence[Any]) -> str:
    """The first such as ``state.put('k')`` that has not begun, or not ended writing."""
    for call in calls:
        if call.cr_frame is not None and (
            # A read that is under way is of no use to anybody any more, and of no harm.
            getcoroutinestate(call) == CORO_CREATED or call.__qualname__ != "State.get"
        ):
            given = getcoroutinelocals(call)
            first = next((value for name, value in given.items() if name != "self"), None)
            owner, _, name = call.__qualname__.rpartition(".")
            return f"{owner.lower()}.{name}({shown(first)})"
    return ""
