"""A marker in each Redis, by which programs notice that it has lost what it had, or is restored."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from secrets import token_hex
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.redis.connection import REDIS_ERRORS, end, server_of, translate
from shared.redis.primary_pool import PrimaryPool

EVERY: Final = 2.0
"""Seconds from one look to the next. What a crash or a fail-over takes of the last ones isn't told:
``DURABILITY`` says what has been promised of it."""

UNWATCHED: Final = 60.0
"""Seconds without a look at Redis by any program after which the next one says so."""

SHOWN_SECONDS: Final = 86_400.0
"""For how long operators are shown it."""

What = Literal["emptied", "restored"]
"""What can happen to a Redis."""


class Incident(msgspec.Struct, frozen=True):
    """What has happened to a Redis, as the program has told it that noticed it first.

    Attributes:
        what: ``emptied``: nothing is left of what was there, or it is another one; ``restored``:
            what is there is of an earlier moment.
        before: the marker's id until then.
        told_at: when it was noticed, seconds since the epoch, by Redis's clock as all these.
        seen_at: when that program had seen it last.
        events: of one that was emptied the unfinished ones that were there then; of one that was
            restored those that had been accepted and aren't known any more, or more than these.
        back_to: the moment that it was restored to; ``None`` of one that was emptied, or that lacks
            a part only.
    """

    what: What
    before: str
    told_at: float
    seen_at: float
    events: int
    back_to: float | None = None

    @property
    def sentence(self) -> str:
        """The same for people."""
        seen = moment(self.seen_at)
        if self.what == "emptied":
            return (
                f"nothing is left of what Redis had at {seen}: {self.events:,} unfinished events, "
                "all marks and all state are gone"
            )
        if self.back_to is None:
            return f"of what Redis had at {seen}, {self.events:,} accepted events are gone"
        return (
            f"Redis is back at its state of {moment(self.back_to)}: {self.events:,} events that "
            f"were accepted from then until {seen} are gone, and what was handled since runs again"
        )


def unwatched(at: bytes | float | None, now: float) -> float | None:
    """When a program looked for the last time, where that is a while ago; seconds since the epoch.

    Nothing is known of what came later. Of a Redis that was restored while no program ran this is
    how much was lost, as far as anybody can tell.

    Args:
        at: what the marker says of it.
        now: by Redis's clock: those of two programs may be minutes apart.
    """
    last = float(at or 0)
    return last if 0 < last < now - UNWATCHED else None


def unwatched_since(last: float) -> str:
    """The same for people."""
    return f"no program has looked at Redis since {moment(last)}: of what came later it has nothing"


def incident(raw: bytes | None) -> Incident | None:
    """What a marker's field says; ``None`` of no field, or of a later version's."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(raw or b"", type=Incident)
    return None


class Seen(NamedTuple):
    """What one look has found.

    Attributes:
        id: the marker's; empty where there is none.
        beats: looks of all programs so far.
        now: Redis's clock, seconds since the epoch.
        at: when the last one was.
        told: what has happened, where that is why the id is a new one.
        accepted: events since the beginning.
        waiting: of these, those that aren't finished.
    """

    id: str
    beats: int
    now: float
    at: float
    told: Incident | None
    accepted: int
    waiting: int


class Sign(NamedTuple):
    """What a look has left, and who has it.

    Attributes:
        id: the marker's.
        server: where; empty where nobody takes a primary's place.
        offset: of the server's stream of changes, which has the sign by then.
        replicas: how far those have come that follow it.
    """

    id: str
    server: str = ""
    offset: int = 0
    replicas: tuple[int, ...] = ()


class Marker:
    """One Redis's, and what a program knows of it: the last look, and one before it.

    Each look counts itself in Redis. A count that is lower than at the look before the last one is
    of an earlier moment; another id, or none, is another Redis, or one that was emptied. A look of
    which a fail-over or a crash has taken the sign is left out, and so is one whose sign no replica
    had by the next one: a primary that is cut off counts on, and what it counts is refused. Who has
    noticed it writes beside the new id what has happened to the old one: so each program that has
    seen the old one tells it, once, and one that has begun since doesn't.

    Args:
        partition: the first one of that Redis.
        log: told what has happened.
    """

    def __init__(self, partition: Partition, log: FilteringBoundLogger) -> None:
        self._partition = partition
        self._log = log
        self._older: Seen | None = None
        self._latest: Seen | None = None
        self._sign = Sign("")
        self._has_followers = False
        self._past = set[str]()

    async def look(self) -> Incident | None:
        """Look once, and leave a sign of it; what has happened, where that is told now.

        Raises: what the client does.
        """
        seen = await self._read()
        happened = self._judge(seen, seen.now)
        if happened is None or happened is seen.told:
            sign = await self._leave_sign(seen)
            # Only now: a full Redis has taken no sign of anybody.
            if self._latest is None and (last := unwatched(seen.at, seen.now)) is not None:
                url, seconds = server_of(self._partition.redis), round(seen.now - last)
                self._log.warning(
                    "redis_unwatched", url=url, seconds=seconds, message=unwatched_since(last)
                )
            self._note(seen._replace(id=sign.id), sign)
        else:
            await self._write_down(happened, seen.id)
        # Only now: where one of these has failed, the next look finds the same.
        if happened is not None:
            self._past.add(happened.before)
            self._tell(happened)
        return happened

    def _note(self, seen: Seen, sign: Sign) -> None:
        """Take a look for the last one, and the one before it where that will last."""
        latest, before = self._latest, self._sign
        if latest is None or latest.id != seen.id:
            self._older = None
        elif latest.beats < seen.beats and latest.accepted <= seen.accepted:
            is_same = before.server == sign.server
            is_followed = is_same and any(each >= before.offset for each in sign.replicas)
            if is_followed or not self._has_followers:
                self._older = latest
        self._latest, self._sign = seen, sign
        self._has_followers = self._has_followers or bool(sign.replicas)

    def _judge(self, seen: Seen, now: float) -> Incident | None:
        """What has happened to what was there at the look before the last one."""
        older, latest = self._older, self._latest
        if older is None or latest is None:
            return None
        is_same, gone = seen.id == latest.id, max(0, latest.accepted - seen.accepted)
        if is_same and seen.beats > older.beats:  # that look has counted itself
            # What scripts have written may be missing alone: a Redis may leave it out at its start.
            is_whole = seen.accepted >= older.accepted
            return None if is_whole else Incident("restored", latest.id, now, latest.at, gone)
        if is_same or seen.id in self._past:
            return Incident("restored", latest.id, now, latest.at, gone, back_to=seen.at)
        if seen.told is not None and seen.told.before == latest.id:
            return seen.told
        # Two have noticed it at once, and one was slow to write it down; or nothing was there yet.
        if (seen.told is not None and seen.told.before in self._past) or not latest.accepted:
            return None
        return Incident("emptied", latest.id, now, latest.at, latest.waiting)

    def _tell(self, happened: Incident) -> None:
        metrics.REDIS_LOST.labels(happened.what).inc()
        self._log.error(
            f"redis_{happened.what}",
            url=server_of(self._partition.redis),
            message=happened.sentence,
            events=happened.events,
        )

    async def _read(self) -> Seen:
        names = self._partition.names
        async with self._partition.redis.pipeline(transaction=False) as pipe:
            pipe.hmget(names.marker, ["id", "beats", "at", "incident"])
            pipe.hget(names.counters, "accepted")
            pipe.zcard(names.accepted)
            pipe.time()
            (name, beats, at, raw), accepted, waiting, now = await pipe.execute()
        return Seen(
            (name or b"").decode(errors="replace"),
            int(beats or 0),
            now[0] + now[1] / 1e6,
            float(at or 0),
            incident(raw),
            int(accepted or 0),
            waiting,
        )

    async def _leave_sign(self, seen: Seen) -> Sign:
        """Count this look; where there is no marker, one is made."""
        marker, redis = self._partition.names.marker, self._partition.redis
        fails_over = isinstance(redis.connection_pool, PrimaryPool)
        async with redis.pipeline(transaction=False) as pipe:
            if not seen.id:
                pipe.hsetnx(marker, "id", token_hex(8))
            pipe.hincrby(marker, "beats", 1)
            pipe.hset(marker, "at", str(seen.now))
            pipe.hmget(marker, ["id"])
            if fails_over:
                pipe.execute_command("ROLE")
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        role = answers.pop() if fails_over else None
        for each in answers:
            if isinstance(each, Exception):
                raise each
        ((found,),) = answers[-1:]
        name = str((found or b"").decode(errors="replace"))
        match role:
            case [b"master", offset, replicas]:
                come = tuple(int(at) for *_, at in replicas)
                return Sign(name, server_of(redis), int(offset), come)
        return Sign(name)  # not everybody may ask, and not every service answers

    async def _write_down(self, happened: Incident, there: str) -> None:
        """Say beside the new id what has happened; in one command, so that who sees it sees why."""
        # Another Redis may have programs of its own, which know its id.
        name = there if happened.what == "emptied" and there else token_hex(8)
        fields = ("id", name, "incident", msgspec.json.encode(happened))
        await self._partition.redis.execute_command("HSET", self._partition.names.marker, *fields)
        self._older = self._latest = None


@asynccontextmanager
async def watching(
    partitions: Partitions,
    log: FilteringBoundLogger,
    may_look: Callable[[Partition], bool] = lambda _: True,
) -> AsyncIterator[None]:
    """Look at the marker of each Redis again and again while the block runs.

    Args:
        partitions: all.
        log: told what has happened.
        may_look: whether the Redis of a partition is known to be the right one.
    """

    async def watch(first: Partition) -> None:
        marker, is_refused = Marker(first, log), False
        while True:
            try:
                if may_look(first):
                    await marker.look()
            except REDIS_ERRORS as exc:  # others tell of an outage
                if (cause := translate(exc)).code == "redis_permission" and not is_refused:
                    is_refused = True
                    log.warning("marker_refused", code=cause.code, message=cause.message)
            await asyncio.sleep(EVERY)

    for what in get_args(What):  # so that the first one is an increase
        metrics.REDIS_LOST.labels(what)
    tasks = [asyncio.create_task(watch(there[0])) for there in partitions.by_primary()]
    try:
        yield
    finally:
        await end(tasks)


def moment(at: float) -> str:
    """A moment for people, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
