"""Whose turn an event needs: which of a handler's events run one at a time, in order."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self, TypeAlias, final

import msgspec

from shared.errors import HandlerError, SellfernError
from shared.sellfern import identifier
from shared.sellfern.envelope import UNREADABLE, decoded
from shared.settings.durations import parse_duration, seconds_in
from worker.events import Event
from worker.outcomes import text_of

Key: TypeAlias = str | Callable[[Event[Any]], str | int | None]
"""A field of the data (``order_id``, ``customer.id``), or a function that makes an event's key."""

_LONGEST_QUIET: Final = 3600.0
_EXPECTED_KEY: Final = "expected a field of the data such as 'order_id', or a function of the event"


class UnreadableKeyError(SellfernError):
    """An event has no key that can be read; the message says why."""


@final
class Turn(msgspec.Struct, frozen=True, gc=False):
    """The turn that an event needs.

    Attributes:
        key: whose turn it is; equal for events of which one is to be handled at a time.
        latest: the handler, where only the newest of its events that wait is to run; else empty.
        quiet: milliseconds for which such events are gathered before the newest runs.
    """

    key: str
    latest: str = ""
    quiet: int = 0


@final
@dataclass(frozen=True, slots=True)
class TurnRule:
    """What a handler says of its events' turns.

    Attributes:
        function: makes the key of an event; ``None`` where a field of its data is it.
        field: that field's name, with dots between its parts.
        latest: as a `Turn` has it.
        quiet: the same.
    """

    function: Callable[[Event[Any]], object] | None
    field: str
    latest: str
    quiet: int
    _decode: Callable[[bytes | msgspec.Raw], Any] = msgspec.json.decode

    @classmethod
    def of(
        cls, key: Key | None, *, handler: str, latest: bool, quiet: str | float | timedelta | None
    ) -> Self | None:
        """Check what a handler was registered with; ``None`` where it asks for no turn.

        Raises:
            HandlerError: it can't be; the message says what was expected.
        """
        if quiet is not None and not latest:
            raise HandlerError(f"{handler}: quiet= gathers events of latest=True; add that")
        if key is None:
            if latest:
                raise HandlerError(
                    f"{handler}: latest=True needs a key=: the newest of which events?"
                )
            return None
        names = (handler if latest else "", 0 if quiet is None else _milliseconds(quiet, handler))
        if isinstance(key, str):
            return cls(None, key, *names, _decoder(key, handler))
        return cls(_checked_function(key, handler), "", *names)

    def of_data(self, raw: bytes | msgspec.Raw) -> Turn:
        """The turn of an event by a field of its data in JSON.

        It bears the field's name, so that all handlers that name the same field share it.

        Raises:
            UnreadableKeyError: the field isn't there, or is neither text nor a whole number.
        """
        try:
            found, _ = decoded(self._decode, raw)
        except UNREADABLE as exc:
            raise UnreadableKeyError(str(exc)) from None
        for part in self.field.split("."):
            found = getattr(found, _attribute(part))
        return Turn(f"{self.field}:{found}", self.latest, self.quiet)

    def of_event(self, function: Callable[[Event[Any]], object], event: Event[Any]) -> Turn | None:
        """The turn of an event by the handler's function, whose ``None`` is for no turn.

        Raises:
            UnreadableKeyError: the function failed, or made something else.
        """
        try:
            key = function(event)
            text = None if key is None else identifier.text(key)
            if text is not None:
                text.encode()  # half of a surrogate would fail all marks of its batch
        except BaseException as exc:  # an author's code, which must not cost more than the order
            raise UnreadableKeyError(text_of(exc)) from exc
        return None if text is None else Turn(text, self.latest, self.quiet)


def _decoder(field: str, handler: str) -> Callable[[bytes | msgspec.Raw], Any]:
    """Decodes one field, and passes over all others."""
    kind: Any = identifier.Id
    for part in reversed(field.split(".")):
        if not part:
            raise HandlerError(f"{handler}: key: {_EXPECTED_KEY}, got {field!r:.80}")
        named = (_attribute(part), kind, msgspec.field(name=part))
        kind = msgspec.defstruct("Field", [named], gc=False)
    return msgspec.json.Decoder(kind, dec_hook=identifier.decoded).decode


def _attribute(part: str) -> str:
    """A name in Python for any name in JSON."""
    return f"of_{part.encode().hex()}"


def _checked_function(key: object, handler: str) -> Callable[[Event[Any]], object]:
    if not callable(key) or isinstance(key, type):
        raise HandlerError(f"{handler}: key: {_EXPECTED_KEY}, got {key!r:.80}")
    if inspect.iscoroutinefunction(key):
        raise HandlerError(f"{handler}: key: {_EXPECTED_KEY}, got an async one")
    try:
        inspect.signature(key).bind(None)
    except TypeError:
        raise HandlerError(
            f"{handler}: key: expected a function of the event, got {inspect.signature(key)}"
        ) from None
    return key


def _milliseconds(quiet: object, handler: str) -> int:
    try:
        said = parse_duration(quiet) if isinstance(quiet, str) else quiet
    except ValueError as exc:
        raise HandlerError(f"{handler}: quiet: expected {exc}, got {quiet!r:.80}") from None
    seconds = seconds_in(said)
    if seconds is None or not 0 < seconds <= _LONGEST_QUIET:
        raise HandlerError(
            f"{handler}: quiet: expected more than 0 s and at most {_LONGEST_QUIET:g} s, "
            f"got {quiet!r:.80}"
        )
    return max(1, round(seconds * 1000))
