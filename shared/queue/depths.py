"""How many unfinished events there are, by where they are, read without scanning the events."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from redis.asyncio.client import Pipeline

from shared.queue import hashes, keys
from shared.queue.keys import Names
from shared.queue.partition import Partition

QUESTIONS: Final = 5
"""Answers that `told` takes."""


class Depths(msgspec.Struct, frozen=True):
    """The unfinished events at one moment.

    Attributes:
        at: Redis's time, seconds since the epoch.
        waiting: accepted events that are not finished.
        queued: of these, in line for a worker.
        leased: of these, those that a worker has.
        deferred: of these, not due yet.
        parked: of these, held back by their organization's cap, pause, breaker or own system.
        oldest_seconds: age of the oldest of them; ``None`` without one.
        in_turn: of these, those for whose key, or value, it is another's turn.
    """

    at: float
    waiting: int
    queued: int
    leased: int
    deferred: int
    parked: int
    oldest_seconds: float | None
    in_turn: int = 0


def ask(pipe: Pipeline, names: Names) -> None:
    """Put the questions into a pipeline."""
    pipe.time()
    pipe.zcard(names.accepted)
    pipe.zrange(names.accepted, 0, 0, withscores=True)
    pipe.zcount(names.queue, "-inf", f"({keys.DEFERRED_FROM}")
    pipe.zcount(names.queue, keys.DEFERRED_FROM, "+inf")


async def read_rest(partition: Partition) -> tuple[int, int]:
    """How many are leased, and how many wait for their turn, for `told`.

    Raises: what redis-py raises.
    """
    redis, names = partition.redis, partition.names
    return await hashes.total(redis, names.running), await hashes.total(redis, names.in_turn)


def told(answers: Sequence[Any], leased: int, in_turn: int) -> Depths:
    """What the answers to them say, beside the sums of what organizations have of each."""
    now, waiting, oldest, queued, scheduled = answers
    at = now[0] + now[1] / 1e6
    return Depths(
        at=at,
        waiting=waiting,
        queued=queued,
        leased=leased,
        # Not one moment: a job may move between two of the answers.
        deferred=max(0, scheduled - leased),
        parked=max(0, waiting - queued - scheduled - in_turn),
        oldest_seconds=max(0.0, at - oldest[0][1] / 1000) if oldest else None,
        in_turn=in_turn,
    )


def together(several: Sequence[Depths]) -> Depths:
    """Those of some partitions, at least one; an age is by the clock of each one's own Redis."""
    if len(several) == 1:
        return several[0]
    ages = [each.oldest_seconds for each in several if each.oldest_seconds is not None]
    sums = {
        name: sum(getattr(each, name) for each in several)
        for name in ("waiting", "queued", "leased", "deferred", "parked", "in_turn")
    }
    return Depths(
        at=max(each.at for each in several), oldest_seconds=max(ages, default=None), **sums
    )


def numbers(raw: Mapping[bytes, bytes]) -> dict[str, int]:
    """A hash of numbers, by name in order."""
    return {name.decode(errors="replace"): int(value) for name, value in sorted(raw.items())}
