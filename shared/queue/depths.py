"""How many unfinished events there are, by where they are, read without scanning anything."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from redis.asyncio.client import Pipeline

from shared.queue import keys
from shared.queue.keys import Names

QUESTIONS: Final = 7
"""Answers that `told` takes."""


class Depths(msgspec.Struct, frozen=True):
    """The unfinished events at one moment.

    Attributes:
        at: Redis's time, seconds since the epoch.
        waiting: accepted events that are not finished.
        queued: of these, in line for a worker.
        running: of these, leased by a worker, by organization.
        deferred: of these, not due yet.
        parked: of these, held back by their organization's cap, pause, breaker or own system.
        oldest_seconds: age of the oldest of them; ``None`` without one.
        in_turn: of these, waiting for their turn, by organization.
    """

    at: float
    waiting: int
    queued: int
    running: dict[str, int]
    deferred: int
    parked: int
    oldest_seconds: float | None
    in_turn: dict[str, int] = {}

    @property
    def leased(self) -> int:
        """Those that a worker has."""
        return sum(self.running.values())

    @property
    def waiting_for_turn(self) -> int:
        """Those for whose key, or value, it is another's turn."""
        return sum(self.in_turn.values())


def ask(pipe: Pipeline, names: Names) -> None:
    """Put the questions into a pipeline."""
    pipe.time()
    pipe.zcard(names.accepted)
    pipe.zrange(names.accepted, 0, 0, withscores=True)
    pipe.zcount(names.queue, "-inf", f"({keys.DEFERRED_FROM}")
    pipe.zcount(names.queue, keys.DEFERRED_FROM, "+inf")
    pipe.hgetall(names.running)
    pipe.hgetall(names.in_turn)


def told(answers: Sequence[Any]) -> Depths:
    """What the answers to them say."""
    now, waiting, oldest, queued, scheduled, *hashes = answers
    at, (running, in_turn) = now[0] + now[1] / 1e6, map(numbers, hashes)
    return Depths(
        at=at,
        waiting=waiting,
        queued=queued,
        running=running,
        # One round trip, but not one moment: a job may move between two of the answers.
        deferred=max(0, scheduled - sum(running.values())),
        parked=max(0, waiting - queued - scheduled - sum(in_turn.values())),
        oldest_seconds=max(0.0, at - oldest[0][1] / 1000) if oldest else None,
        in_turn=in_turn,
    )


def numbers(raw: Mapping[bytes, bytes]) -> dict[str, int]:
    """A hash of numbers, by name in order."""
    return {name.decode(errors="replace"): int(value) for name, value in sorted(raw.items())}
