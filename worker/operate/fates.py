"""Finds out what has become of dead letters that were given another life."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self, TypeAlias

from shared.errors import EnvelopeError
from shared.queue import told
from shared.queue.partition import Partition
from shared.queue.reach import Reach
from shared.sellfern import envelope
from worker.grouping import cause_of
from worker.operate.dead_letters import DeadLetter, raw_name

PATIENCE: Final = 10.0
"""Seconds for which those of the last ones are waited for, unless somebody says otherwise."""

_LONGEST: Final = 120  # characters of an error, in a sentence about many
_DISCARDED: Final = "discarded"
_ANSWERS: Final = 4  # of Redis, for each

Became: TypeAlias = told.End | Literal["died_again", "gone", "waiting"]
"""``gone``: none of these, so nobody knows; it has expired, say."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What has to be known of a dead letter to tell what became of it.

    Attributes:
        job: its id.
        organization: whose.
        event_id: Sellfern's; empty where the body gives none.
        died_at: before, epoch milliseconds.
        partition: the number of that in which it is.
        group: of what it had died, as `DeadLetter` has it; empty where nobody knows.
    """

    job: str
    organization: str
    event_id: str
    died_at: int
    partition: int
    group: str = ""

    @classmethod
    def of(cls, letter: DeadLetter) -> Self:
        """One that has just been queued; its payload isn't kept."""
        event_id = letter.event_id or _id_in(letter.body)
        return cls(
            *(letter.job, letter.organization, event_id),
            *(letter.died_at, letter.partition, letter.group),
        )


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one.

    Attributes:
        of: which one; where it waits, by the job and in the partition in which its story goes on.
        became: what.
        why: it died again: the reason, and its error without what differs from one to another.
        attempts: that it has had since, where it waits.
        is_same: whether it died again of what it had died of.
    """

    of: Replayed
    became: Became
    why: str = ""
    attempts: int = 0
    is_same: bool = False


async def discards(reach: Reach) -> dict[int, int]:
    """How many dead letters were ever discarded, by partition: for `look`, from before."""

    async def discarded_in(partition: Partition) -> int:
        command = ("HGET", partition.names.counters, _DISCARDED)
        return int(await partition.redis.execute_command(*command) or 0)

    found = await reach.gather(discarded_in)
    return {partition.number: number for partition, number in found}


async def look(
    reach: Reach, replayed: Sequence[Replayed], discarded: Mapping[int, int]
) -> list[Fate]:
    """What became of them, of those whose partition answers.

    Args:
        reach: where they are.
        replayed: which.
        discarded: what `discards` said before they were queued. Whoever discards one has it marked
            as handled: so where that has happened, a mark that tells nothing proves nothing.
    """
    by_number: dict[int, list[Replayed]] = {}
    for each in replayed:
        by_number.setdefault(each.partition, []).append(each)

    async def look_in(partition: Partition) -> list[Fate]:
        here, names = by_number[partition.number], partition.names
        async with partition.redis.pipeline(transaction=False) as pipe:
            for each in here:
                job = raw_name(each.job)
                pipe.exists(names.job.encode() + job)
                pipe.execute_command("HGET", names.claims, job)
                record = names.dead_letter_prefix.encode() + job
                pipe.execute_command("HMGET", record, "died_at", "reason", "error", "group")
                mark = names.event(each.organization, each.event_id)
                pipe.execute_command("GET", mark.encode(errors="replace"))
            pipe.hget(names.counters, _DISCARDED)
            *answers, number = await pipe.execute(raise_on_error=False)
        are_marks_proof = int(number or 0) == discarded.get(partition.number)
        return [
            _fate(each, partition, answers[n : n + _ANSWERS], are_marks_proof=are_marks_proof)
            for each, n in zip(here, range(0, len(answers), _ANSWERS), strict=True)
        ]

    among = [reach.partitions.all[number] for number in by_number]
    told_of = [fate for _, found in await reach.gather(look_in, among) for fate in found]
    return [await _elsewhere(reach, each) if each.became == "gone" else each for each in told_of]


async def _elsewhere(reach: Reach, fate: Fate) -> Fate:
    """Of one that isn't there any more: it is to be looked for where it has moved to."""
    job = await reach.name_now(fate.of.job)
    there = None if job == fate.of.job else reach.partitions.bearing(job)
    if there is None:
        return fate
    return Fate(replace(fate.of, job=job, partition=there.number), "waiting")


def _fate(
    each: Replayed, partition: Partition, answers: Sequence[Any], *, are_marks_proof: bool
) -> Fate:
    waits, claim, record, mark = answers  # as they were asked for
    for answer in (waits, claim, record):
        if isinstance(answer, Exception):
            raise answer
    if waits:
        attempts = (claim or b"").split(b":")[1:2]
        return Fate(each, "waiting", attempts=int(attempts[0]) if attempts else 0)
    died_at, reason, error, group = ((value or b"").decode(errors="replace") for value in record)
    if died_at and int(float(died_at)) != each.died_at:
        cause = cause_of(reason, "", error, "").error[:_LONGEST]
        why = ": ".join(filter(None, (reason, cause)))
        return Fate(each, "died_again", why=why, is_same=each.group == group != "")
    state, _, named = (mark if isinstance(mark, bytes) else b"").partition(b":")
    holder = partition.names.from_mark(named.decode(errors="surrogateescape"))
    if state == b"pending" or (state == b"dead" and holder != each.job):
        # A redelivery has it now, in other bytes perhaps.
        return Fate(replace(each, job=holder), "waiting")
    if state != b"done" or not each.event_id or died_at:
        return Fate(each, "gone")
    _, how, _ = told.read(named)
    if how is not None:
        return Fate(each, how.end)
    return Fate(each, "handled" if are_marks_proof else "gone")


def _id_in(body: bytes) -> str:
    try:
        return envelope.decode(body).id
    except EnvelopeError:
        return ""
