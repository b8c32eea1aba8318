"""The worker's transitions, as Redis runs them: claim or adopt, renew, mark, settle."""

import enum
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NamedTuple, TypeVar, final

import msgspec

from shared.endpoints.endpoint import Rate
from shared.errors import TransitionError
from shared.observe import metrics
from shared.queue import scripts, told
from shared.queue.keys import Names
from shared.queue.partition import Partition
from shared.queue.rules import SUSPECT_FROM
from shared.redis.wire import Wire
from worker.turns import Turn

_ADOPT = scripts.load("adopt")
_CLAIM = scripts.load("claim")
_DISOWN = scripts.load("disown")
_LEAVE = scripts.load("leave")
_MARK = scripts.load("mark")
_PROFILE = scripts.load("profile")
_RENEW = scripts.load("renew")
_SETTLE = scripts.load("settle")
_SHOW = scripts.load("show")

_REMEMBERED: Final = 10
"""Leases for which Redis knows that nobody reads the answer to a claim. It may come late itself."""

_PUBLISHED_AT_ONCE: Final = 500
"""Organizations of one call, since Redis serves nobody else meanwhile."""

LANES: Final = 8
"""Calls of ``claim``, as many of ``mark``, and of ``settle``, that may be on their way at once.

One at a time is one batch a round trip, however far Redis is. All but the first are full batches,
so near by there are hardly ever more than two."""

_FEWEST_AT_ONCE: Final = 48
_MOST_AT_ONCE: Final = 96
"""Jobs of one claim: more, and the scripts of others wait too long for Redis; fewer, and claims
don't keep the slots filled. With 500 slots the second takes a tenth less of worker and Redis; with
100 it would leave each waiting for the other."""

_ON_THE_WAY: Final = 5 / 6
"""Of these, how many marks or settlements go in a call. They are fewer than a worker has slots, so
that it handles what the last call brought while Redis works on the next one."""

MOST_BYTES: Final = 1 << 20
"""Bytes of payload that one claim brings, but for a single job that has more."""

RETENTION: Final = 7 * 86_400.0
"""Seconds for which a mark is kept where nobody says otherwise: ``DEDUPE_RETENTION``'s default."""

_NAMES_KEPT: Final = 30 * 86_400
"""Seconds for which the name of a worker or a handler is known: longer than most marks are kept."""

_MOST_NAMES: Final = 5_000

_PAYLOAD: Final = 4
"""Its place in what ``claim`` answers of a job."""

_CLAIMED = metrics.WORKER_BATCH.labels("claim")

Answer = TypeVar("Answer", bound=enum.Enum)

pack: Final = msgspec.msgpack.Encoder().encode
"""What a settlement says, as ``settle.lua`` unpacks it."""


FRESH_BYTES: Final = 5
"""Of what the tokens of one call of ``claim`` begin with: the digits behind the worker's sign."""


def claimed_at_once(slots: int) -> int:
    """How many jobs one call of ``claim`` brings at the most, for a worker with so many slots."""
    return min(_MOST_AT_ONCE, max(_FEWEST_AT_ONCE, slots // 5))


def settled_at_once(slots: int) -> int:
    """How many one call of ``mark``, or of ``settle``, is about at the most, for such a worker."""
    return round(claimed_at_once(slots) * _ON_THE_WAY)


# There are ten thousands of these, and none is part of a circle: the collector needn't look.
class Claim(msgspec.Struct, gc=False):
    """A job that this worker holds.

    Attributes:
        job: its id.
        token: proves the hold; every later word about the job names it.
        attempts: attempts with an outcome so far.
        claims: claims without an outcome before this one: each time, the worker stopped renewing
            the lease.
        alone: whether the last of these was alone in its worker.
        blocked: how often its handler has blocked a worker's loop.
        size: bytes of its payload; ``None`` where nobody has looked.
    """

    job: str
    token: str
    attempts: int = 0
    claims: int = 0
    alone: bool = False
    blocked: int = 0
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim brought.

    Attributes:
        jobs: each claim with its job's payload, empty where that is gone.
        more: others are in line still.
        quiet: a suspect waits for this worker to hold nothing else.
        next_due: seconds until a deferred job is due; ``None`` without one.
        suspects: the jobs are suspects, and should have no other beside them.
        patience: how often the time is doubled for which a worker takes nothing for either's sake.
    """

    jobs: list[tuple[Claim, bytes]]
    more: bool
    quiet: bool
    next_due: float | None
    suspects: bool = False
    patience: int = 0


@dataclass(frozen=True, slots=True)
class Renewed:
    """What a sign of life brought.

    Attributes:
        is_new: whether Redis didn't know the worker.
        lost: the claims whose jobs somebody else holds by now, or nobody.
    """

    is_new: bool
    lost: list[Claim]


class Profile(NamedTuple):
    """What the scripts have to know of an organization.

    Attributes:
        organization: its id.
        cap: of its handlers at once; ``None``: the default one.
        weight: its share under contention.
        rate: of starts of its handlers; ``None``: no limit.
    """

    organization: str
    cap: int | None = None
    weight: float = 1.0
    rate: Rate | None = None

    def packed(self) -> bytes:
        """Its cap and weight, as ``profile.lua`` keeps them."""
        return f"{'' if self.cap is None else self.cap}:{self.weight}".encode()

    def packed_rate(self) -> bytes | None:
        """Its rate, the same."""
        return None if self.rate is None else f"{self.rate.interval}:{self.rate.credit}".encode()


class Mark(enum.Enum):
    """What ``mark`` found under the event id."""

    FRESH = "fresh"
    UNPROVABLE = "unprovable"
    OWN = "own"
    TAKEN_OVER = "taken-over"
    REVIVED = "revived"
    HELD = "held"
    HELD_CONFLICTING = "held-conflicting"
    DUPLICATE = "duplicate"
    CONFLICTING = "conflicting"
    LOST = "lost"
    # What it is told of its turn: it is held no more.
    IN_LINE = "in_line"
    LATER = "later"
    SUPERSEDED = "superseded"


class Settled(enum.Enum):
    """What became of a job: by ``settle``, or by ``mark`` since it has no turn."""

    DONE = "done"
    RETRIED = "retried"
    DEAD = "dead"
    DUPLICATE = "duplicate"
    HELD = "held"
    RELEASED = "released"
    ABANDONED = "abandoned"
    WAITING = "waiting"
    THROTTLED = "throttled"
    OVERDUE = "overdue"
    REMOVED = "removed"
    AGAIN = "again"
    CONFLICT = "conflict"
    IN_LINE = "in_line"
    LATER = "later"
    SUPERSEDED = "superseded"
    LOST = "lost"


class MarkRequest(msgspec.Struct, frozen=True, gc=False):
    """The question for an event's mark.

    Attributes:
        claim: of the job that carries the event.
        event_id: Sellfern's.
        provable_until: epoch milliseconds until which the mark of a finished one would be there;
            ``None`` is for ever.
        turn: that it needs, too.
    """

    claim: Claim
    event_id: str
    provable_until: int | None = None
    turn: Turn | None = None


@final
class Refused(TransitionError):
    """Redis could not apply one job's transition; nothing of it was written."""


class Marked(msgspec.Struct, frozen=True, gc=False):
    """The mark, and what goes with it.

    Attributes:
        mark: what was found.
        now: Redis's clock at that moment in epoch milliseconds.
        superseded: ids of the events that this one stands for.
    """

    mark: Mark
    now: int
    superseded: tuple[str, ...] = ()


class Settlement(msgspec.Struct, gc=False):
    """What is to become of a claimed job: a verb of ``settle.lua`` with its details.

    Attributes:
        claim: proves the hold.
        verb: of the script.
        details: as the verb needs them.
        packed: the same as the script takes them, where somebody has packed them already.
        told: what the mark of an event that is done tells of it.
    """

    claim: Claim
    verb: str
    details: tuple[Any, ...] = ()
    packed: bytes = b""
    told: str = ""


# By the bytes that come: to an enum's own look-up each would have to be decoded first.
_MARKS = {mark.value.encode(): mark for mark in Mark}
_ENDS = {settled.value.encode(): settled for settled in Settled}


class Transitions:
    """Runs the scripts; every call is one round trip for a batch.

    Args:
        partition: where they run.
        retention: seconds for which an event's mark is kept, and so is the count of its revivals.
        has_turns: whether any handler asks for turns: then Redis notes whose key isn't known yet.
    """

    def __init__(
        self, partition: Partition, *, retention: float = RETENTION, has_turns: bool = False
    ) -> None:
        self._partition = partition
        # Looked up once: they run for every event.
        self._claim, self._mark, self._settle = map(partition.script, (_CLAIM, _MARK, _SETTLE))
        self._has_turns = has_turns
        self._retention = round(retention * 1000)
        self._brought_large = False
        # Each has its own, since a mark must not wait for the answer to a claim. What is rare goes
        # by the client.
        self._reads = Wire(partition.redis)
        self._claims, self._marks, self._settlements = (
            Wire(partition.redis, width=LANES) for _ in range(3)
        )

    @property
    def names(self) -> Names:
        """Those in Redis of what they change."""
        return self._partition.names

    async def adopt(self, job: str, *, lease: float) -> Claim | None:
        """Take a job that a stock arq worker picked; ``None`` if its payload is gone.

        Args:
            job: its id.
            lease: seconds until somebody else may have it.
        """
        token = secrets.token_hex(8)
        answer = await self._partition.run(_ADOPT, job, token, round(lease * 1000))
        # Somebody else has finished it since arq picked it.
        if answer == b"gone":
            return None
        attempts, claims, _now, alone, blocked = answer
        return Claim(job, token, attempts, claims, bool(alone), blocked)

    async def claim(
        self,
        worker: str,
        *,
        most: int,
        lease: float,
        holding: int,
        most_bytes: int = MOST_BYTES,
        slots: int = 1,
        suspect_from: int = SUSPECT_FROM,
        tainted: bool = False,
        waits_for_none: bool = False,
        no_more_alone: Claim | None = None,
        base: str | None = None,
    ) -> Claimed:
        """Take jobs that are due, in virtual order.

        Args:
            worker: who takes them.
            most: how many at the most.
            lease: seconds until somebody else may have them.
            holding: how many the worker holds already.
            most_bytes: of payload at the most; one larger job comes alone.
            slots: of the worker: the more, the more suspects are given together.
            suspect_from: claims without an outcome that make a suspect.
            tainted: handlers that should have ended still run in the worker, and are no part of
                ``holding``: nothing in it is alone.
            waits_for_none: no suspect may ask the worker to be quiet; where it is the one that
                should be, another may become it.
            no_more_alone: a suspect that it was given alone, and beside which it takes others now.
            base: of the claims' tokens: 16 hexadecimal digits, never used before; without one, a
                fresh one.
        """
        answer = await self._claim(
            self._claims,
            worker,
            most,
            round(lease * 1000),
            base or told.sign_of(worker) + secrets.token_hex(FRESH_BYTES),
            holding,
            most_bytes,
            slots,
            suspect_from,
            int(tainted),
            int(waits_for_none),
            int(self._has_turns),
            int(self._brought_large),
            # Last, since the script takes their absence for nobody.
            *((_name(no_more_alone), no_more_alone.token) if no_more_alone else ()),
        )
        _now, word, wait, patience, *jobs = answer
        _CLAIMED.observe(len(jobs))
        await self._read_large(jobs)
        return Claimed(
            [_given(*job) for job in jobs],
            more=word == b"more",
            quiet=word == b"quiet",
            next_due=None if wait < 0 else wait / 1000,
            suspects=word == b"suspects",
            patience=patience,
        )

    async def _read_large(self, jobs: Sequence[list[Any]]) -> None:
        """Put each payload in its place of which the script has told the length alone."""
        large = [job for job in jobs if type(job[_PAYLOAD]) is int]
        self._brought_large = bool(large)
        if large:
            # One each: Redis serves others in between. Unlike GET it takes what is no text for
            # gone, as the script does.
            commands = [("MGET", self.names.job.encode() + job[0]) for job in large]
            replies = await self._claims.execute_commands(*commands)
            for job, reply in zip(large, replies, strict=True):
                if isinstance(reply, Exception):
                    raise reply  # nobody knows what stands there: the claim is to be disowned
                job[_PAYLOAD] = reply[0] or b""

    async def disown(self, base: str, *, lease: float) -> None:
        """Say that nobody will read the answer to a claim, whether Redis has had it or not.

        What it has taken comes back with its lease, and doesn't count as claimed.

        Args:
            base: of the claim's tokens.
            lease: seconds, as in the claim.
        """
        await self._partition.run(_DISOWN, base, round(_REMEMBERED * lease * 1000))

    async def renew(
        self,
        worker: str,
        claims: Sequence[Claim],
        *,
        description: bytes,
        slots: int,
        lease: float,
    ) -> "Renewed":
        """Show that the worker lives, and keep its claims.

        Args:
            worker: who it is.
            claims: what it holds.
            description: what it says of itself, JSON.
            slots: how many events it handles at once.
            lease: seconds until the next sign of life has to come.
        """
        arguments: list[str | bytes | int] = [worker, description, slots, round(lease * 1000)]
        for claim in claims:
            arguments += (_name(claim), claim.token)
        is_new, *lost = await self._partition.run(_RENEW, *arguments)
        # Lua counts from 1.
        return Renewed(bool(is_new), [claims[place - 1] for place in lost])

    async def note_names(self, names: Sequence[str]) -> None:
        """Have the names of a worker and its handlers known, of which marks have codes."""
        now = int(time.time())
        known = self.names.known
        pairs = [each for name in names for each in (now, name)]
        async with self._partition.redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("ZADD", known, *pairs)
            pipe.execute_command("ZREMRANGEBYSCORE", known, "-inf", now - _NAMES_KEPT)
            pipe.execute_command("ZREMRANGEBYRANK", known, 0, -1 - _MOST_NAMES)
            await pipe.execute()

    async def leave(self, worker: str) -> None:
        """Take a worker's slots out of the count."""
        await self._partition.run(_LEAVE, worker)

    async def show(self, worker: str, at_work: bytes) -> None:
        """Say what takes long in a worker, for operators; nothing: nothing does."""
        await self._partition.run(_SHOW, worker, at_work)

    async def publish(self, profiles: Sequence["Profile"]) -> None:
        """Tell the scripts what the endpoints file says of organizations, where that is news."""
        for start in range(0, len(profiles), _PUBLISHED_AT_ONCE):
            some = profiles[start : start + _PUBLISHED_AT_ONCE]
            organizations = [profile.organization for profile in some]
            known, rates = [
                await self._partition.redis.execute_command("HMGET", name, *organizations)
                for name in (self.names.organizations, self.names.rates)
            ]
            news = [
                profile
                for profile, *there in zip(some, known, rates, strict=True)
                if there != [profile.packed(), profile.packed_rate()]
            ]
            if news:
                await self._partition.run(_PROFILE, *chain.from_iterable(map(_told, news)))

    async def mark(self, requests: Sequence[MarkRequest]) -> list[Marked | Exception]:
        """Set, or find, the mark of each event id, and ask for the turn of each that needs one."""
        number = len(requests) if self._has_turns else ""
        arguments: list[str | bytes | int] = [self._retention, number]
        for request in requests:
            # A script's arguments know no null; an empty one stands for it, here and below.
            until = "" if request.provable_until is None else request.provable_until
            arguments += (_name(request.claim), request.claim.token, request.event_id, until)
        if self._has_turns:
            for place, request in enumerate(requests, start=1):  # Lua counts from 1
                if (turn := request.turn) is not None:
                    arguments += (place, turn.key, turn.latest, turn.quiet)
        now, *answers = await self._mark(self._marks, *arguments)
        return [_marked(raw, now) for raw in answers]

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled | Exception]:
        """Make each job what its settlement says, if its claim still holds."""
        arguments: list[str | bytes | int] = []
        verb, packed, number_at, number = "", b"", 0, 0
        for settlement in settlements:
            claim = settlement.claim
            size = "" if claim.size is None else claim.size
            details = settlement.packed or pack(settlement.details)
            # What is said of several in a row is said once: most of a batch are done, and no more.
            if settlement.verb != verb or details != packed:
                verb, packed, number_at, number = settlement.verb, details, len(arguments) + 2, 0
                arguments += (verb, packed, number)
            number += 1
            arguments[number_at] = number
            arguments += (_name(claim), claim.token, size, settlement.told)
        return [_read(_ENDS, raw) for raw in await self._settle(self._settlements, *arguments)]

    async def read(self, names: Sequence[str]) -> list[bytes | None]:
        """Raw values by their full names."""
        # No script: what is read is checked at the commit, and changes nothing before it.
        return list(await self._reads.execute_command("MGET", *names))


def _told(profile: Profile) -> tuple[str, ...]:
    """A profile as the script's arguments: the texts that are compared with what it has kept."""
    rate = (profile.packed_rate() or b":").decode()
    return (profile.organization, *profile.packed().decode().split(":"), *rate.split(":"))


def _given(  # noqa: PLR0917  # in the order of the script's answer
    job: bytes,
    token: bytes,
    attempts: int,
    claims: int,
    raw: bytes,
    # These two are there only where anything is known of them.
    alone: int = 0,
    blocked: int = 0,
) -> tuple[Claim, bytes]:
    # A stock producer's id may be any bytes, and has to go back as it came.
    name = job.decode(errors="surrogateescape")
    return Claim(name, token.decode(), attempts, claims, alone == 1, blocked, len(raw)), raw


def _name(claim: Claim) -> bytes:
    """A job's id as Redis has it; a foreign one may be any bytes."""
    return claim.job.encode(errors="surrogateescape")


def _marked(raw: bytes | list[bytes], now: int) -> Marked | Exception:
    superseded: tuple[str, ...] = ()
    if type(raw) is list:
        raw, *ids = raw
        superseded = tuple(event_id.decode() for event_id in ids)
    mark = _read(_MARKS, raw)  # type: ignore[arg-type]  # no list any more
    return mark if isinstance(mark, Exception) else Marked(mark, now, superseded)


def _read(kinds: Mapping[bytes, Answer], raw: bytes) -> Answer | Exception:
    # What can't be applied to one job is said of that one: the others of its batch are settled.
    answer = kinds.get(raw)
    if answer is None:
        return Refused(raw.decode(errors="replace").removeprefix("refused:"))
    return answer
