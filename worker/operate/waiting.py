"""What waits of one organization, by type and age, as far as a look goes that has an end.

No list has one organization's events alone, and a type stands in the body only. So it takes what is
parked of it, which has a list; of what was accepted first of all, its own; and of a hash as many as
chance has it. Where much waits of others, its oldest event may be among none of these: it says so.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from shared.errors import EnvelopeError
from shared.queue import job as jobs
from shared.queue.partition import Partition
from shared.sellfern import envelope

AGES: Final = (60.0, 3600.0, 86_400.0)
"""Seconds: younger than the first, than the second, than the third, or none of these."""

MOST: Final = 100
"""Events whose bodies are looked at."""

READ: Final = 8 * 1024
"""Bytes of a payload that is looked at; of a larger one the type isn't known."""

_FIRST: Final = 500  # that were accepted first, of all organizations
_AT_ONCE: Final = 1000
_SCANS: Final = 4  # half a millisecond each, with the way there


class OfType(NamedTuple):
    """Some events of a type that wait.

    Attributes:
        type: of them; empty for what is larger than `READ`, or is no event.
        number: how many.
        by_age: the same, for each of `AGES`, and older than these.
        oldest: the job of the one that was accepted first.
        since: when that was, seconds since the epoch.
    """

    type: str
    number: int
    by_age: tuple[int, ...]
    oldest: str
    since: float


class Waiting(NamedTuple):
    """What a look has found.

    Attributes:
        number: how many wait in all.
        looked_at: of how many the body was looked at.
        types: these, the most first.
        has_oldest: whether the one is among these that was accepted first.
    """

    number: int
    looked_at: int
    types: Sequence[OfType]
    has_oldest: bool

    @property
    def sentence(self) -> str:
        """How many were looked at, without an end."""
        if self.looked_at >= self.number:
            return f"all {self.looked_at:,}" if self.looked_at > 1 else "the only one"
        oldest = "the oldest among them" if self.has_oldest else "and an older one may wait"
        return f"{self.looked_at:,} of {self.number:,} were looked at, {oldest}"


async def look(partition: Partition, organization: str, now: float) -> Waiting:
    """Look at what waits of it, in a few calls.

    Args:
        partition: where it lives.
        organization: its id.
        now: seconds since the epoch.
    """
    number, found, oldest = await _some(partition, organization)
    names = partition.names
    async with partition.redis.pipeline(transaction=False) as pipe:
        for job in found:
            pipe.zscore(names.accepted, job)
            pipe.getrange(names.job.encode() + job, 0, READ - 1)
        # A key of another kind under one of our names holds no event.
        answers = await pipe.execute(raise_on_error=False)
    told = zip(found, answers[::2], answers[1::2], strict=True)
    rows = [
        (_type(payload), at / 1000, job.decode(errors="surrogateescape"))
        for job, at, payload in told
        if isinstance(at, float) and isinstance(payload, bytes) and payload
    ]
    seen = {job for _, _, job in rows}
    has_oldest = len(rows) >= number or oldest.decode(errors="surrogateescape") in seen
    return Waiting(max(number, len(rows)), len(rows), _by_type(rows, now), has_oldest)


async def _some(partition: Partition, organization: str) -> tuple[int, list[bytes], bytes]:
    """How many wait, some of them, and the oldest one; empty where that isn't known."""
    redis, names = partition.redis, partition.names
    begin = f"{names.job_prefix}{organization}:".encode()
    async with redis.pipeline(transaction=False) as pipe:
        pipe.hget(names.waiting, organization)
        pipe.zrange(names.accepted, 0, _FIRST - 1)
        pipe.zrange(names.parked(organization), 0, MOST - 1)
        raw, first, parked = await pipe.execute()
    number = int(raw or 0)
    of_it = [job for job in first if job.startswith(begin)]
    found = dict.fromkeys([*of_it, *parked])
    cursor, pattern = 0, begin + b"*"  # neither tag nor id means anything in a pattern
    for _ in range(_SCANS):
        if len(found) >= min(number, MOST):
            break
        cursor, page = await redis.zscan(names.accepted, cursor, match=pattern, count=_AT_ONCE)
        found |= dict.fromkeys(job for job, _ in page)
        if not cursor:
            break
    # Whoever is the first among all that were accepted is so among its own.
    return number, [*found][:MOST], next(iter(of_it), b"")


def _by_type(rows: Iterable[tuple[str, float, str]], now: float) -> list[OfType]:
    of_each: dict[str, list[tuple[float, str]]] = {}
    for name, at, job in rows:
        of_each.setdefault(name, []).append((at, job))
    found = []
    for name, its in of_each.items():
        by_age = [0] * (len(AGES) + 1)
        for at, _ in its:
            by_age[bisect_right(AGES, now - at)] += 1
        since, oldest = min(its)
        found.append(OfType(name, len(its), tuple(by_age), oldest, since))
    return sorted(found, key=lambda each: (-each.number, each.since))


def _type(payload: bytes) -> str:
    if len(payload) >= READ:
        return ""
    try:
        return envelope.decode(jobs.decode(payload).body).type
    except (jobs.PayloadError, EnvelopeError):
        return ""
