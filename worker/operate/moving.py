"""Moves an organization to another partition while events come in."""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any, Final

from shared.queue import scripts
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.redis.connection import REDIS_ERRORS
from shared.redis.durability import is_kept, life_of
from shared.redis.wire import Argument, Script
from worker.operate.belongings import Belongings, Copies, Record, chunks, of_size
from worker.operate.ways import MoveError, OnItsWayError, Way, find_way

_ARRIVE = scripts.load("arrive")
_CLEAR = scripts.load("clear")
_DEPART = scripts.load("depart")
_HALT = scripts.load("halt")
_JOIN = scripts.load("join")
_OPEN = scripts.load("open")
_VACATE = scripts.load("vacate")

_FEW: Final = 1000
"""Marks that may be left to copy while events wait."""

_MOST_PASSES: Final = 5
_CLEARED_AT_ONCE: Final = 200
_KEPT_WITHIN: Final = 2.0
"""Seconds that a disk, or a replica, has at a time."""

_LOOK: Final = 0.01
_REST: Final = 0.5
"""Seconds in which events go on before they wait again."""


@dataclass(frozen=True, slots=True)
class Patience:
    """What a move may take, in seconds.

    Attributes:
        drain: for how long events wait at a time for handlers that run to end.
        all_in_all: for how long that is tried again.
        lock: after how long without a sign of life another mover may go on with it.
    """

    drain: float = 0.5
    all_in_all: float = 60.0
    lock: float = 10.0


@dataclass(slots=True)
class Progress:
    """How far a move has come.

    Attributes:
        source: the number of the partition that it leaves.
        target: that of the one to which it goes.
        marks: of done events, copied while others were handled still.
        events: unfinished ones that have gone there.
        letters: dead ones.
        values: of its state, and marks and counts of revivals that were copied last.
        held: seconds for which its events waited.
        step: what is done now.
    """

    source: int = -1
    target: int = -1
    marks: int = 0
    events: int = 0
    letters: int = 0
    values: int = 0
    held: float = 0.0
    step: str = ""


@dataclass(slots=True)
class Move:
    """One organization's move. Where one is ended, whenever that is, the next one goes on.

    All that there is of it is copied, and nothing goes from where it was before everything is where
    it goes to. Between its halt and its arrival Redis holds its events: a mover that has died has
    them wait, and loses none.

    Attributes:
        partitions: all of them.
        organization: whose.
        target: where to.
        patience: how long it may take.
        told: called when a step begins, and now and then in it.
        before: a single queue where it is unless it has left that, under the number `BEFORE`.
        progress: how far it has come.
    """

    partitions: Partitions
    organization: str
    target: Partition
    patience: Patience = Patience()
    told: Callable[[Progress], None] = lambda _: None
    before: Partition | None = None
    progress: Progress = field(default_factory=Progress)
    _here: Belongings = field(init=False)
    _there: Belongings = field(init=False)
    _token: str = field(default_factory=lambda: secrets.token_hex(8))
    _renewed: float = 0.0
    _held_since: float = 0.0
    _jobs: dict[bytes, None] = field(default_factory=dict)
    _order: float = 0.0
    _told: int = 0
    _life: str = ""
    _copies: Copies = field(init=False)

    async def run(self) -> Progress:
        """Move it; returns once it lives there, and nothing of it is left elsewhere.

        Raises:
            MoveError: it can't be moved now. What has begun goes on with the next run.
        """
        self.progress.source = self.progress.target = self.target.number
        while way := await self._find_way():
            if await self._is_over(way):
                break
        return self.progress

    async def _is_over(self, way: Way) -> bool:
        """Do what is to be done, unless another mover has by the time that it may begin."""
        self._here = Belongings(way.source, self.organization)
        self._there = Belongings(way.target, self.organization)
        self._copies = Copies(self._here, self._there)
        await self._lock()
        try:
            if await self._find_way() == way:
                await self._go(way)
                return not way.has_arrived
            await self._ask_halt("leave")
        except BaseException:
            # So that the next one needn't wait until it is known that nobody is there.
            with suppress(*REDIS_ERRORS):
                await self._ask_halt("leave")
            raise
        finally:
            await self._copies.close()
        return False

    async def _go(self, way: Way) -> None:
        if way.has_arrived:
            await self._clear()
            return
        self.progress.source = way.source.number
        if not way.has_begun:
            await self._prepare()
            await self._halt()
        self._held_since = self._held_since or monotonic()
        has_departed = await self._has_departed()
        if not has_departed:
            await self._depart()
        if not has_departed or await self._open():
            await self._carry()
        await self._clear()

    async def _find_way(self) -> Way | None:
        return await find_way(self.partitions, self.before, self.organization, self.target)

    async def _has_departed(self) -> bool:
        return bool(await self._here.field(self._here.partition.names.moved))

    # Whose move it is

    async def _lock(self) -> None:
        """Have it to oneself, once another mover is done, or gone."""
        until = monotonic() + 2 * self.patience.lock
        while (answer := await self._ask_halt("take"))[0] == b"taken":
            if monotonic() > until:
                raise MoveError(f"another mover has {self.organization}")
            self._tell("waiting for another mover")
            await asyncio.sleep(min(answer[1] / 1000 + _LOOK, _REST))

    async def _ask_halt(self, how: str, *kept: bytes) -> list[Any]:
        """Ask ``halt.lua``; it renews the lock."""
        self._renewed = monotonic()
        lock, waits = round(self.patience.lock * 1000), round((self.patience.drain + 2) * 1000)
        target = self._there.partition.number
        answer: list[Any] = await self._here.partition.run(
            _HALT, self.organization, self._token, lock, target, how, waits, *kept
        )
        if answer[0] == b"to":
            raise OnItsWayError(self.organization, answer[1])
        return answer

    async def _still(self, step: str) -> None:
        """Say what is done, and that somebody does it."""
        self._tell(step)
        if monotonic() - self._renewed > self.patience.lock / 3:
            self._check_mine((await self._ask_halt("keep"))[0])
            await self._copies.note_changes()  # Redis keeps for so long what nobody reads

    def _check_mine(self, answer: bytes) -> None:
        if answer in {b"lost", b"taken"}:
            raise MoveError(f"another mover has taken {self.organization} over")

    def _tell(self, step: str) -> None:
        self.progress.step = step
        self.told(self.progress)

    # While its events are handled

    async def _prepare(self) -> None:
        """Copy what changes no more, again while much of it is new; and find its jobs."""
        self._life = await life_of(self._there.partition.redis)
        await self._copies.watch()
        for _ in range(_MOST_PASSES):
            new = 0
            async for number in self._copies.add():
                new += number
                self.progress.marks = self._copies.number
                await self._still("copying marks")
            if new <= _FEW:
                break
        await self._keep_both(self._here, self._there)  # before any event waits for it
        # Its order rises strictly: what is accepted from here on stands behind it.
        self._order = float(await self._here.field(self._here.partition.names.flows, "order:") or 0)
        await self._find_jobs()

    async def _find_jobs(self) -> None:
        async for jobs in self._here.jobs():
            self._jobs |= dict.fromkeys(jobs)
            await self._still("looking for its events")

    async def _find_later_jobs(self) -> None:
        if self._order:
            async for jobs in self._here.jobs_since(self._order):
                self._jobs |= dict.fromkeys(jobs)

    async def _halt(self) -> None:
        """Have its events wait until those that are handled have ended."""
        until = monotonic() + self.patience.all_in_all
        while not await self._is_drained():
            _, leased, *_ = await self._ask_halt("go on")
            if monotonic() > until:
                raise MoveError(
                    f"{leased or 'some'} of its events are handled for longer than "
                    f"{self.patience.drain:g} s: nothing has moved (see --drain)"
                )
            self._tell("waiting for its handlers to end")
            await asyncio.sleep(_REST)

    async def _is_drained(self) -> bool:
        self._held_since = monotonic()
        kept: list[bytes] = []
        self._check_mine((await self._ask_halt("wait"))[0])
        while True:
            word, leased, *_ = await self._ask_halt("stay", *kept)
            self._check_mine(word)
            if not leased or monotonic() - self._held_since > self.patience.drain:
                return not leased
            await asyncio.sleep(_LOOK)
            kept = await self._here.kept()

    # From here to there

    async def _depart(self) -> None:
        """Have the target expect it, and its deliveries go there from one moment on."""
        for tries in count():
            kept = await self._here.kept()
            word, leased, *times = await self._ask_halt("stay", *kept)
            self._check_mine(word)
            if leased:
                raise MoveError(
                    f"workers hold {leased} of its events again: run the same command again"
                )
            expected = await self._open(*times, tries)
            await self._check_copied()
            if not tries:
                await self._keep_both(self._there)
            answer = await self._here.partition.run(
                *(_DEPART, self.organization, self._token, self.target.number), *expected, *kept
            )
            self._check_mine(answer)
            if answer == b"gone":
                return

    async def _open(self, *times: Argument) -> list[bytes]:
        """What the target expects; nothing, where it has arrived there already."""
        source = self._here.partition.number
        answer: list[bytes] = await self.target.run(
            _OPEN, self.organization, self._token, source, *times
        )
        if answer[0] == b"way":
            raise MoveError(f"partition {self.target.number} knows of another move: {answer[1]!r}")
        self._told = 0
        return answer[1:]

    async def _check_copied(self) -> None:
        """End here where another server than the one to which marks were copied may have opened it.

        What one loses from here on it loses together with that, or with what comes later.
        """
        if self._life and await life_of(self._there.partition.redis) != self._life:
            raise self._lacks()

    def _lacks(self) -> MoveError:
        return MoveError(
            f"partition {self.target.number} has had a fail-over, or a restart, and may lack what "
            "has been copied there: run the same command again"
        )

    async def _carry(self) -> None:
        """Copy all that is left of it, and let it go on there."""
        await self._carry_jobs()
        async for letters in self._here.letters():
            await self._arrive(letters)
            self.progress.letters += len(letters)
            await self._still("copying dead letters")
        async for values in self._copies.left():
            await self._arrive([each.record for each in values])
            self.progress.values += len(values)
            await self._still("copying state and marks")
        said = await self._here.said()
        # Who has departed only in what that Redis has lost would go on in both.
        await self._keep_both(self._here)
        # Refused where its slot is on its way to another node: a look at names tells of no more
        # than are left.
        self._check_mine((await self._ask_halt("keep"))[0])
        if not await self._has_departed():
            raise MoveError("it has come back from where it has gone: run the same command again")
        await self._tell_target(_JOIN, *said)
        self.progress.held = monotonic() - self._held_since

    async def _keep_both(self, *written: Belongings) -> None:
        """Have what was written there survive a crash before the other server is told what follows.

        Of one server that isn't needed: what it loses is the last that it was told.
        """
        if self._here.partition.redis is not self._there.partition.redis:
            for each in written:
                await self._keep(each.partition)

    async def _keep(self, partition: Partition) -> None:
        """Go on once what has been written there survives a crash."""
        # One that doesn't matter, and is behind all of it.
        write = ("HINCRBY", partition.names.counters, "moves", 1)
        self._tell("waiting for the disk, or for replicas")
        until = monotonic() + self.patience.all_in_all
        while not await is_kept(partition.redis, write, _KEPT_WITHIN):
            if monotonic() > until:
                raise MoveError(
                    f"partition {partition.number} has it neither on its disk nor with its "
                    "replicas in time: run the same command again"
                )
            await self._still("waiting for the disk, or for replicas")

    async def _carry_jobs(self) -> None:
        carried = set[bytes]()
        # What was found while it was handled still, then what came later, then whatever is there.
        for look in (None, self._find_later_jobs, self._find_jobs):
            if look is not None:
                await look()
            new = [job for job in self._jobs if job not in carried]
            async for records in self._here.packed(new):
                await self._arrive(records)
                self.progress.events += len(records)
                await self._still("copying events")
            carried.update(new)
            waiting = await self._here.field(self._here.partition.names.waiting)
            if self.progress.events == int(waiting or 0):
                return

    async def _arrive(self, records: Iterable[Record]) -> None:
        turns = self._here.partition.names.turn
        for some in of_size(records):
            await self._tell_target(_ARRIVE, turns, *some)
            self._told += 1

    async def _tell_target(self, script: Script, *arguments: Argument) -> None:
        """Where it goes to, do what is done only where all is that has arrived there so far."""
        answer = await self.target.run(
            script, self.organization, self._token, self._told, *arguments
        )
        self._check_mine(answer)
        if answer == b"less":
            raise self._lacks()

    # What is left behind

    async def _clear(self) -> None:
        """Tell where it is by now, and take away what is where it was."""
        await self._keep(self._there.partition)
        if (await self._there.way()).startswith("in:"):
            raise MoveError(
                "what it has been told where it goes to is lost: run the same command again"
            )
        await self._point()
        async for jobs in self._here.jobs():
            await self._clear_all("job", jobs)
        dead = self._here.partition.names.dead(self.organization)
        while letters := await self._here.ask("ZRANGE", dead, 0, _CLEARED_AT_ONCE - 1):
            await self._clear_all("letter", letters)
        async for names in self._here.value_names():
            named = [self._here.named(each) for each in names]
            for kind in {kind for kind, _ in named}:
                await self._clear_all(kind, [rest for each, rest in named if each == kind])
        answer = await self._here.partition.run(_VACATE, self.organization, self._token)
        self._check_mine(answer)
        if answer == b"left":
            raise MoveError(
                f"{self.organization} has moved, but partition {self._here.partition.number} has "
                "events that a stock producer has put there since"
            )

    async def _clear_all(self, kind: str, names: Sequence[bytes]) -> None:
        for some in chunks(names, _CLEARED_AT_ONCE):
            pairs = [each for name in some for each in (kind, name)]
            answer = await self._here.partition.run(_CLEAR, self.organization, self._token, *pairs)
            self._check_mine(answer)
            await self._still("clearing away")

    async def _point(self) -> None:
        """Have all partitions in which it has lived say where it is, so that its way is short."""
        here, target = (
            self._here.partition,
            await self._here.field(self._here.partition.names.moved),
        )
        home = self.partitions.of(self.organization)
        for each in self.partitions:
            if str(each.number) == target or each is here:
                continue
            # One that is away leads to where it leads now: that is a step more.
            with suppress(*REDIS_ERRORS):
                known = Belongings(each, self.organization)
                if each is home or await known.field(each.names.moved):
                    await known.ask("HSET", each.names.moved, self.organization, target)
