"""Gives dead letters another life, at a pace, or gives them up for good."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Any, Final

import msgspec

from shared.queue import scripts
from shared.queue.partition import Partition
from shared.queue.reach import Reach
from shared.redis.connection import REDIS_ERRORS
from shared.redis.wire import Argument, Script
from worker.operate import dead_letters, fates
from worker.operate.dead_letters import DeadLetter, raw_name
from worker.operate.fates import Fate, Replayed

# Alone of the three it puts something in line, for which a full Redis has no room.
_REPLAY = scripts.load("replay", allow_oom=False)
_DISCARD = scripts.load("discard")
_EXPIRE = scripts.load("expire")

LEFT_ALONE: Final = ("unprovable", "unusable", "moved")
"""The counts of those that nothing was done to, which come by again where it is begun once more."""

FAILURES_IN_A_ROW = 10
"""Replays that died again, one after another, before the rest is left alone."""

_AT_ONCE: Final = 64
"""Dead letters of one round trip: one each would be fifty a second where Redis is 20 ms away."""

_BYTES_AT_ONCE: Final = 1 << 20
"""Of their payloads: Redis serves nobody else meanwhile."""

_TICK = 0.02
_LOOK_EVERY = 0.1
_LOOKED_AT_ONCE = 256
_CATCH_UP = 1.0  # seconds of the rate that may be made up for after Redis has kept it waiting
_EXPIRED_AT_ONCE = 256
LONGEST_NAME: Final = 60
"""Characters of who has replayed something."""

_MOST_DEATHS: Final = 100  # kinds of them that are told apart; no two texts need be alike


class Progress(msgspec.Struct, omit_defaults=True):
    """How far a replay has come.

    Attributes:
        queued: given another life.
        known: waiting already, by a redelivery or a replay; what becomes of them is told alike.
        absent: gone since they were listed.
        unprovable: skipped, since only ``force`` runs them.
        unusable: skipped, since their payload was lost or changed.
        moved: left alone, since their organization is on its way to another partition.
        died_again: of those queued or known, as far as is known; so are all below.
        handled: as a mark proves.
        ignored: since no handler is to have its type.
        superseded: a newer event of its kind stands for it.
        discarded: by somebody, meanwhile.
        gone: none of these: expired meanwhile, say, or discarded while a live worker was of an
            earlier version.
        untold: in a partition that doesn't answer any more.
        unfollowed: queued by somebody who has gone before it was known of them.
        retried: of those that wait still, how many have had an attempt already.
        same: of those that died again, how many of what they had died of before.
        deaths: of what they died again.
        stopped: whether it stopped by itself, since replays kept dying.
        is_awaited: whether somebody has waited for what became of them.
    """

    queued: int = 0
    known: int = 0
    absent: int = 0
    unprovable: int = 0
    unusable: int = 0
    moved: int = 0
    died_again: int = 0
    handled: int = 0
    ignored: int = 0
    superseded: int = 0
    discarded: int = 0
    gone: int = 0
    untold: int = 0
    unfollowed: int = 0
    retried: int = 0
    same: int = 0
    deaths: dict[str, int] = {}
    stopped: bool = False
    is_awaited: bool = False

    @property
    def followed(self) -> int:
        """How many will be judged anew, whoever has put them in line."""
        return self.queued + self.known

    @property
    def known_fates(self) -> int:
        """Of how many it is known what became of them."""
        left_aside = self.ignored + self.superseded + self.discarded
        return self.handled + self.died_again + left_aside + self.gone

    @property
    def waiting(self) -> int:
        """How many wait still, as far as is known."""
        return self.followed - self.known_fates - self.untold - self.unfollowed

    @property
    def sentence(self) -> str:
        """What became of them, as far as is known, such as ``5 replayed: 5 handled``."""
        told = [f"{self.handled:,} handled"] if self.handled else []
        if self.died_again:
            ((text, number),) = self.often(1) or [("", 0)]
            such_as = "such as " if number < self.died_again else ""
            told.append(
                f"{self.died_again:,} dead again{self.cause}" + f" ({such_as}{text})" * bool(text)
            )
        if self.waiting and self.is_awaited:
            retried = f", {self.retried:,} of them for another attempt" if self.retried else ""
            told.append(f"{self.waiting:,} waiting still{retried}")
        told += [f"{self.ignored:,} ignored on purpose"] if self.ignored else []
        told += [f"{self.superseded:,} superseded by newer ones"] if self.superseded else []
        told += [f"{self.discarded:,} discarded meanwhile"] if self.discarded else []
        told += [f"{self.gone:,} gone, nobody knows how"] if self.gone else []
        told += [f"{self.untold:,} in a partition that can't be read"] if self.untold else []
        told += [f"{self.unfollowed:,} that nobody followed"] if self.unfollowed else []
        known = f", {self.known:,} waiting already" if self.known else ""
        return f"{self.queued:,} replayed{known}" + (f": {', '.join(told)}" if told else "")

    @property
    def cause(self) -> str:
        """Whether those that died again have died of what they had died of before."""
        causes = "causes" if len(self.deaths) > 1 else "cause"
        if self.same and self.same == self.died_again:
            return f" of the same {causes}"
        return f", {self.same:,} of them of the same {causes}" if self.same else ""

    def often(self, most: int) -> list[tuple[str, int]]:
        """Of what most died again, with how many."""
        return sorted(self.deaths.items(), key=lambda each: -each[1])[:most]

    @property
    def seen(self) -> int:
        """How many dead letters have been looked at."""
        left_alone = self.unprovable + self.unusable + self.moved
        return self.queued + self.known + self.absent + left_alone


class Since(msgspec.Struct, frozen=True):
    """What was so when a run began.

    Attributes:
        began: when that was, by each partition's clock, epoch milliseconds.
        discards: how many dead letters had ever been discarded, by partition.
    """

    began: dict[int, int]
    discards: dict[int, int]


async def since(reach: Reach, before: Since | None = None) -> Since:
    """What is so now, where it isn't known of before.

    Of a partition that was away then, nothing is meant either that has died after it began.
    """
    moments = await reach.gather(dead_letters.now)
    known = before or Since({}, {})
    began = {
        partition.number: min([moment, max(known.began.values(), default=moment)])
        for partition, moment in moments
    }
    return Since(began | known.began, await fates.discards(reach) | known.discards)


async def died_before(
    since: Since, letters: AsyncIterator[DeadLetter]
) -> AsyncIterator[DeadLetter]:
    """Those that haven't died since: what has died again comes by once more."""
    latest = max(since.began.values(), default=0)  # of a partition that was away then
    async for letter in letters:
        if letter.died_at <= since.began.get(letter.partition, latest):
            yield letter


@dataclass(slots=True)
class Pace:
    """Says how early it is for the next one.

    Attributes:
        rate: a second.
        due: when the next one is due, on the clock that ``early`` is told.
    """

    rate: float
    due: float

    def early(self, now: float) -> float:
        """Seconds until the next one is due; less than nothing when it is late."""
        self.due = max(self.due, now - _CATCH_UP)
        return self.due - now

    def went(self, number: int = 1) -> None:
        """So many more have gone; less than none: fewer than was said."""
        self.due += number / self.rate


@dataclass(slots=True)
class Replay:
    """One run over a selection of dead letters.

    It can be interrupted anywhere and run again: each dead letter is moved in one step, and one
    that waits already keeps its place.

    Attributes:
        reach: where they are.
        rate: dead letters a second, of all partitions together.
        force: whether to run the unprovable ones, too.
        who: replays them, where somebody says so.
        told: called with how many have been looked at.
        progress: how far it has come.
        since: what was so when it began; asked for where nobody says it.
        is_again: whether somebody has begun it before: what waits by a replay is left out then.
        out: those that are in line, of which it isn't known yet what became of them.
    """

    reach: Reach
    rate: float
    force: bool = False
    who: str = ""
    told: Callable[[int], None] = lambda _: None
    progress: Progress = field(default_factory=Progress)
    since: Since | None = None
    is_again: bool = False
    out: deque[Replayed] = field(default_factory=deque)
    _row: int = 0
    _looked: float = field(default_factory=monotonic)

    async def run(self, letters: AsyncIterator[DeadLetter]) -> Progress:
        """Replay them, oldest first, no faster than the rate, each once."""
        self.since = self.since or await since(self.reach)
        batch, pace = Batch(), Pace(self.rate, due=monotonic())
        async for letter in died_before(self.since, letters):
            if self.is_again and letter.by_hand:
                continue
            if left_alone := why_left_alone(letter, force=self.force):
                self._count(left_alone)
                continue
            if pace.early(monotonic()) > 0 or batch.is_full:
                await self._send(batch, pace)
            if (early := pace.early(monotonic())) > 0:
                # Some at a time: a sleep before each would be too coarse for a thousand a second.
                await asyncio.sleep(max(early, _TICK))
            if monotonic() - self._looked > _LOOK_EVERY:
                await self._look_back()
                self.progress.stopped = self._row >= FAILURES_IN_A_ROW
            if self.progress.stopped:
                return self.progress
            batch.add(letter)
            pace.went()
        await self._send(batch, pace)
        return self.progress

    async def _send(self, batch: "Batch", pace: Pace) -> None:
        """Replay a batch; who doesn't get another life doesn't count for the rate."""

        def count(letter: DeadLetter, answer: bytes) -> None:
            if answer in {b"queued", b"known"}:
                self.out.append(Replayed.of(letter))
            if answer != b"queued":
                pace.went(-1)
            self._count(answer.decode())

        await _to_its_end(batch.send(self.reach, _REPLAY, (self.who[:LONGEST_NAME],), count))

    def _count(self, answer: str) -> None:
        # The answers are named as the fields are.
        setattr(self.progress, answer, getattr(self.progress, answer) + 1)
        self.told(self.progress.seen)

    async def wait(self, seconds: float, told: Callable[[int], None] = lambda _: None) -> None:
        """Wait until it is known what has become of each that is in line, for so long at most.

        Args:
            seconds: without any, nobody looks.
            told: called with how many it is known of.
        """
        until = monotonic() + seconds
        self.progress.is_awaited = seconds > 0
        while self.out and monotonic() < until:
            self.progress.retried = 0
            for _ in range(0, len(self.out), _LOOKED_AT_ONCE):
                await self._look_back()
                told(self.progress.known_fates)
            if self.out:
                await asyncio.sleep(_LOOK_EVERY)

    async def _look_back(self) -> None:
        """See what has become of those that are out; who waits still is asked another time."""
        looked_at = list(islice(self.out, _LOOKED_AT_ONCE))
        found = await fates.look(self.reach, looked_at, self.since.discards if self.since else {})
        # Only now: whoever keeps this run, or ends it, meanwhile, is to find them still.
        for _ in looked_at:
            self.out.popleft()
        self.progress.untold += len(looked_at) - len(found)
        for fate in found:
            self._take_note(fate)
        self._looked = monotonic()

    def _take_note(self, fate: Fate) -> None:
        progress = self.progress
        if fate.became == "waiting":
            self.out.append(fate.of)
            # Before that, only some are asked at a time.
            progress.retried += fate.attempts > 0 and progress.is_awaited
            return
        setattr(progress, fate.became, getattr(progress, fate.became) + 1)
        progress.same += fate.is_same
        self._row = self._row + 1 if fate.became == "died_again" else 0
        if fate.why and (fate.why in progress.deaths or len(progress.deaths) < _MOST_DEATHS):
            progress.deaths[fate.why] = progress.deaths.get(fate.why, 0) + 1


def _by_partition(letters: list[DeadLetter]) -> dict[int, list[DeadLetter]]:
    found: dict[int, list[DeadLetter]] = {}
    for letter in letters:
        found.setdefault(letter.partition, []).append(letter)
    return found


class Batch:
    """Dead letters that are acted on in one round trip to each partition."""

    def __init__(self) -> None:
        self._letters: list[DeadLetter] = []
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether it is to be sent before more is added."""
        return len(self._letters) >= _AT_ONCE or self._bytes >= _BYTES_AT_ONCE

    def add(self, letter: DeadLetter) -> None:
        """Take one in."""
        self._letters.append(letter)
        self._bytes += len(letter.payload)

    async def send(
        self,
        reach: Reach,
        script: Script,
        details: tuple[Argument, ...],
        tell: Callable[[DeadLetter, bytes], None],
    ) -> None:
        """Run a script for each job, and empty the batch.

        Args:
            reach: where.
            script: which; its first argument is the job.
            details: its other arguments.
            tell: told each answer.

        Raises:
            redis.exceptions.RedisError: one was refused, once the others are told, and no other
                partition is left.
        """
        by_number = _by_partition(self._letters)
        self._letters, self._bytes = [], 0

        async def send_to(partition: Partition) -> None:
            letters = by_number[partition.number]
            calls = [(raw_name(each.job), *details) for each in letters]
            answers = await partition.script(script).run_each(partition.redis, calls)
            failed = [answer for answer in answers if isinstance(answer, Exception)]
            for letter, answer in zip(letters, answers, strict=True):
                if not isinstance(answer, Exception):
                    tell(letter, answer)
            if failed:
                raise failed[0]

        among = [reach.partitions.all[number] for number in by_number]
        await reach.gather(send_to, among, doing="written")


async def _to_its_end(step: Coroutine[Any, Any, None]) -> None:
    """Do what happens in Redis whoever is interrupted, so that it is counted."""
    task = asyncio.create_task(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(*REDIS_ERRORS):
            await task
        raise


def why_left_alone(letter: DeadLetter, *, force: bool) -> str:
    """Why one isn't replayed: ``unprovable`` without force, ``unusable``; empty: it is."""
    if letter.reason == "unprovable" and not force:
        return "unprovable"
    return "" if letter.is_usable else "unusable"


async def revive(partition: Partition, letter: DeadLetter, *, force: bool, who: str = "") -> str:
    """Like `replay_one`, or why it is left alone."""
    return why_left_alone(letter, force=force) or await replay_one(partition, letter.job, who)


async def replay_one(partition: Partition, job: str, who: str = "") -> str:
    """Give one dead letter another life: ``queued``, ``known`` or ``absent``; or ``moved``.

    One that is known waits already, as a redelivery perhaps, and isn't held any more.

    Args:
        partition: where it is.
        job: its id.
        who: replays it, where somebody says so.
    """
    answer: bytes = await partition.run(_REPLAY, raw_name(job), who[:LONGEST_NAME])
    return answer.decode()


async def discard(partition: Partition, job: str, *, retention: float) -> str:
    """Give one up for good: ``discarded``, ``absent``, or ``moved`` while it is on its way.

    Args:
        partition: where it is.
        job: its id.
        retention: seconds for which a redelivery of it counts as handled.
    """
    answer: bytes = await partition.run(_DISCARD, raw_name(job), round(retention * 1000))
    return answer.decode()


async def discard_all(
    reach: Reach,
    letters: AsyncIterator[DeadLetter],
    *,
    retention: float,
    told: Callable[[], None] = lambda: None,
    left: Callable[[], None] = lambda: None,
) -> None:
    """Give dead letters up for good; what is interrupted is told of all that it has done.

    Args:
        reach: where they are.
        letters: which.
        retention: seconds for which a redelivery of one counts as handled.
        told: called for each that was there.
        left: called for each that is on its way to another partition.
    """
    batch, details = Batch(), (round(retention * 1000),)

    def tell(letter: DeadLetter, answer: bytes) -> None:
        del letter
        if answer == b"discarded":
            told()
        elif answer == b"moved":
            left()

    async for letter in letters:
        if batch.is_full:
            await _to_its_end(batch.send(reach, _DISCARD, details, tell))
        batch.add(letter)
    await _to_its_end(batch.send(reach, _DISCARD, details, tell))


async def expire(partition: Partition, organization: str, *, died_before: int) -> int:
    """Remove an organization's dead letters that died before; how many went.

    Args:
        partition: where they are.
        organization: whose.
        died_before: epoch milliseconds.
    """
    gone = stays = 0
    while True:
        told = (organization, died_before, stays, _EXPIRED_AT_ONCE)
        looked_at, went = map(int, await partition.run(_EXPIRE, *told))
        gone, stays = gone + went, stays + looked_at - went
        if looked_at < _EXPIRED_AT_ONCE:
            return gone
