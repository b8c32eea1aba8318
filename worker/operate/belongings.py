"""What an organization has in a partition, as whoever moves it reads it, and what changes of it."""

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, Final, NamedTuple, Self, TypeAlias, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection

from shared.queue import hashes, keys, scripts
from shared.queue.job import organization_of
from shared.queue.partition import Partition
from shared.redis.connection import REDIS_ERRORS
from shared.redis.wire import Argument
from worker.grouping import CAUSE_FIELDS, Cause, cause_in

_PACK = scripts.load("pack")

_JOBS_AT_ONCE: Final = 128
"""Of one call: Redis serves nobody else meanwhile."""

_BYTES_AT_ONCE: Final = 1 << 20
_SCANNED_AT_ONCE: Final = 2000
"""Names of one step of a scan, which takes Redis a millisecond or two."""

_LOOKED_AT_ONCE: Final = 1000
_LETTERS_AT_ONCE: Final = 16
_RECORDS_AT_ONCE: Final = 250
_KEPT_TOKEN: Final = 40
"""Digits of the token of a claim that keeps its slot for its retry, and that nobody holds."""

Item = TypeVar("Item")

Record: TypeAlias = list[Argument]
"""What ``arrive.lua`` takes of one job, letter or value."""


class Value(NamedTuple):
    """A mark, a count of revivals, or a value of its state.

    Attributes:
        kind: what its name begins with, as ``arrive.lua`` has it.
        rest: of its name, behind the organization.
        raw: what it is.
        kept: for how many more milliseconds; -1: for ever.
    """

    kind: str
    rest: bytes
    raw: bytes
    kept: int

    @property
    def record(self) -> Record:
        """What it is where it goes to."""
        return _record("value", *self)


@dataclass(frozen=True, slots=True)
class Belongings:
    """What an organization has in a partition; whatever reads it raises what the client does.

    Attributes:
        partition: which.
        organization: whose.
    """

    partition: Partition
    organization: str

    async def ask(self, *command: Argument) -> Any:
        """Send one command to where it is."""
        return await self.partition.redis.execute_command(*command)

    async def field(self, name: str, prefix: str = "") -> str:
        """What a hash says of it; empty where it says nothing."""
        raw = await self.ask("HGET", name, prefix + self.organization)
        return raw.decode(errors="replace") if raw else ""

    async def way(self) -> str:
        """What is known here of its way from or to here; empty where it is on none."""
        return await self.field(self.partition.names.moving)

    # Its jobs

    def its_own(self, jobs: Iterable[bytes]) -> list[bytes]:
        """Those of these that are its."""
        prefix = self.partition.names.job_prefix
        texts = ((job, job.decode(errors="surrogateescape")) for job in jobs)
        return [job for job, text in texts if organization_of(text, prefix) == self.organization]

    async def jobs(self) -> AsyncIterator[list[bytes]]:
        """Its unfinished ones, from a look at those of all; some may come twice."""
        redis, accepted = self.partition.redis, self.partition.names.accepted
        async for page in hashes.members(redis, accepted, f"*{self.organization}:*"):
            yield self.its_own(job for job, _ in page)

    async def jobs_since(self, order: float) -> AsyncIterator[list[bytes]]:
        """Those that were accepted behind that one of its orders."""
        accepted, page, start = self.partition.names.accepted, [b""], 0
        while page:
            span = (f"({order:.17g}", "+inf", "BYSCORE", "LIMIT", start, _LOOKED_AT_ONCE)
            page = await self.ask("ZRANGE", accepted, *span)
            yield self.its_own(page)
            start += _LOOKED_AT_ONCE

    async def kept(self) -> list[bytes]:
        """Those that keep a slot for their retry: they stand among what is due."""
        names, found, page, start = self.partition.names, list[bytes](), [b""], 0
        while page:
            span = (keys.DEFERRED_FROM, "+inf", "BYSCORE", "LIMIT", start, _LOOKED_AT_ONCE)
            page = await self.ask("ZRANGE", names.queue, *span)
            if its_own := self.its_own(page):
                claims = await self.ask("HMGET", names.claims, *its_own)
                told = zip(its_own, claims, strict=True)
                found += [job for job, raw in told if raw and raw.find(b":") == _KEPT_TOKEN]
            start += _LOOKED_AT_ONCE
        # Where others come and go between two pages, one may stand on both.
        return [*dict.fromkeys(found)]

    async def packed(self, jobs: Sequence[bytes]) -> AsyncIterator[list[Record]]:
        """What is known of them."""
        rest = list(jobs)
        while rest:
            found = await self.partition.run(_PACK, _BYTES_AT_ONCE, *rest[:_JOBS_AT_ONCE])
            rest = rest[len(found) :]
            yield [_record("job", *each[:-1], *each[-1]) for each in found if each]

    # Its dead letters

    async def letters(self) -> AsyncIterator[list[Record]]:
        """What is in each, and when it died; while it is on its way, none comes or goes."""
        names, start = self.partition.names, 0
        record = names.dead_letter_prefix.encode()
        while True:
            last = start + _LETTERS_AT_ONCE - 1
            found = await self.ask(
                *("ZRANGE", names.dead(self.organization), start, last, "WITHSCORES")
            )
            async with self.partition.redis.pipeline(transaction=False) as pipe:
                for job in found[::2]:
                    pipe.execute_command("HGETALL", record + job)
                records = await pipe.execute(raise_on_error=False)
            told = zip(found[::2], found[1::2], records, strict=True)
            yield [
                _record("letter", self.in_mark(job), died_at, *_cause(raw), *_flat(raw))
                for job, died_at, raw in told
                if raw and isinstance(raw, dict)  # else somebody's hand has left it
            ]
            start += _LETTERS_AT_ONCE
            if len(records) < _LETTERS_AT_ONCE:
                return

    def in_mark(self, job: bytes) -> bytes:
        """A job as marks name it, wherever it is."""
        text = self.partition.names.in_mark(job.decode(errors="surrogateescape"))
        return text.encode(errors="surrogateescape")

    # Its marks, its counts of revivals, its state

    async def value_names(self) -> AsyncIterator[list[bytes]]:
        """Their names, from a look at all names that there are; some may come twice."""
        starts = tuple(self._starts().values())
        everything = self.partition.names.event_prefix.removesuffix("event:")
        found, cursor = list[bytes](), None
        while cursor != 0:
            pattern = f"{everything}*:{self.organization}:*"
            cursor, page = await self.partition.redis.scan(
                cursor or 0, match=pattern, count=_SCANNED_AT_ONCE
            )
            found += [name for name in page if name.startswith(starts)]
            if len(found) >= _LOOKED_AT_ONCE or cursor == 0:
                for some in chunks(found, _LOOKED_AT_ONCE):
                    yield some
                found = []

    async def watched(self) -> "Changes | None":
        """Whatever changes of these from now on; ``None`` where Redis doesn't tell this user."""
        starts, queue = [*self._starts().values()], self.partition.names.queue
        changes = await Changes.begin(self.partition.redis, starts, asked=queue)
        if changes.is_told:
            return changes
        await changes.close()
        return None

    def done(self, raw: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """The marks of events that are done, which change no more but for what they tell."""
        start = self._starts()["event"]
        is_done = ((name, it) for name, it in raw.items() if it.startswith(b"done:"))
        return {name: it for name, it in is_done if name.startswith(start)}

    def named(self, name: bytes) -> tuple[str, bytes]:
        """Of what kind such a name is, and what is behind the organization in it."""
        kind, start = next(each for each in self._starts().items() if name.startswith(each[1]))
        return kind, name[len(start) :]

    def name_of(self, kind: str, rest: bytes) -> bytes:
        """The name of such a kind here."""
        return self._starts()[kind] + rest

    async def raw(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """What is under each; one of another type is nobody's value."""
        found = await self.ask("MGET", *names) if names else ()
        return {name: raw for name, raw in zip(names, found, strict=True) if raw}

    async def values(self, raw: Mapping[bytes, bytes]) -> list[Value]:
        """The same, each with for how long it is kept."""
        async with self.partition.redis.pipeline(transaction=False) as pipe:
            for name in raw:
                pipe.execute_command("PTTL", name)
            kept = await pipe.execute() if raw else ()
        told = zip(raw.items(), kept, strict=True)
        # One that has just expired is none any more.
        return [Value(*self.named(name), it, ms) for (name, it), ms in told if ms >= -1]

    def _starts(self) -> dict[str, bytes]:
        """What their names begin with, by kind."""
        names, its = self.partition.names, f"{self.organization}:"
        kinds = [each.name for each in fields(names) if each.metadata.get("of") == "org:*"]
        return {
            each.removesuffix("_prefix"): (getattr(names, each) + its).encode() for each in kinds
        }

    # What is said of it as a whole

    async def said(self) -> list[Argument]:
        """What ``join.lua`` takes; empty where nothing is."""
        names, organization = self.partition.names, self.organization
        said = [keys.PAUSE, "", keys.BREAKER, keys.HOLD, keys.TROUBLE]
        async with self.partition.redis.pipeline(transaction=False) as pipe:
            pipe.hmget(names.organizations, [prefix + organization for prefix in said])
            pipe.hmget(names.rates, [f"next:{organization}", f"ramp:{organization}", organization])
            pipe.hmget(names.bytes, [f"{organization}:marks", f"{organization}:state"])
            pipe.execute_command("ZSCORE", names.breakers, organization)
            (pause, profile, breaker, hold, trouble), rates, held, due = await pipe.execute()
        # Whether somebody else has paused it.
        if not re.match(r"out:\d+:1", await self.field(names.moving)):
            pause = None
        state, colon, tried = (breaker or b"").partition(b":")
        if state == b"trying" and tried:
            breaker = state + colon + self.in_mark(tried)
        *starts, rate = rates
        told = [pause, profile, breaker, due, hold, *starts, *held, rate, trouble]
        return ["" if each is None else each for each in told]


class Changes:
    """The names that change, as Redis tells those that keep a copy of what is under them.

    One connection asks for that, and another one is told. Neither is ever opened anew.

    Args:
        pool: that has both.
        teller: the one that asks for it.
        listener: the one that is told.
        asked: a name of the same slot: in a cluster it may have gone to a node that tells nothing.

    Attributes:
        is_told: whether Redis tells, and has told all.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        teller: AbstractConnection,
        listener: AbstractConnection,
        asked: str,
    ) -> None:
        self._pool, self._teller, self._listener, self._asked = pool, teller, listener, asked
        self.is_told = True

    @classmethod
    async def begin(cls, redis: Redis, starts: Sequence[bytes], *, asked: str) -> Self:
        """Be told of names that begin so."""
        pool = redis.connection_pool
        changes = cls(pool, await pool.get_connection(), await pool.get_connection(), asked)
        prefixes = [each for start in starts for each in ("PREFIX", start)]
        with changes._noting():  # its own
            number = await _asked(changes._listener, "CLIENT", "ID")
            await _asked(changes._listener, "SUBSCRIBE", "__redis__:invalidate")
            tracking = ("CLIENT", "TRACKING", "ON", "REDIRECT", number, "BCAST")
            await _asked(changes._teller, *tracking, *prefixes)
        return changes

    async def names(self) -> set[bytes]:
        """Those that have changed since the last time: all of them, if `is_told` is true still."""
        found = set[bytes]()
        # One that has ended would be opened anew, and know nothing of what it was asked for.
        self.is_told &= self._teller.is_connected and self._listener.is_connected
        if not self.is_told:
            return found
        with self._noting():
            await _asked(self._teller, "EXISTS", self._asked)
            # What was changed before this is told before the answer to it.
            await self._listener.send_command("PING")
            while (told := await self._listener.read_response())[0] != b"pong":
                found.update(told[2] or ())
        return found

    async def close(self) -> None:
        """Be told no more."""
        self.is_told = False
        for each in (self._teller, self._listener):
            await each.disconnect()
            await self._pool.release(each)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except REDIS_ERRORS:
            self.is_told = False


class Copies:
    """The values of an organization of which some are copied while it is where it was.

    Args:
        here: where that is.
        there: where they are copied to.

    Attributes:
        number: how many have been copied.
    """

    def __init__(self, here: Belongings, there: Belongings) -> None:
        self._here, self._there = here, there
        # The first one of millions takes a gigabyte: only where Redis doesn't tell what changes.
        self._copied, self._left, self._changed = set[bytes](), set[bytes](), set[bytes]()
        self._changes: Changes | None = None
        self._has_looked = False
        self.number = 0

    async def watch(self) -> None:
        """Be told of what changes from now on, if Redis tells this user."""
        self._changes = await self._here.watched()

    async def close(self) -> None:
        """Be told no more."""
        if self._changes is not None:
            await self._changes.close()

    async def note_changes(self) -> bool:
        """Take note of what has changed; whether that is known of all."""
        if self._changes is None:
            return False
        self._changed |= await self._changes.names()
        return self._changes.is_told

    async def add(self) -> AsyncIterator[int]:
        """Copy marks of done events, of those that have not been seen as they are now, or may not.

        How many names were looked at, some at a time.
        """
        if await self.note_changes() and self._has_looked:
            changed, self._changed = self._changed, set()
            for names in chunks(changed, _LOOKED_AT_ONCE):
                yield await self._add(names, again=True)
            return
        async for found in self._here.value_names():
            yield await self._add([each for each in found if each not in self._copied])

    async def _add(self, names: Sequence[bytes], *, again: bool = False) -> int:
        """Copy those that are done: what has changed again in place of an earlier copy."""
        done = self._here.done(await self._here.raw(names))
        async with self._there.partition.redis.pipeline(transaction=False) as pipe:
            for each in await self._here.values(done):
                name = self._there.name_of(each.kind, each.rest)
                kept = max(1, each.kept) if each.kept >= 0 else None
                pipe.set(name, each.raw, nx=not again, get=again, px=kept)
            answers = await pipe.execute() if done else []
        self.number += sum((answer is None) is again for answer in answers)
        self._has_looked = True
        if self._changes is None or not self._changes.is_told:
            self._copied.difference_update(names)
            self._copied.update(done)
        self._left.update(names)
        self._left.difference_update(done)
        return len(names)

    async def left(self) -> AsyncIterator[list[Value]]:
        """Those that may not be there as they are, some at a time."""
        if await self.note_changes():
            for names in chunks(self._left | self._changed, _LOOKED_AT_ONCE):
                yield await self._not_there(names)
            return
        # Of a move that another mover has begun, nobody knows.
        async for found in self._here.value_names():
            yield await self._not_there(
                [each for each in found if each not in self._copied or each in self._changed]
            )

    async def _not_there(self, names: Sequence[bytes]) -> list[Value]:
        raw = await self._here.raw(names)
        done = self._here.done(raw)
        places = {self._there.name_of(*self._here.named(name)): name for name in done}
        for place, it in (await self._there.raw(list(places))).items():
            if done[places[place]] == it:
                del raw[places[place]]
        return await self._here.values(raw)


async def _asked(connection: AbstractConnection, *command: Argument) -> Any:
    await connection.send_command(*command)
    return await connection.read_response()


def _record(kind: str, *told: Argument | None) -> Record:
    """A kind, how much follows, and that; a script's arguments know no null."""
    return [kind, len(told), *("" if each is None else each for each in told)]


def _cause(record: dict[bytes, bytes]) -> Cause:
    """By which a letter is listed; where there are too many, the other partition decides anew."""
    record.pop(b"group", None)
    return cause_in([record.get(name.encode()) for name in CAUSE_FIELDS])


def _flat(record: dict[bytes, bytes]) -> list[bytes]:
    return [each for pair in record.items() for each in pair]


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """So many at a time."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def of_size(records: Iterable[Record]) -> Iterator[Record]:
    """Several together, of so many bytes, or one that has more."""
    some: Record = []
    size = number = 0
    for record in records:
        bytes_of_it = sum(len(each) for each in record if isinstance(each, bytes))
        if some and (size + bytes_of_it > _BYTES_AT_ONCE or number == _RECORDS_AT_ONCE):
            yield some
            some, size, number = [], 0, 0
        some += record
        size += bytes_of_it
        number += 1
    if some:
        yield some
