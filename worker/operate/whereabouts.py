"""Where an event is and what it waits for, in words, from what Redis says of its job."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias

import msgspec
from redis.asyncio.client import Pipeline

from shared.display import clock, roughly
from shared.queue import keys, told
from shared.queue.job import organization_of
from shared.queue.keys import Names
from shared.queue.partition import Partition
from shared.queue.rules import SUSPECT_FROM, Profile, default_cap
from worker.at_work import Doing
from worker.operate.organizations import fields_of, why_held

State: TypeAlias = Literal[
    "running",
    "lost",
    "ready",
    "parked",
    "in turn",
    "deferred",
    "misplaced",
    "harmed",
    "handled",
    "ignored",
    "finished",
    "discarded",
    "superseded",
    "dead",
    "pending",
    "unknown",
]
"""Where an event is; ``lost`` is one whose worker's lease is over, ``finished`` one whose mark
doesn't tell how, ``misplaced`` a payload without a place in line, ``harmed`` a place
without a payload, ``pending`` a mark whose job is gone."""

_DIGITS: Final = 17
"""Fewer has any number that a script writes, milliseconds since the epoch among them."""

_CLAIM: Final = re.compile(rb"([0-9a-f]*):(\d{1,15}):(\d{1,15}):[^:]*:(.*)", re.DOTALL)

_NOBODYS_TOKEN: Final = 40
"""Characters of a token that keeps a slot and that nobody holds; a holder's is shorter."""


class Turn(NamedTuple):
    """The turn that a job waits for.

    Attributes:
        name: a key or a value; empty where it waits for none.
        key: of what keeps it in Redis.
        gathers: whether it waits for others of its kind, of which only the newest is to run.
        ahead: how many are before it.
        holder: the job of whoever has the turn; empty where nobody has.
    """

    name: str = ""
    key: str = ""
    gathers: bool = False
    ahead: int = 0
    holder: str = ""

    @property
    def text(self) -> str:
        """It, and who else is in it."""
        holder = f"; {self.holder} has it" if self.holder else ""
        return f"waits for its turn of {self.name}, {self.ahead:,} ahead of it{holder}"


class Around(NamedTuple):
    """What else has a say in when an event runs.

    Attributes:
        at: Redis's time, seconds since the epoch.
        is_manned: whether any worker is alive.
        held: why its organization's events wait as a whole; empty where they don't.
        running: of its organization's events, those that have a slot.
        cap: how many may; ``None`` where there is no limit.
        rate: why its handlers start one after the other; empty where they needn't.
    """

    at: float
    is_manned: bool = True
    held: str = ""
    running: int = 0
    cap: int | None = None
    rate: str = ""

    @staticmethod
    def ask(pipe: Pipeline, names: Names, organization: str) -> None:
        """Put the questions into a pipeline: so many as `read` takes."""
        pipe.time()
        pipe.zrange(names.workers_seen, -1, -1, withscores=True)
        pipe.get(names.slots)
        pipe.hmget(names.organizations, [*fields_of(organization), organization])
        pipe.hmget(names.rates, [organization, f"ramp:{organization}", f"next:{organization}"])
        pipe.execute_command("HGET", names.running, organization)

    @classmethod
    def read(cls, answers: list[Any]) -> Self:
        """What they say; an error, as of a key of another kind, says nothing."""
        now, seen, slots, said, rates, running = (
            None if isinstance(each, Exception) else each for each in answers
        )
        at = now[0] + now[1] / 1e6 if now else time.time()
        *holding, profile = said or [None] * 4
        cap = Profile.read((profile or b"").decode(errors="replace")).cap
        if cap is None and (all_slots := number(slots)):
            cap = default_cap(all_slots)
        return cls(
            at=at,
            # What can't be read says nothing, and so not that nobody is there.
            is_manned=seen is None or bool(seen and seen[0][1] / 1000 >= at),
            held=why_held(holding, at),
            running=number(running) or 0,
            cap=cap,
            rate=_rate(*(rates or [None] * 3), at=at),
        )

    @property
    def parked(self) -> str:
        """Why it has a job parked."""
        if self.held:
            return self.held
        if self.cap is not None and self.running >= self.cap:
            return f"its organization has no free slot ({self.running:,} of {self.cap:,} taken)"
        return self.rate or "it goes on once a worker looks"

    @property
    def obstacle(self) -> str:
        """What would keep it from running though it were due, behind what is said of it."""
        return f"{'; ' * bool(self.held)}{self.held}{self.nobody}"

    @property
    def nobody(self) -> str:
        """That no worker is there to run it, the same."""
        return "" if self.is_manned else "; no worker is alive"


_QUESTIONS: Final = 6


class Place(NamedTuple):
    """Where a job is.

    Attributes:
        state: in a word that stays.
        around: what else there is.
        due_at: seconds since the epoch: the end of its lease, or when it is due.
        ahead: how many are in line before it; ``None`` where it isn't in line.
        turn: that it waits for.
        claims: that have ended without an outcome, with the one that is held.
        unhandled_since: seconds since the epoch: when the first worker had no handler for it.
        has_failed: whether it has had an attempt.
        doing: its handler, as its worker tells of it; ``None`` where that doesn't.
        holder: the worker that has it, by its name; empty where nobody knows.
    """

    state: State
    around: Around
    due_at: float | None = None
    ahead: int | None = None
    turn: Turn = Turn()
    claims: int = 0
    unhandled_since: float | None = None
    has_failed: bool = False
    doing: Doing | None = None
    holder: str = ""

    @property
    def left(self) -> float:
        """Seconds until its lease is over, or it is due; below 0 where it has been."""
        return 0.0 if self.due_at is None else self.due_at - self.around.at

    @property
    def word(self) -> str:
        """It in few words."""
        return self._put_off if self.state == "deferred" else _WORDS[self.state]

    @property
    def _put_off(self) -> str:
        if self.unhandled_since:
            return "waits for a handler"
        if self.turn.gathers:
            return "waits for others of its kind"
        if self.has_failed:
            return "waits for its next attempt"
        return "due later" if self.left > 0 else "due"

    @property
    def text(self) -> str:
        """It, for people, with all that keeps it there."""
        texts = {
            "running": lambda: self._running,
            "lost": lambda: self._lost,
            "deferred": lambda: f"{self._due}{self.around.obstacle}{self.goes_on}",
            "ready": lambda: f"{self._in_line}{self.around.obstacle}{self._suspected}",
            "parked": lambda: f"parked: {self.around.parked}{self.around.nobody}",
            "in turn": lambda: f"{self.turn.text}{self.around.obstacle}",
        }
        text = texts.get(self.state)
        return text() if text else _TEXTS[self.state]

    @property
    def details(self) -> str:
        """The same beside its word, without saying that again."""
        return self.text.removeprefix(self.word).lstrip(",: ")

    @property
    def _in_line(self) -> str:
        return f"in line, {self.ahead or 0:,} ahead of it"

    @property
    def _lost(self) -> str:
        then = "another one takes it" if self.around.is_manned else "no worker is alive"
        whose = f"its worker {self.holder}".rstrip()
        return f"{whose} was not heard of any more, its lease is over; {then}"

    @property
    def _running(self) -> str:
        lease = f"lease lasts {roughly(self.left)} more"
        if self.doing is None:
            return f"held by a worker, whose {lease}"
        return f"its handler {self._handler} has run {self._for}{self._how}; its {lease}"

    @property
    def _due(self) -> str:
        due = f"due in {roughly(self.left)}" if self.left > 0 else f"due for {roughly(-self.left)}"
        if self.unhandled_since:
            due += f", since no worker could handle it from {clock(self.unhandled_since)} on"
        if self.turn.gathers:
            due += ", with the newest of its kind"
        return due

    @property
    def _suspected(self) -> str:
        if self.claims < SUSPECT_FROM:
            return ""
        return f"; for a worker that holds nothing else, since {self.claims} claims of it were lost"

    @property
    def goes_on(self) -> str:
        """That its handler does, though its attempt is over."""
        if self.doing is None or self.state == "running":
            return ""
        return (
            f"; its handler {self._handler} goes on in {self.doing.worker} {self._for}{self._how}"
        )

    @property
    def _handler(self) -> str:
        return self.doing.handler if self.doing else ""

    @property
    def _for(self) -> str:
        since = self.doing.since if self.doing else self.around.at
        return f"for {roughly(max(0.0, self.around.at - since))}"

    @property
    def _how(self) -> str:
        how = {"blocking": ", and keeps its worker's loop"}
        state = self.doing.state if self.doing else ""
        return how.get(state, "" if state == "running" else ", though it was cancelled")


_WORDS: Final[dict[State, str]] = {
    "running": "running",
    "lost": "its worker is lost",
    "ready": "in line",
    "parked": "parked",
    "in turn": "waits for its turn",
    "handled": "handled",
    "ignored": "ignored",
    "finished": "finished",
    "discarded": "discarded",
    "superseded": "superseded",
    "dead": "dead letter",
    "misplaced": "has lost its place",
    "harmed": "has lost its payload",
    "pending": "its job is gone",
    "unknown": "unknown",
}

_TEXTS: Final[dict[State, str]] = {
    "dead": "a dead letter, until it is replayed or discarded, or expires",
    "unknown": "its mark names what is gone: a redelivery is judged anew",
    "harmed": "its payload is gone: the worker that claims it makes a dead letter of it",
    "misplaced": "a payload without a place in line: the same delivery sent again mends it",
    "pending": "marked as pending by a job that is gone: a redelivery takes over",
    "handled": "its job is finished",
    "ignored": "its job is finished: no handler is to have its type",
    "finished": "its job is finished, and its mark doesn't tell how: handled, most likely",
    "discarded": "given up for good by hand",
    "superseded": "a newer event of its kind stands for it",
}


def _rate(said: bytes | None, ramp: bytes | None, following: bytes | None, *, at: float) -> str:
    """Why its handlers start one after the other; ``prelude/rates.lua`` tells the forms."""
    next_at = number((following or b"").partition(b".")[0]) or 0
    wait = next_at / 1000 - at
    start = f", the next start is due in {roughly(wait)}" if wait >= 1 else ""
    if ramp:
        return f"its organization begins slowly, since its events have waited{start}"
    return f"its organization's rate{start}" if said else ""


# What Redis says of a job


@dataclass(frozen=True, slots=True)
class Claim:
    """What Redis knows of a job's attempts.

    Attributes:
        is_held: whether a worker has it.
        attempts: with an outcome.
        claims: without one since the last outcome.
        event_id: once known, else empty.
        holder: the worker that has it, by its name; empty where nobody knows.
    """

    is_held: bool = False
    attempts: int = 0
    claims: int = 0
    event_id: str = ""
    holder: str = ""

    @classmethod
    def read(cls, raw: Any) -> Self:
        """What its field says; ``prelude/claims.lua`` tells the form, and takes no other."""
        found = _CLAIM.fullmatch(raw) if isinstance(raw, bytes) else None
        if found is None:
            return cls()
        token, attempts, claims, event_id = (
            each.decode(errors="replace") for each in found.groups()
        )
        # A retry in order keeps its organization's slot by a token that nobody holds. Its claims
        # may be more than none, where its handler has blocked a worker.
        is_held = 0 < len(token) < _NOBODYS_TOKEN
        sign = token[: told.SIGN_DIGITS] if is_held else ""
        return cls(is_held, int(attempts), int(claims), event_id, sign)


NO_CLAIM: Final = Claim()
"""Where nothing is known."""


class JobTold(NamedTuple):
    """What Redis says of a job, as it says it, and what there is around it."""

    payload: Any
    claim: Any
    throttled: Any
    turn: Any
    past: Any
    redelivered: Any
    unhandled: Any
    suspicion: Any
    score: float | None
    accepted: float | None
    rank: Any
    parked: Any
    around: Around

    def place(self, names: Names, organization: str, *, is_dead: bool, has_failed: bool) -> Place:
        """Where it is.

        Args:
            names: of its partition.
            organization: whose it is.
            is_dead: whether it has a dead letter.
            has_failed: whether it has had an attempt.
        """
        claim, turn = Claim.read(self.claim), self._turn(f"{names.turn}{organization}:")
        if claim.attempts:  # it has gathered, and keeps its turn until its next attempt
            turn = turn._replace(gathers=False)
        is_in_line = self.score is not None and self.score < keys.DEFERRED_FROM
        return Place(
            self._state(claim, turn, is_dead=is_dead),
            self.around,
            due_at=None if self.score is None or is_in_line else self.score / 1000,
            ahead=self.rank if is_in_line else None,
            turn=turn,
            claims=claim.claims + self._grouped(claim),
            unhandled_since=(number(self.unhandled) or 0) / 1000 or None,
            has_failed=has_failed,
        )

    def _state(self, claim: Claim, turn: Turn, *, is_dead: bool) -> State:
        if self.payload is None:
            return "dead" if is_dead else "harmed"
        if self.score is not None and self.score >= keys.DEFERRED_FROM:
            if not claim.is_held:
                return "deferred"
            return "running" if self.score / 1000 > self.around.at else "lost"
        if self.score is not None:
            return "ready"
        if self.parked is not None:
            return "parked"
        return "in turn" if turn.name else "misplaced"

    def _grouped(self, claim: Claim) -> int:
        """Claims that aren't in its own number; ``prelude/suspects.lua`` tells the form."""
        raw = self.suspicion if isinstance(self.suspicion, bytes) else b""
        attempts, _, grouped, *_ = (*raw.split(b":"), b"", b"", b"")
        return (number(grouped) or 0) if number(attempts) == claim.attempts else 0

    def _turn(self, begin: str) -> Turn:
        """The turn that it waits for; ``prelude/turns.lua`` tells the form of what is read."""
        try:
            key, state, kind, waits, since, _starts = msgspec.msgpack.decode(self.turn)
        except (msgspec.DecodeError, TypeError, ValueError):
            return Turn()  # in no turn, or somebody's hand wrote it
        if not waits:
            return Turn(gathers=bool(kind) and not since and not state)
        # It has its key's turn already where it waits for a value's.
        name = str(state or key)
        return Turn(name.removeprefix(begin), name)


async def look(partition: Partition, jobs: Sequence[str]) -> list[JobTold]:
    """What Redis says of each of these, in one round trip."""
    names = partition.names
    owners = [organization_of(job, names.job_prefix) or "?" for job in jobs]
    raw = [job.encode(errors="surrogateescape") for job in jobs]
    hashes = (
        *(names.claims, names.throttled, names.turns, names.failures, names.redelivered),
        *(names.unhandled, names.suspects),
    )
    async with partition.redis.pipeline(transaction=False) as pipe:
        pipe.mget([names.job.encode() + each for each in raw])
        for name in hashes:
            pipe.hmget(name, raw)
        for name in (names.queue, names.accepted):
            pipe.execute_command("ZMSCORE", name, *raw)
        for each, owner in zip(raw, owners, strict=True):
            pipe.zrank(names.queue, each)
            pipe.zscore(names.parked(owner), each)
        for owner in dict.fromkeys(owners):
            Around.ask(pipe, names, owner)
        # A key of another kind under one of our names is that question's error, not the page's.
        answers = await pipe.execute(raise_on_error=False)
    first, last = len(hashes) + 3, len(hashes) + 3 + 2 * len(jobs)
    around = {
        owner: Around.read(answers[at : at + _QUESTIONS])
        for owner, at in zip(
            dict.fromkeys(owners), range(last, len(answers), _QUESTIONS), strict=True
        )
    }
    # One that can't be read says nothing of any of them.
    columns = [each if isinstance(each, list) else [None] * len(jobs) for each in answers[:first]]
    own = [None if isinstance(each, Exception) else each for each in answers[first:last]]
    rows = zip(*columns, own[::2], own[1::2], owners, strict=True)
    return [JobTold._make([*row, around[owner]]) for *row, owner in rows]


async def turns_of(partition: Partition, places: Sequence[tuple[str, Place]]) -> list[Place]:
    """The same places, of these jobs that wait for their turn, with who is before them in it."""
    async with partition.redis.pipeline(transaction=False) as pipe:
        for job, place in places:
            pipe.execute_command("ZRANGE", place.turn.key, 0, 0, "WITHSCORES")
            pipe.execute_command("ZRANK", place.turn.key, job.encode(errors="surrogateescape"))
        answers = await pipe.execute(raise_on_error=False)
    rows = zip(places, answers[::2], answers[1::2], strict=True)
    return [_in_turn(place, first, rank) for (_, place), first, rank in rows]


def _in_turn(place: Place, first: Any, rank: Any) -> Place:
    has_it = isinstance(first, list) and len(first) > 1 and float(first[1]) == 0
    holder = first[0].decode(errors="replace") if has_it else ""
    ahead = rank if isinstance(rank, int) else 0
    return place._replace(turn=place.turn._replace(holder=holder, ahead=ahead))


def number(raw: Any) -> int | None:
    """A number that a script writes; ``None`` where there is none, or somebody's hand wrote it."""
    is_one = isinstance(raw, bytes) and raw.isdigit() and len(raw) < _DIGITS
    return int(raw) if is_one else None
