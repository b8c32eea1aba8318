"""Why an organization's events may wait, as its fields in Redis say.

``prelude/organizations.lua`` and ``prelude/rates.lua`` tell their forms, and decide; these are for
whoever looks. What somebody's hand has written there, and can't be read, says nothing.
"""

import math
from typing import Final, Literal, NamedTuple, Self

LONGEST_HOLD: Final = 3600.0
"""Seconds: what seems to last longer is by the clock of another Redis, as the scripts say."""

SUSPECT_FROM: Final = 2
"""Claims without an outcome from which on a job may be what ends its workers."""

_SHARE_OF_SLOTS: Final = 0.8
"""As `cap_of` in ``prelude/organizations.lua`` has it."""

_MOST: Final = 1e15
"""Milliseconds or whatever else: no clock of ours comes to that."""


class Profile(NamedTuple):
    """How much of the workers it may have.

    Attributes:
        cap: on its handlers at once; ``None`` for the default one.
        weight: its share under contention.
    """

    cap: int | None = None
    weight: float = 1.0

    @classmethod
    def read(cls, raw: str | None) -> Self:
        """What the file said of it."""
        cap, _, weight = (raw or "").partition(":")
        return cls(int(number(cap)) if cap.isdecimal() else None, number(weight) or 1.0)


def default_cap(slots: int) -> int:
    """Of so many slots in all, how many one organization may have that has no cap of its own."""
    return max(1, int(slots * _SHARE_OF_SLOTS))


class Breaker(NamedTuple):
    """What its handlers' ends have come to.

    Attributes:
        state: ``open`` while its events wait, ``trying`` while one of them is let through.
        until: when an open one lets one through, seconds since the epoch.
        tried: the job that is let through; empty where the next one is to be.
        failures: in a row, that a closed one has counted.
    """

    state: Literal["closed", "open", "trying"] = "closed"
    until: float = 0.0
    tried: str = ""
    failures: int = 0

    @classmethod
    def read(cls, raw: str | None) -> Self:
        """What the scripts have of it."""
        state, _, rest = (raw or "").partition(":")
        if state == "open":
            return cls("open", until=number(rest) / 1000)
        if state == "trying":
            return cls("trying", tried=rest)
        return cls(failures=int(number(rest.partition(":")[0])) if state == "closed" else 0)


class Hold(NamedTuple):
    """What its own system has asked for.

    Attributes:
        until: when its events go on, seconds since the epoch.
        why: for people.
        since: when that was asked for, the same; ``None`` where nobody said.
    """

    until: float = 0.0
    why: str = ""
    since: float | None = None

    @classmethod
    def read(cls, raw: str | None) -> Self:
        """What the scripts have of it."""
        until, _, rest = (raw or "").partition(":")
        why, is_said, since = rest.rpartition("\n")
        if not (is_said and since.isdecimal()):
            return cls(number(until) / 1000, rest)  # an earlier version's, or a mover's
        return cls(number(until) / 1000, why, number(since) / 1000)

    def is_on(self, now: float) -> bool:
        """Whether it lasts still; ``now``: seconds since the epoch."""
        return now < self.until <= now + LONGEST_HOLD


def number(text: str) -> float:
    """0 for what is no number that anything of ours may have written."""
    try:
        found = float(text or 0)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) and 0 <= found < _MOST else 0.0
