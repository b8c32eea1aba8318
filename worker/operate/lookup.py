"""Finds out where an event is: its mark, its job, its claim, its dead letter."""

import heapq
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import itemgetter
from typing import Any, Final, TypeAlias

from shared.errors import EnvelopeError
from shared.queue import hashes, keys, told
from shared.queue import job as jobs
from shared.queue.job import Delivery, organization_of
from shared.queue.keys import Names
from shared.queue.partition import Partition
from shared.queue.reach import Reach
from shared.queue.told import Told
from shared.sellfern import envelope
from worker.operate import dead_letters, workers
from worker.operate.dead_letters import DeadLetter
from worker.operate.past import NOTHING, Past
from worker.operate.whereabouts import (
    NO_CLAIM,
    Around,
    Claim,
    JobTold,
    Place,
    State,
    look,
    number,
    turns_of,
)

OLDEST: Final = 10
"""Unfinished events that are listed before anything is searched for."""

_MARKS_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Mark:
    """An event's dedupe mark.

    Attributes:
        state: ``pending``, ``done`` or ``dead``.
        job: that it names.
        expires_at: seconds since the epoch; ``None``: it doesn't.
        told: how the event has ended; ``None`` where the mark doesn't say.
        handler: the name of the handler that it tells of; empty where nobody knows it.
        worker: the same of the worker.
        past: what came before that, where it tells it.
    """

    state: str
    job: str
    expires_at: float | None
    told: Told | None = None
    handler: str = ""
    worker: str = ""
    past: Past = NOTHING

    @property
    def received_at(self) -> float | None:
        """When the event was accepted, seconds since the epoch; ``None``: not known."""
        if self.told is None or self.told.received_at is None:
            return None
        # That is known to a second, or a minute, and what came after it better.
        since = self.past.lives[1]
        return min([self.told.received_at, *(each.began for each in since)])


@dataclass(frozen=True, slots=True)
class FoundEvent:
    """All that is known of one event.

    Attributes:
        job: its id.
        organization: whose; ``?`` where none can be told.
        place: where it is, and what it waits for.
        received_at: seconds since the epoch; ``None`` where that isn't known.
        claim: its attempts.
        throttled: how often its handler said so of its organization's own system.
        past: what its attempts came to and, once it is dead or done, those before that.
        mark: of the event; ``None`` where there is none, or the event's id isn't known.
        event_id: Sellfern's; empty where it isn't known.
        type: the same.
        endpoint: where it came in; empty where it isn't known.
        payload: arq's record, if there is one.
        letter: its dead letter, if there is one.
    """

    job: str
    organization: str
    place: Place
    received_at: float | None = None
    claim: Claim = NO_CLAIM
    throttled: int = 0
    past: Past = NOTHING
    mark: Mark | None = None
    event_id: str = ""
    type: str = ""
    endpoint: str = ""
    payload: bytes | None = None
    letter: DeadLetter | None = None

    @property
    def state(self) -> State:
        """Where it is, in a word that stays."""
        return self.place.state

    @property
    def due_at(self) -> float | None:
        """Seconds since the epoch: the end of its lease, or when it is due."""
        return self.place.due_at

    @property
    def is_counted(self) -> bool:
        """Whether its attempts are known; what is known by its mark alone may have had any."""
        return not (self.mark and self.payload is None and self.letter is None)

    @property
    def attempts(self) -> int:
        """Those with an outcome, of the life that it is in or, once it is dead, of the last one."""
        is_over = self.letter is not None and self.payload is None
        return self.letter.attempts if self.letter and is_over else self.claim.attempts

    @property
    def body(self) -> bytes | None:
        """The signed bytes, as far as they are there still."""
        if self.payload is not None:
            delivery = _delivery(self.payload)
            return delivery.body if delivery else self.payload
        return self.letter.body if self.letter else None


async def search(partition: Partition, text: str, organizations: Sequence[str]) -> list[FoundEvent]:
    """The events that a job's id or an event's id means.

    Args:
        partition: where they are.
        text: the one or the other; a partition's tag may be left out.
        organizations: whose events may bear that id; each has its own marks.
    """
    prefix = partition.names.job_prefix
    found = await find(partition, text if text.startswith(prefix) else prefix + text)
    # A job's id is unambiguous; an event's may be several organizations' own.
    if found is not None:
        return [found]
    marked = await _marked(partition, text, organizations)
    by_id = [await find_by_mark(partition, name, text) for name in marked]
    return [each for each in by_id if each is not None]


async def organizations_of(partition: Partition) -> list[str]:
    """Every organization that Redis knows of."""
    names = partition.names
    fields = {
        # What one holds is told by kind; of one of which nothing waits, its marks are all there is.
        # In front of one stands what is said of it: that it is paused, say.
        text.partition(":")[0] if name == names.bytes else text.rpartition(":")[2]
        for name in (names.organizations, names.waiting, names.buried, names.bytes)
        async for page in hashes.pages(partition.redis, name)
        for text in (field.decode(errors="replace") for field in page)
    }
    return sorted(
        name for name in fields if keys.ORGANIZATION_PATTERN.fullmatch(name) or name == "?"
    )


async def find(partition: Partition, job: str) -> FoundEvent | None:
    """The event that a job carries, or carried while it is a dead letter; ``None`` without one."""
    return next(iter(await find_all(partition, [job])), None)


async def find_all(partition: Partition, jobs: Sequence[str]) -> list[FoundEvent]:
    """The same of several jobs, in as many calls as of one; those that are there."""
    letters = {each.job: each for each in await dead_letters.read(partition, jobs)}
    found = [
        event
        for job, said in zip(jobs, await look(partition, jobs), strict=True)
        if (event := _found(partition.names, job, said, letters.get(job))) is not None
    ]
    if any(each.claim.is_held or each.past.has_lost for each in found):
        known = await _known(partition)
        found = [_with_names(each, known) for each in found]
    found = await _with_doing(partition, await _with_turns(partition, found))
    marks = await _marks(partition, [(each.organization, each.event_id) for each in found])
    return [replace(each, mark=mark) for each, mark in zip(found, marks, strict=True)]


def _found(names: Names, job: str, said: JobTold, letter: DeadLetter | None) -> FoundEvent | None:
    organization = organization_of(job, names.job_prefix) or "?"
    payload = said.payload
    if payload is None and letter is None and said.accepted is None:
        return None
    past = _past(said.past, letter).with_redeliveries(said.redelivered)
    claim = Claim.read(said.claim)
    delivery = None if payload is None else _delivery(payload)
    event_id, kind = _names(delivery, letter, claim)
    return FoundEvent(
        job=job,
        organization=organization,
        place=said.place(
            names, organization, is_dead=letter is not None, has_failed=past.last is not None
        ),
        received_at=_received_at(said.accepted, delivery, letter),
        claim=claim,
        throttled=number(said.throttled) or 0,
        past=past,
        event_id=event_id,
        type=kind,
        endpoint=delivery.endpoint if delivery else letter.endpoint if letter else "",
        payload=payload,
        letter=letter,
    )


def _received_at(
    accepted: float | None, delivery: Delivery | None, letter: DeadLetter | None
) -> float | None:
    """When it came in, seconds since the epoch, as far as that is known."""
    said = delivery.received_at if delivery else letter.received_at if letter else 0
    # The books keep an order: where another ingress's clock was ahead, it is later than that.
    at = said if 0 < said <= (accepted or said) else accepted or 0
    return at / 1000 or None


async def _with_turns(partition: Partition, found: list[FoundEvent]) -> list[FoundEvent]:
    """The same, with who has the turn that each waits for."""
    waiting = [(each.job, each.place) for each in found if each.state == "in turn"]
    if not waiting:
        return found
    places = await turns_of(partition, waiting)
    told_of = dict(zip((job for job, _ in waiting), places, strict=True))
    return [replace(each, place=told_of.get(each.job, each.place)) for each in found]


async def _with_doing(partition: Partition, found: list[FoundEvent]) -> list[FoundEvent]:
    """The same, with what the worker of each tells of its handler."""
    whose = [_worker_of(each) for each in found]
    if not (names := sorted({each for each in whose if each})):
        return found
    async with partition.redis.pipeline(transaction=False) as pipe:
        pipe.hmget(partition.names.workers_now, names)
        pipe.execute_command("ZMSCORE", partition.names.workers_seen, *names)
        raw, seen = await pipe.execute(raise_on_error=False)
    if isinstance(raw, Exception) or isinstance(seen, Exception):
        return found  # an earlier file of users lets nobody read it
    # What a lost one was at stands there still.
    at = max(each.place.around.at for each in found)
    raw = [
        told_of if (until or 0) / 1000 >= at else None
        for told_of, until in zip(raw, seen, strict=True)
    ]
    doing = {
        (its.worker, its.job): its
        for name, text in zip(names, raw, strict=True)
        for its in workers.what_runs_in(text or b"", name.encode()).doing
    }
    return [
        replace(event, place=event.place._replace(doing=doing.get((worker, event.job))))
        for event, worker in zip(found, whose, strict=True)
    ]


def _worker_of(event: FoundEvent) -> str:
    """The worker that has it or, as its handler may go on there, had it last."""
    if event.claim.is_held:
        return event.claim.holder
    return event.past.last.worker if event.past.last else ""


def _with_names(event: FoundEvent, known: Sequence[str]) -> FoundEvent:
    """The same with the names of workers in place of what is short for them."""
    holder = _who(known, event.claim.holder, told.sign_of)
    past, place = _with_signers(event.past, known), event.place._replace(holder=holder)
    return replace(event, claim=replace(event.claim, holder=holder), past=past, place=place)


def _with_signers(past: Past, known: Sequence[str]) -> Past:
    return past.with_names(lambda sign: _who(known, sign, told.sign_of))


async def find_anywhere(reach: Reach, job: str) -> FoundEvent | None:
    """The same, in whichever partition it is.

    Raises: what the client does, where the one fails whose tag the job bears.
    """
    job = await reach.name_now(job)
    if (bearing := reach.partitions.bearing(job)) is not None:
        bare = job.removeprefix(bearing.names.job_prefix)
        owner = organization_of(bare) if len(reach.partitions) > 1 else ""
        # While it moves, it may still be where it comes from.
        for each in (bearing, *((await reach.holding(owner)) if owner else ())):
            found_there = await find(each, each.names.job_prefix + bare)
            if found_there is not None:
                return found_there
        return None
    found = await reach.gather(lambda partition: find(partition, job))
    return next((each for _, each in found if each is not None), None)


async def find_by_mark(partition: Partition, organization: str, event_id: str) -> FoundEvent | None:
    """The event of this id, as long as its mark is kept; ``None`` without one."""
    mark = await _mark(partition, organization, event_id)
    if mark is None:
        return None
    found = await find(partition, mark.job)
    if found is not None:
        return found
    end: State = mark.told.end if mark.told else "finished"
    states: dict[str, State] = {"done": end, "pending": "pending"}
    return FoundEvent(
        job=mark.job,
        organization=organization,
        place=Place(states.get(mark.state, "unknown"), Around(time.time())),
        received_at=mark.received_at,
        past=mark.past,
        mark=mark,
        event_id=event_id,
    )


async def oldest(reach: Reach) -> list[FoundEvent]:
    """The unfinished events that were accepted first."""
    first = first_accepted(await reach.gather(_first_accepted))
    here: dict[int, list[str]] = {}
    for partition, job in first:
        here.setdefault(partition.number, []).append(job.decode(errors="surrogateescape"))
    among = [reach.partitions.all[number] for number in here]
    told = await reach.gather(lambda each: find_all(each, here[each.number]), among)
    found = {event.job: event for _, some in told for event in some}
    jobs = [job.decode(errors="surrogateescape") for _, job in first]
    return [found[job] for job in jobs if job in found]


_Accepted: TypeAlias = list[tuple[float, bytes]]
"""Jobs by the moment of their acceptance, the first ones first."""


async def _first_accepted(partition: Partition) -> _Accepted:
    command = ("ZRANGE", partition.names.accepted, 0, OLDEST - 1, "WITHSCORES")
    found = await partition.redis.execute_command(*command)
    return [(float(at), job) for job, at in zip(found[::2], found[1::2], strict=True)]


def first_accepted(lists: Iterable[tuple[Partition, _Accepted]]) -> list[tuple[Partition, bytes]]:
    """The first ones of all partitions together, each with where it is."""
    rows = ([(at, partition, job) for at, job in jobs] for partition, jobs in lists)
    merged = heapq.merge(*rows, key=itemgetter(0))
    return [(partition, job) for _, partition, job in islice(merged, OLDEST)]


async def _marked(partition: Partition, event_id: str, organizations: Sequence[str]) -> list[str]:
    """The organizations that have a mark for this id."""
    found: list[str] = []
    for start in range(0, len(organizations), _MARKS_AT_ONCE):
        here = organizations[start : start + _MARKS_AT_ONCE]
        marks = await partition.redis.mget([_mark_name(partition, name, event_id) for name in here])
        found += [name for name, mark in zip(here, marks, strict=True) if mark is not None]
    return found


async def _mark(partition: Partition, organization: str, event_id: str) -> Mark | None:
    return (await _marks(partition, [(organization, event_id)]))[0]


async def _marks(partition: Partition, events: Sequence[tuple[str, str]]) -> list[Mark | None]:
    """The marks of events, each by its organization and its id."""
    names = [_mark_name(partition, *each) for each in events]
    async with partition.redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.execute_command("GET", name)
            pipe.execute_command("PEXPIRETIME", name)
        answers = await pipe.execute(raise_on_error=False)
    marks = [
        _read_mark(partition, raw, expires_at) if event_id and isinstance(raw, bytes) else None
        for (_, event_id), raw, expires_at in zip(events, answers[::2], answers[1::2], strict=True)
    ]
    if not any(mark and (mark.told or mark.past.has_lost) for mark in marks):
        return marks
    known = await _known(partition)
    return [mark and _told_by(mark, known) for mark in marks]


def _read_mark(partition: Partition, raw: bytes, expires_at: int) -> Mark:
    state, _, rest = raw.partition(b":")
    named, how, history = told.read(rest) if state == b"done" else (rest, None, b"")
    job = partition.names.from_mark(named.decode(errors="surrogateescape"))
    until = expires_at / 1000 if expires_at > 0 else None
    return Mark(state.decode(errors="replace"), job, until, how, past=Past.read(history))


def _told_by(mark: Mark, known: Sequence[str]) -> Mark:
    mark = replace(mark, past=_with_signers(mark.past, known))
    if mark.told is None:
        return mark
    handler, worker = (
        _who(known, each, told.code_of) for each in (mark.told.handler, mark.told.worker)
    )
    return replace(mark, handler=handler, worker=worker)


async def _known(partition: Partition) -> list[str]:
    """The names of workers and handlers, as far as anybody knows them."""
    raw = await partition.redis.execute_command("ZRANGE", partition.names.known, 0, -1)
    return [each.decode(errors="replace") for each in raw]


def _who(known: Iterable[str], short: str, shortened: Callable[[str], str]) -> str:
    """Those of them that are shortened to that, which hardly ever are two."""
    return " or ".join(name for name in known if short and shortened(name) == short)


def _mark_name(partition: Partition, organization: str, event_id: str) -> bytes:
    return partition.names.event(organization, event_id).encode(errors="replace")


def _past(raw: Any, letter: DeadLetter | None) -> Past:
    past = Past.read(raw)
    # One that is given another life has all of it with its letter, until it is judged.
    return letter.past if letter is not None and not past.happenings else past


def _names(delivery: Delivery | None, letter: DeadLetter | None, claim: Claim) -> tuple[str, str]:
    """The event's id and type, from wherever they are known."""
    if delivery is not None:
        try:
            claimed = envelope.decode(delivery.body)
        except EnvelopeError:
            return claim.event_id, ""
        return claim.event_id or claimed.id, claimed.type
    if letter is not None:
        return letter.event_id, letter.type
    return claim.event_id, ""


def _delivery(payload: bytes) -> Delivery | None:
    try:
        return jobs.decode(payload)
    except jobs.PayloadError:
        return None
