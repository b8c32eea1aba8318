"""Gives dead letters another life, at a pace, or gives them up for good."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from time import monotonic

from redis.asyncio import Redis

from shared import keys, scripts
from worker.dead_letters import DeadLetter

_REPLAY = scripts.load("replay", allow_oom=False)
_DISCARD = scripts.load("discard")
_EXPIRE = scripts.load("expire")

FAILURES_IN_A_ROW = 10
"""Replays that died again, one after another, before the rest is left alone."""

_TICK = 0.02
_EXPIRED_AT_ONCE = 256


@dataclass(slots=True)
class Progress:
    """How far a replay has come.

    Attributes:
        queued: given another life.
        known: waiting already, so left as they are.
        absent: gone since they were listed.
        unprovable: skipped, since only ``force`` runs them.
        died_again: of those queued, as far as is known.
        stopped: whether it stopped by itself, since replays kept dying.
    """

    queued: int = 0
    known: int = 0
    absent: int = 0
    unprovable: int = 0
    died_again: int = 0
    stopped: bool = False

    @property
    def seen(self) -> int:
        """How many dead letters have been looked at."""
        return self.queued + self.known + self.absent + self.unprovable


@dataclass(slots=True)
class Replay:
    """One run over a selection of dead letters.

    It can be interrupted anywhere and run again: each dead letter is moved in one step, and one
    that waits already is left alone.

    Attributes:
        redis: where they are.
        rate: dead letters a second.
        force: whether to run the unprovable ones, too.
        told: called with the progress.
    """

    redis: Redis
    rate: float
    force: bool = False
    told: Callable[[Progress], None] = lambda _: None
    progress: Progress = field(default_factory=Progress)
    _out: deque[DeadLetter] = field(default_factory=deque)
    _row: int = 0

    async def run(self, letters: AsyncIterator[DeadLetter]) -> Progress:
        """Replay them, oldest first, no faster than the rate."""
        started = monotonic()
        allowed = 1.0
        async for letter in letters:
            while allowed < 1:
                await self._look_back()
                if self.progress.stopped:
                    return self.progress
                await asyncio.sleep(_TICK)
                allowed = (monotonic() - started) * self.rate - self.progress.queued
            if await self._one(letter):
                allowed -= 1
            self.told(self.progress)
        return self.progress

    async def _one(self, letter: DeadLetter) -> bool:
        """Replay one; whether it counts for the rate."""
        if letter.reason == "unprovable" and not self.force:
            self.progress.unprovable += 1
            return False
        answer = await replay_one(self.redis, letter.job)
        setattr(self.progress, answer, getattr(self.progress, answer) + 1)
        if answer == "queued":
            self._out.append(letter)
        return answer == "queued"

    async def _look_back(self) -> None:
        """See what has become of those that are out, in their order."""
        while self._out:
            letter = self._out[0]
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.exists(keys.payload(letter.job))
                pipe.hget(keys.dead_letter(letter.job), "died_at")
                waits, died_at = await pipe.execute()
            if waits:
                return
            self._out.popleft()
            died_again = died_at is not None and float(died_at) > letter.died_at
            self.progress.died_again += died_again
            self._row = self._row + 1 if died_again else 0
            self.progress.stopped = self._row >= FAILURES_IN_A_ROW
            if self.progress.stopped:
                return


async def replay_one(redis: Redis, job: str) -> str:
    """Give one dead letter another life: ``queued``, ``known`` or ``absent``."""
    answer: bytes = await _REPLAY(redis, job.encode(errors="surrogateescape"))
    return answer.decode()


async def discard(redis: Redis, job: str, *, retention: float) -> bool:
    """Give one up for good; whether it was there.

    Args:
        redis: where it is.
        job: its id.
        retention: seconds for which a redelivery of it counts as handled.
    """
    answer = await _DISCARD(redis, job.encode(errors="surrogateescape"), round(retention * 1000))
    return bool(answer == b"discarded")


async def expire(redis: Redis, organization: str, *, died_before: int) -> int:
    """Remove an organization's dead letters that died before; how many went.

    Args:
        redis: where they are.
        organization: whose.
        died_before: epoch milliseconds.
    """
    gone = 0
    while True:
        removed = int(await _EXPIRE(redis, organization, died_before, _EXPIRED_AT_ONCE))
        gone += removed
        if removed < _EXPIRED_AT_ONCE:
            return gone
