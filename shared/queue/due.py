"""What is due, and another worker could take now: how much, since when, and whose.

An organization that is paused or held, whose breaker is open, or that is at a cap or over a rate of
its own waits for something else than a worker; so does an event whose next attempt isn't due, or
whose turn isn't. How long these wait says nothing about workers.
"""

import math
from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from shared.queue import hashes, keys
from shared.queue.job import organization_of
from shared.queue.partition import Partition
from shared.queue.rules import Breaker, Hold, Profile, default_cap, number

LOOKED_AT: Final = 500
"""Events in line that are looked at, and as many that have become due. The next one of every
organization is among the first in line, where no more than so many have any there."""

_ASKED_AT_ONCE: Final = 64
_ENDS: Final = 64


class Longest(NamedTuple):
    """What has been due longest in a partition.

    Attributes:
        seconds: for how long; 0 where nothing is due.
        organization: whose it is; ``?`` of none, empty where nothing is due.
    """

    seconds: float = 0.0
    organization: str = ""


class Due(msgspec.Struct, frozen=True):
    """What is due, and could be claimed.

    Attributes:
        events: how many.
        longest: which has been longest, by the number of the partition: a single queue has none.
    """

    events: int
    longest: Mapping[str, Longest]


class _Waiting(NamedTuple):
    """What waits for a worker.

    Attributes:
        organization: whose it is.
        name: of the job, or of the set where an organization's are parked.
        since: when it could be claimed for the first time, epoch seconds.
        events: how many.
        has_slot: whether its organization's slot is its own, as one's is whose lease is over.
    """

    organization: str
    name: str
    since: float
    events: int = 1
    has_slot: bool = False


class _Rules(NamedTuple):
    """What makes an organization's events wait, as Redis has it.

    Attributes:
        is_paused: by an operator.
        cap: on its handlers at once; ``None`` for the default one.
        breaker: what its handlers' ends have come to.
        hold: what its own system has asked for.
        running: how many of its events run.
        next_start: when its rate lets the next one start, epoch seconds.
    """

    is_paused: bool
    cap: int | None
    breaker: Breaker
    hold: Hold
    running: float
    next_start: float

    def keep(self, one: _Waiting, now: float) -> bool:
        """Whether one of its events waits for something else than a worker, at a moment (s)."""
        # As `must_wait` has it. An open breaker whose time is over lets the next claim try one.
        breaker = self.breaker
        return bool(
            self.is_paused
            or (breaker.state == "open" and breaker.until > now)
            or (breaker.state == "trying" and breaker.tried not in {"", one.name})
            or self.hold.is_on(now)
            or now < self.next_start
            or (self.cap is not None and not one.has_slot and self.running >= self.cap)
        )


class _First(NamedTuple):
    """The first ones of a partition.

    Attributes:
        line: jobs in line.
        in_line: how many are.
        back: jobs whose next attempt is due, or whose lease is over, with since when (ms).
        are_back: how many are.
        ended: organizations whose wait is over, with since when (seconds).
    """

    line: Sequence[bytes]
    in_line: int
    back: Sequence[tuple[bytes, float]]
    are_back: int
    ended: Mapping[str, float]


class Look:
    """Looks at a partition again and again.

    Redis says when an event was accepted, and not since when one is in line that has come back:
    from a pause, a dead letter, or its turn. Here is remembered that the last look didn't see it.

    Args:
        partition: at which.
    """

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._since: dict[str, float] = {}
        self._whole_at = 0.0  # 0: it has not seen all that was there

    async def read(self, now: float, *, slots: int, parked: int) -> Due:
        """Look.

        Args:
            now: Redis's time, seconds since the epoch.
            slots: events that all live workers can handle at once.
            parked: how many events are parked; where none is, nobody looks for them.

        Raises: what redis-py raises.
        """
        first = await self._first(now)
        found = [*await self._in_line(first.line), *self._back(first.back)]
        if parked:
            found += await self._parked(await self._large(slots), first.ended)
        waiting = await self._free(found, now)
        unseen = first.in_line - len(first.line) + first.are_back - len(first.back)
        self._since = {each.name: each.since for each in waiting}
        # Of what is new to the next look, one that hasn't seen all can't say that it wasn't there.
        self._whole_at = 0.0 if unseen else now
        first_of_all = min(waiting, key=lambda each: each.since, default=None)
        longest = Longest()
        if first_of_all is not None:
            since, owner = first_of_all.since, first_of_all.organization
            longest = Longest(max(0.0, now - since), owner or "?")
        number = str(self._partition.number) if self._partition.names.tag else ""
        return Due(unseen + sum(each.events for each in waiting), {number: longest})

    async def _free(self, found: list[_Waiting], now: float) -> list[_Waiting]:
        """Those of them that nothing keeps, at a moment (s).

        Of a thousand organizations only those are asked about whose events have waited longest,
        until one is known to be free: the younger ones count as if nothing kept them.
        """
        # What is parked may be very much, and is never taken for granted.
        found.sort(key=lambda each: (each.events == 1, each.since))
        of_each: dict[str, list[_Waiting]] = {}
        for each in found:
            of_each.setdefault(each.organization, []).append(each)
        waiting: list[_Waiting] = []
        owners = iter(of_each)
        while some := [*islice(owners, _ASKED_AT_ONCE)]:
            rules = await self._rules([each for each in some if each])
            for owner in some:
                rule = rules.get(owner)
                waiting += [one for one in of_each[owner] if not (rule and rule.keep(one, now))]
            if any(each.events == 1 for each in waiting):
                break
        return waiting + [each for owner in owners for each in of_each[owner]]

    async def _first(self, now: float) -> _First:
        names, until = self._partition.names, int(now * 1000)
        line, back = (0, keys.DEFERRED_FROM - 1), (keys.DEFERRED_FROM, until)
        async with self._partition.redis.pipeline(transaction=False) as pipe:
            pipe.zrange(names.queue, *line, byscore=True, offset=0, num=LOOKED_AT)
            pipe.zcount(names.queue, *line)
            pipe.zrange(names.queue, *back, byscore=True, offset=0, num=LOOKED_AT, withscores=True)
            pipe.zcount(names.queue, *back)
            for name in (names.breakers, names.due):
                pipe.zrange(name, 0, until, byscore=True, offset=0, num=_ENDS, withscores=True)
            first, in_line, backs, are_back, *ends = await pipe.execute()
        ended = {_text(name).rpartition(":")[2]: at / 1000 for each in ends for name, at in each}
        # One may have come, or gone, between two of the answers.
        return _First(first, max(in_line, len(first)), backs, max(are_back, len(backs)), ended)

    async def _in_line(self, jobs: Sequence[bytes]) -> Iterator[_Waiting]:
        # What nobody has accepted goes with its claim: it is no event that waits.
        accepted = zip(jobs, await self._accepted(jobs), strict=True)
        return (
            _Waiting(self._owner(job), _text(job), self._new_since(_text(job), at))
            for job, at in accepted
            if at is not None
        )

    def _back(self, jobs: Sequence[tuple[bytes, float]]) -> Iterator[_Waiting]:
        # In order, who retries keeps its slot; so does who had a lease until the next claim looks.
        return (
            _Waiting(self._owner(job), _text(job), at / 1000, has_slot=True) for job, at in jobs
        )

    async def _large(self, slots: int) -> list[str]:
        """Who has as many slots as one may have: with more workers it would have more."""
        most = default_cap(slots) if slots else math.inf
        pages = hashes.pages(self._partition.redis, self._partition.names.running)
        return [
            _text(name)
            async for page in pages
            for name, runs in page.items()
            if number(_text(runs)) >= most
        ]

    async def _parked(self, large: Collection[str], ended: Mapping[str, float]) -> list[_Waiting]:
        """What is parked and needs a worker: all of a large one's, one event where a wait is over.

        Where workers live, the next claim ends such a wait, and long before the next look.
        """
        names, several = self._partition.names, sorted({*large, *ended})
        if not several:
            return []
        async with self._partition.redis.pipeline(transaction=False) as pipe:
            for each in several:
                pipe.zrange(names.parked(each), 0, 0)
                pipe.zcard(names.parked(each))
            answers = await pipe.execute()
        there = [
            (each, first[0], number)
            for each, first, number in zip(several, answers[::2], answers[1::2], strict=True)
            if first
        ]
        accepted = await self._accepted([job for _, job, _ in there])
        return [
            _Waiting(each, names.parked(each), ended[each])
            if each in ended
            else _Waiting(each, names.parked(each), self._new_since(names.parked(each), at), number)
            for (each, _, number), at in zip(there, accepted, strict=True)
        ]

    async def _accepted(self, jobs: Sequence[bytes]) -> list[float | None]:
        """When jobs were accepted, milliseconds."""
        if not jobs:
            return []
        accepted = self._partition.names.accepted
        said: list[float | None] = await self._partition.redis.execute_command(
            "ZMSCORE", accepted, *jobs
        )
        return said

    def _new_since(self, name: str, accepted: float | None) -> float:
        """Since when something can be claimed that was accepted then (ms)."""
        return self._since.get(name) or max((accepted or 0.0) / 1000, self._whole_at)

    async def _rules(self, organizations: list[str]) -> dict[str, _Rules]:
        if not organizations:
            return {}
        names = self._partition.names
        async with self._partition.redis.pipeline(transaction=False) as pipe:
            for prefix in ("", keys.PAUSE, keys.BREAKER, keys.HOLD):
                pipe.hmget(names.organizations, [prefix + each for each in organizations])
            pipe.hmget(names.running, organizations)
            pipe.hmget(names.rates, [f"next:{each}" for each in organizations])
            answers = await pipe.execute()
        told = zip(organizations, *answers, strict=True)
        return {
            each: _Rules(
                pause is not None,
                Profile.read(_text(profile)).cap,
                Breaker.read(_text(breaker)),
                Hold.read(_text(hold)),
                number(_text(running)),
                number(_text(next_start)) / 1000,
            )
            for each, profile, pause, breaker, hold, running, next_start in told
        }

    def _owner(self, job: bytes) -> str:
        return organization_of(_text(job), self._partition.names.job_prefix)


def together(several: Sequence[Due]) -> Due:
    """What is due in some partitions."""
    longest = ChainMap(*(dict(each.longest) for each in several))
    return Due(sum(each.events for each in several), dict(longest))


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace")
