"""A misdeed of a handler, and what has to become of it."""

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from worker import Event, Organization

DRAINED: Final = 0
BLOCKED: Final = 70
HALF_STUCK: Final = 71
BROKEN: Final = 72
LEFT_LEASES: Final = 75
"""The exit codes of a worker, as the README has them."""

ANY_NUMBER: Final = -1


class Order(msgspec.Struct):
    """What an event tells the handlers to do.

    Attributes:
        do: the name of a misdeed, or of what a neighbour does.
        party: how many have to meet.
        seconds: how long it takes.
    """

    do: str = "count"
    party: int = 0
    seconds: float = 0.0


Act = Callable[[Event[Order], Organization], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Ending:
    """One way in which the event may end.

    Attributes:
        lines: the log lines of its attempts, in order: a pattern each of
            ``event reason error``. Each is one counted outcome.
        reason: of its dead letter; ``None`` where there must be none.
        attempts: of its dead letter.
        starts: of its handler; where it is ``None``, as many as lines; or any number.
        finished: whether the event has left the queue.
    """

    lines: tuple[str, ...]
    reason: str | None = None
    attempts: int = 0
    starts: int | None = None
    finished: bool = True

    @property
    def is_handled(self) -> bool:
        """Whether what the handler did to the state has to be there."""
        return self.finished and self.reason is None

    def fits(self, said: Collection[str]) -> bool:
        """Whether these lines are the beginning of it, or all of it."""
        if len(said) > len(self.lines):
            return False
        pairs = zip(said, self.lines, strict=False)
        return all(re.search(pattern, text, re.DOTALL) for text, pattern in pairs)

    def is_told_by(self, said: Collection[str]) -> bool:
        """Whether these lines are all of it."""
        return len(said) == len(self.lines) and self.fits(said)


HANDLED: Final = Ending(("^event_handled",))
ALMOST: Final = Ending(("^event_retried", "^event_handled"))
"""It failed once, and then it was handled."""
GIVEN_BACK: Final = Ending(("^event_released", "^event_handled"))
"""Its worker gave it back, which counts for nothing; another one handled it."""
ABANDONED: Final = Ending(("^event_abandoned", "^event_handled"))
"""The same, but it may be why its worker ended: its claim stays counted."""
LEFT: Final = Ending(("^event_handled",), starts=2)
"""The same, but nothing was said of it alone: its lease expired, or the worker left in haste."""
AGAIN: Final = (ALMOST, GIVEN_BACK, ABANDONED, LEFT)


def failed(error: str, *, reason: str = "exhausted") -> Ending:
    """Both of its attempts fail with this error, a pattern; then it is a dead letter."""
    lines = (f"^event_retried .*(?:{error})", f"^event_dead {reason} .*(?:{error})")
    return Ending(lines, reason, attempts=2)


def rejected(why: str) -> Ending:
    """It is a dead letter at once."""
    return Ending((f"^event_dead rejected .*(?:{why})",), "rejected", attempts=1)


def deferred(error: str) -> Ending:
    """It waits, for longer than a test does; the error is a pattern."""
    return Ending((f"^event_retried .*(?:{error})",), finished=False)


def crashed(*, abandoned: int = 0) -> Ending:
    """Its workers went away while it was alone with them: their attempts say nothing any more.

    Args:
        abandoned: how often they could say before that it may be why.
    """
    lines = ("^event_abandoned",) * abandoned + ("^event_dead crashed",)
    return Ending(lines, "crashed", starts=ANY_NUMBER)


@dataclass(frozen=True, slots=True)
class Row:
    """One misdeed.

    Attributes:
        name: the words of its function.
        act: does it, as a part of the handler.
        ends: any of these.
        own: whether it gets a worker of its own, since the worker ends or something outlives it.
        leaves: the codes with which workers end by it; empty where none may end.
        may_stay: whether the worker may as well go on.
        drained: the codes with which SIGTERM may end the worker afterwards.
        stuck: how many slots are gone until the worker's end.
        mute: whether the log can't be relied on any more.
        twice: whether neighbours may be begun again, as after a kill they are.
        logs: events that have to be logged meanwhile.
        notes: what the misdeed has to write down.
        settings: that differ.
        values: of the organization's state afterwards, by key.
        then: what a later event of the same organization does, which has to be handled.
        is_told_to_stop: whether SIGTERM comes while it happens; `drained` is how that may end.
        patience: seconds in which it has to end, on a quiet machine.
    """

    name: str
    act: Act
    ends: tuple[Ending, ...]
    own: bool = False
    leaves: Collection[int] = ()
    may_stay: bool = False
    drained: Collection[int] = (DRAINED,)
    stuck: int = 0
    mute: bool = False
    twice: bool = False
    logs: Collection[str] = ()
    notes: Collection[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    then: str = ""
    patience: float = 8.0
    is_told_to_stop: bool = False


class Family(list[Row]):
    """Misdeeds of one kind.

    Args:
        name: of the kind.
        common: what all of them have, as in `Row`.
    """

    def __init__(self, name: str, **common: Any) -> None:
        super().__init__()
        self.name = name
        self._common = common

    def row(self, *ends: Ending, **more: Any) -> Callable[[Act], Act]:
        """Take a function for a misdeed that may end in any of these ways."""

        def take(act: Act) -> Act:
            self.add(act.__name__, act, *ends, **more)
            return act

        return take

    def add(self, name: str, act: Act, *ends: Ending, **more: Any) -> None:
        """Add a misdeed by its name."""
        self.append(Row(name, act, ends, **{**self._common, **more}))

    def raises(self, name: str, make: Callable[[], BaseException | type], *ends: Ending) -> None:
        """Add one that raises what is made."""

        async def act(_event: Event[Order], _organization: Organization) -> None:
            raise make()

        self.add(f"raises_{name}", act, *ends)

    def returns(self, name: str, make: Callable[[], Any], *ends: Ending, **more: Any) -> None:
        """Add one that returns what is made."""

        async def act(_event: Event[Order], _organization: Organization) -> Any:
            return make()

        self.add(f"returns_{name}", act, *ends, **more)


def named(families: Iterable[Family]) -> dict[str, Row]:
    """All of them by name."""
    rows = [row for family in families for row in family]
    found = {row.name: row for row in rows}
    assert len(found) == len(rows), "two misdeeds of one name"
    return found
