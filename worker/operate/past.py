"""What is known of an event's attempts, and of what else happened to it, in order."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Self

import msgspec
from msgspec.structs import replace

from shared.display import moment
from worker.tracebacks import expanded

_LOST: Final = "l"
_AGAIN: Final = "e"
_OTHERWISE: Final = "c"
_REDELIVERED: Final = "s"
ATTEMPTS: Final = {"f", "a", "b", "x", _LOST}
"""The kinds of what is an attempt, or was to be one; ``prelude/attempts.lua`` tells all kinds."""

_HARMED: Final = (msgspec.DecodeError, TypeError, ValueError, LookupError, ArithmeticError)
"""What reading raises where somebody's hand has written."""

_BEYOND: Final = 10**14
"""Milliseconds since the epoch that calendars have a date for, until long after all of this."""

_OUTCOMES: Final = {
    "f": "failed",
    "a": "asked_again",
    "b": "blocked",
    "x": "rejected",
    _LOST: "lost",
    "d": "died",
    "r": "replayed",
    _REDELIVERED: "redelivered",
    _AGAIN: "delivered_again",
    _OTHERWISE: "delivered_otherwise",
}


class Happening(msgspec.Struct, frozen=True):
    """One attempt, or what else happened.

    Attributes:
        kind: of it, a letter.
        at: when it ended, seconds since the epoch.
        number: of the attempt, from 1; of a death how many there were; of deliveries how many these
            are. 0: not known.
        seconds: that the handler took; of deliveries, between the first and the last of them.
        worker: that made it, by name; or whoever replayed it. Empty where nobody knows.
        handler: the function; empty where there was none.
        said: the error; of a death its reason.
    """

    kind: str
    at: float
    number: int = 0
    seconds: float = 0.0
    worker: str = ""
    handler: str = ""
    said: str = ""

    @property
    def outcome(self) -> str:
        """What it came to, a word that stays."""
        return _OUTCOMES.get(self.kind, "unknown")

    def row(self) -> dict[str, Any]:
        """The same by names that stay; what isn't known is null."""
        return {
            "at": moment(self.at),
            "happened": self.outcome,
            "attempt": None if self.is_delivery else self.number or None,
            "times": self.number if self.is_delivery else None,
            "seconds": self.seconds if self.handler else None,
            "worker": self.worker or None,
            "handler": self.handler or None,
            "said": self.said or None,
        }

    @property
    def began(self) -> float:
        """What is kept is when it ended, by Redis's clock: that all workers have in common."""
        return self.at - (0.0 if self.is_delivery else self.seconds)

    @property
    def is_delivery(self) -> bool:
        """Whether it stands for deliveries of what was known already."""
        return self.kind in {_AGAIN, _OTHERWISE}

    @property
    def is_attempt(self) -> bool:
        """Whether it is an attempt, or was to be one."""
        return self.kind in ATTEMPTS


class Past(msgspec.Struct, frozen=True):
    """What is known of it.

    Attributes:
        happenings: the oldest first.
        traceback: of the last attempt; of an error that was long all of it.
    """

    happenings: tuple[Happening, ...] = ()
    traceback: str = ""

    @property
    def last(self) -> Happening | None:
        """The last attempt that had an outcome."""
        had = (each for each in reversed(self.happenings) if each.is_attempt and each.kind != _LOST)
        return next(had, None)

    @property
    def lives(self) -> tuple[tuple[Happening, ...], tuple[Happening, ...]]:
        """What happened before the delivery by which the event is known now came in, and since."""
        places = [at for at, each in enumerate(self.happenings) if each.kind == _REDELIVERED]
        last = places[-1] if places else 0
        return self.happenings[:last], self.happenings[last:]

    @property
    def has_lost(self) -> bool:
        """Whether any was lost, of whose worker it says what its tokens begin with."""
        return any(each.kind == _LOST for each in self.happenings)

    def with_names(self, signed: Callable[[str], str]) -> Self:
        """The same, with the names of workers in place of these."""
        # Nobody names himself where he was not heard of any more: only his tokens tell.
        named = (
            replace(each, worker=signed(each.worker)) if each.kind == _LOST else each
            for each in self.happenings
        )
        return replace(self, happenings=tuple(named))

    def with_redeliveries(self, raw: Any) -> Self:
        """The same, with what came again meanwhile; ``prelude/attempts.lua`` tells its form."""
        try:
            number, first, last = map(int, raw.split(b":"))
            again = Happening(_AGAIN, _seconds(last), number, _seconds(max(0, last - first)))
        except (*_HARMED, AttributeError):
            return self
        return replace(self, happenings=_in_order([*self.happenings, again]))

    @classmethod
    def read(cls, raw: Any) -> Self:
        """What a job's history says; nothing where there is none, or somebody's hand wrote it."""
        try:
            found = msgspec.msgpack.decode(raw)
            if len(found) == len(("number", "at", "error", "traceback")):  # an older version's
                number, at, error, traceback = found
                last = Happening("f", _seconds(at), int(number), said=str(error))
                return cls((last,), str(traceback))
            # Texts stand once each, since ten attempts mostly say the same.
            entries, texts, last = found
            return cls(_in_order(_happenings(entries, texts)), expanded(last))
        except _HARMED:
            return cls()


NOTHING: Final = Past()
"""Where there is none, as of nearly every event."""


def _in_order(happenings: Iterable[Happening]) -> tuple[Happening, ...]:
    """By when they happened: what came again while a job waited is noted with its end."""
    return tuple(sorted(happenings, key=lambda each: each.at))


def _happenings(entries: list[Any], texts: list[str]) -> Iterator[Happening]:
    for each in entries:
        with contextlib.suppress(*_HARMED):  # or all others would be unknown with it
            yield _happening(each, texts)


def _happening(entry: list[Any], texts: list[str]) -> Happening:
    kind, at, number, took, *places = entry
    worker, handler, said = (str(texts[each - 1]) if each else "" for each in places)
    return Happening(str(kind), _seconds(at), int(number), _seconds(took), worker, handler, said)


def _seconds(milliseconds: float) -> float:
    if not 0 <= milliseconds < _BEYOND:
        raise ValueError(milliseconds)
    return milliseconds / 1000
