"""What operators do with one organization: stop its events, see why they wait, read its state."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple, Self

import msgspec

from shared.display import clock, counted, encodable, roughly
from shared.errors import StateError, Unavailable
from shared.queue import keys, scripts
from shared.queue.partition import Partition
from shared.queue.rules import Breaker, Hold
from worker.value import Value

_PAGE = 500
_QUIET: Final = 900.0
"""Seconds without a failure after which a trouble is over, as the scripts have it."""

MOVES: Final = "it moves to another partition"
"""Why an organization is held, or paused, by whoever moves it: as ``halt.lua`` has it."""

_LONGEST_NAME: Final = 60  # of whoever pauses something
LONGEST_WHY: Final = 200
"""Characters of the reason for a pause."""
_NOBODY: Final = "nobody said why"  # an empty one would be shown as if there were no pause
_GLOB = str.maketrans({character: f"\\{character}" for character in "\\*?[]^-"})


_PAUSE = scripts.load("pause")
_RESUME = scripts.load("resume")


class Paused(NamedTuple):
    """Why an organization is paused, as far as that is known.

    Attributes:
        why: for people; ``None`` while it isn't.
        by: whom; ``None`` where nobody said.
        since: when, seconds since the epoch; the same.
    """

    why: str | None = None
    by: str | None = None
    since: float | None = None

    def sentence(self, now: float) -> str:
        """Why, by whom and since when, as far as that is known; ``now``: epoch seconds."""
        why = self.why or ""
        by = f"by {self.by}" if self.by and f"by {self.by}" not in why else ""
        since = f"{roughly(max(0.0, now - self.since))} ago" if self.since else ""
        return ", ".join(filter(None, (why, by, since)))

    @classmethod
    def read(cls, raw: str | None) -> Self:
        """What ``pause.lua`` has of it."""
        why, _, rest = (raw or "").rpartition("\n")
        at, colon, by = rest.partition(":")
        if raw is None or not (colon and at.isdecimal()):
            return cls(raw)  # an earlier version's, or a mover's
        return cls(why, by, int(at) / 1000)


async def pause(partition: Partition, organization: str, why: str, who: str = "") -> bool:
    """Let its events wait; whether it wasn't paused before.

    Args:
        partition: where they are.
        organization: whose.
        why: for people; as much of it as is kept.
        who: has it paused, where somebody says so.

    Raises:
        Unavailable: it is on its way to another partition (``organization_moving``).
    """
    why = encodable(why.strip()[:LONGEST_WHY]) or (f"by {who}" if who else _NOBODY)
    return _is_changed(await partition.run(_PAUSE, organization, why, who[:_LONGEST_NAME]))


async def pause_of(partition: Partition, organization: str) -> Paused:
    """Why it is paused, if it is."""
    command = ("HGET", partition.names.organizations, keys.PAUSE + organization)
    return Paused.read(_text(await partition.redis.execute_command(*command)))


async def resume(partition: Partition, organization: str, starts: float | None = None) -> bool:
    """Let its events go on, in the order of their acceptance; whether it was paused.

    Args:
        partition: where they are.
        organization: whose.
        starts: how many of them may start a second until none waits any more; without it a few, and
            twice as many each second.

    Raises:
        Unavailable: it is on its way to another partition (``organization_moving``).
    """
    starts_a_second = "" if starts is None else starts
    return _is_changed(await partition.run(_RESUME, organization, starts_a_second))


def _is_changed(answer: int | bytes) -> bool:
    if answer == b"moved":
        raise Unavailable("organization_moving", "it is on its way to another partition")
    return bool(answer)


async def stored_values(
    partition: Partition, organization: str, prefix: str = ""
) -> AsyncIterator[dict[str, Any]]:
    """Each value whose key starts with the prefix, in the order of the keys.

    One that is no JSON, which nothing of ours wrote, has an ``error`` rather than a value.
    Finding them walks over all keys in Redis, a page at a time.
    """
    start = partition.names.state(organization, "")
    pattern = partition.names.state(organization, prefix).translate(_GLOB) + "*"
    raw = pattern.encode(errors="surrogateescape")  # whatever bytes were typed
    found = {name async for name in partition.redis.scan_iter(match=raw, count=1000)}
    # A scan may give a name twice, and gives them in no order.
    names = sorted(found)
    for first in range(0, len(names), _PAGE):
        page = names[first : first + _PAGE]
        for name, raw in zip(page, await partition.redis.mget(page), strict=True):
            value = Value.parse(raw)
            if value.json:
                yield _shown(name.decode(errors="replace").removeprefix(start), value)


def _shown(key: str, value: Value) -> dict[str, Any]:
    try:
        return {"key": key, "value": value.decoded(key), "version": value.version}
    except StateError as exc:
        return {"key": key, "error": str(exc), "version": value.version}


# How its handlers fail


class Trouble(msgspec.Struct, frozen=True):
    """What is known of its attempts that came to nothing.

    Attributes:
        since: when the first one failed, with no quarter of an hour between two (epoch seconds).
        last: when the last one did.
        failed: how many did.
        kind: of the last one, as ``prelude/attempts.lua`` has it; ``w``: no worker has a handler.
        handler: its function; empty where none was at work.
        error: the beginning of what it said.
        next_at: when the first of these events is due again; ``None`` where none is.
        latest_at: when the last of them is.
        worked: when a handler has worked since the last failure; ``None`` where none has.
    """

    since: float
    last: float
    failed: int
    kind: str
    handler: str
    error: str
    next_at: float | None = None
    latest_at: float | None = None
    worked: float | None = None

    @classmethod
    def read(cls, raw: str) -> Self | None:
        """What ``prelude/organizations.lua`` has of it; ``None`` where it has nothing."""
        numbers, _, error = raw.partition("\n")
        try:
            # The handler last: it is the one that an author has named.
            worked, since, last, soon, latest, failed, kind, handler = numbers.split(":")
            return cls(
                *(int(since) / 1000, int(last) / 1000, int(failed)),
                *(kind, handler, error.rstrip("\ufffd")),  # what was left of a character
                *(int(each) / 1000 or None for each in (soon, latest, worked)),
            )
        except ValueError:
            return None  # somebody's hand wrote it

    def is_told(self, now: float) -> bool:
        """Whether it is news still: as long as any of its events waits, and a while after."""
        return now <= max(self.last, self.latest_at or 0.0) + _QUIET

    @property
    def word(self) -> str:
        """What it is called."""
        if self.kind == "w":
            return "no handler"
        if self.worked:
            return "some fail"
        return "put off" if self.kind == "a" else "failing"

    def next_try(self, now: float) -> str:
        """When it is, as far as that is known; ``now``: seconds since the epoch."""
        if self.next_at and self.next_at > now:
            return f"next try in {roughly(self.next_at - now)}"
        if self.latest_at and self.latest_at > now:
            return f"the last of them is due in {roughly(self.latest_at - now)}"
        return ""

    def sentence(self, now: float, *, is_held: bool = False) -> str:
        """It, for people, without its `word`.

        Args:
            now: seconds since the epoch.
            is_held: whether something else has all of these events wait, whenever they are due.
        """
        since, last = (roughly(max(0.0, now - each)) for each in (self.since, self.last))
        many = counted(self.failed, "attempt")
        error = self.error or "nothing was said"
        # To have asked a worker that can't handle one is no attempt.
        looks = self.kind == "w"
        told = f"since {since} ago" if looks else f"{many} since {since} ago, the last {last} ago"
        then = "" if is_held else self.next_try(now)
        return f"{told}: {error}{'; ' * bool(then)}{then}"


# Why its events wait


def fields_of(organization: str) -> list[str]:
    """Of the hash of organizations, those that say why its events may wait."""
    return [prefix + organization for prefix in (keys.PAUSE, keys.HOLD, keys.BREAKER)]


def why_held(told: Sequence[bytes | None], now: float) -> str:
    """Why all of its events wait, for people; empty where they don't.

    Args:
        told: what these fields say.
        now: seconds since the epoch.
    """
    pause, hold, breaker = map(_text, told)
    return _paused(pause, now) or _held(Hold.read(hold), now) or _broken(Breaker.read(breaker), now)


def _paused(raw: str | None, now: float) -> str:
    paused = Paused.read(raw)
    return "" if paused.why is None else f"its organization is paused ({paused.sentence(now)})"


def _held(hold: Hold, now: float) -> str:
    if not hold.is_on(now):
        return ""
    left = roughly(hold.until - now)
    if hold.why == MOVES:
        return f"its organization moves to another partition, {left} still at the most"
    since = f" since {clock(hold.since)}" if hold.since else ""
    return f"its organization's own system asks for fewer calls{since}, {left} still ({hold.why})"


def _broken(breaker: Breaker, now: float) -> str:
    if breaker.state == "closed":
        return ""
    when = f" in {roughly(max(0.0, breaker.until - now))}" if breaker.state == "open" else ""
    return f"its organization's handlers kept failing: one event is tried{when}"


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode(errors="replace")
