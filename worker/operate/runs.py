"""Replays and discards of many dead letters: kept in Redis, so they go on whoever goes away.

What is kept is half a second old at most. Whoever takes a run up looks at its dead letters anew:
those that it has replayed are gone, or wait, or have died since it began.
"""

import asyncio
import re
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Any, Final, Literal, cast

import msgspec

from shared.display import json_line
from shared.errors import Unavailable
from shared.queue import scripts
from shared.queue.actions import Action, By, Told, record
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.queue.reach import Reach, sentences
from shared.redis.connection import REDIS_ERRORS, end, translate
from worker.operate import revival
from worker.operate.dead_letters import DeadLetter, Selection
from worker.operate.failure_groups import ID_PATTERN
from worker.operate.fates import PATIENCE, Replayed
from worker.operate.meant import oldest
from worker.operate.revival import Progress, Since

Verb = Literal["replay", "discard"]
State = Literal["running", "finished", "stopped", "failed", "interrupted"]
Level = Literal["info", "good", "warn", "bad"]
Begun = Literal["begun", "known", "held", "absent"]

HELD_SECONDS: Final = 10.0
"""Without a sign of life for so long, somebody else may go on with a run."""

_EVERY: Final = 0.5
"""Seconds between two of these."""

_KEPT: Final = 30
_KEPT_SECONDS: Final = 30 * 86_400
_MOST_JOBS: Final = 1000
"""Of a run of chosen ones, that are kept with it."""
_MOST_OUT: Final = 100
"""Of those of which nobody knows yet what became of them, that are kept with it."""
_MOST_DEATHS: Final = 10
_MOST_DRAWN: Final = 100
_GROUP: Final = re.compile(rf"\bgroup ({ID_PATTERN.pattern})")

_BEGIN: Final = scripts.load("begin")
_KEEP: Final = scripts.load("keep")
_STOP: Final = scripts.load("stop")


class Run(msgspec.Struct, omit_defaults=True):
    """One run.

    Attributes:
        verb: what it does.
        about: which dead letters, in words.
        who: began it.
        by: begun in the ``console``, or by a ``command``.
        address: from where.
        total: how many there were when it began; ``None`` where nobody has counted.
        rate: replays a second.
        force: whether it replays the unprovable ones, too.
        limit: it replays no more than so many, the oldest; ``None``: all.
        selection: which dead letters; ``None`` where they are too many to be kept, so that nobody
            can take it up.
        id: names it in an address.
        started: seconds since the epoch.
        ended: the same; ``None`` while it goes on.
        state: how it goes; ``interrupted`` where whoever went on with it has gone.
        note: why it ended, where it didn't finish.
        progress: how far a replay is.
        discarded: how far a discard is.
        since: what was so when it began.
        out: of those that it has queued, some of which it isn't known what became of them.
        taken_up: by whom it was taken up last, in a console.
        taken_up_from: from where.
        times: how often it has begun.
    """

    verb: Verb
    about: str
    who: str
    total: int | None = None
    by: By = "console"
    address: str = ""
    rate: float = 100.0
    force: bool = False
    limit: int | None = None
    selection: Selection | None = Selection()
    id: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(8))
    started: float = msgspec.field(default_factory=time.time)
    ended: float | None = None
    state: State = "running"
    note: str = ""
    progress: Progress = msgspec.field(default_factory=Progress)
    discarded: int = 0
    since: Since | None = None
    out: list[Replayed] = []
    taken_up: str = ""
    taken_up_from: str = ""
    times: int = 0

    @property
    def seen(self) -> int:
        """How many dead letters it has looked at."""
        return self.progress.seen if self.verb == "replay" else self.discarded

    @property
    def share(self) -> float | None:
        """How much of it is done, from 0 to 1, as far as is known."""
        if self.state == "finished":
            return 1.0
        return min(1.0, self.seen / self.total) if self.total else None

    @property
    def level(self) -> Level:
        """How good it is, as far as it has come: an end by itself is no success."""
        if self.state == "failed" or self._died_again_all:
            return "bad"
        if self.state in {"stopped", "interrupted"} or self.progress.died_again:
            return "warn"
        # What was left alone, or has gone nobody knows how, is no success either.
        done = self.discarded if self.verb == "discard" else self.progress.handled
        is_good = self.state == "finished" and 0 < done == self.seen + self.progress.moved
        return "good" if is_good else "info"

    @property
    def word(self) -> str:
        """How it stands, in a word or two."""
        if self.state != "finished" or not self.progress.died_again:
            return self.state
        return "died again" if self._died_again_all else "some died again"

    @property
    def outcome(self) -> str:
        """What has come of it, in a sentence without its end."""
        if self.verb == "discard":
            return f"{self.discarded:,} discarded"
        if self._died_again_all and not self.progress.known:
            number = self.progress.queued
            who = "it" if number == 1 else f"all {number:,}"
            return f"Replayed {number:,}: {who} died again{self.progress.cause}"
        return self.progress.sentence

    @property
    def group(self) -> str:
        """The failure group that it is about; empty where it is about none, or about several."""
        found = _GROUP.search(self.about)
        return found[1] if found else ""

    @property
    def can_be_taken_up(self) -> bool:
        """Whether somebody may go on with it, since it hasn't come to its end."""
        return self.selection is not None and self.state in {"stopped", "failed", "interrupted"}

    @property
    def _died_again_all(self) -> bool:
        return 0 < self.progress.died_again == self.progress.followed

    def kept(self) -> bytes:
        """What is kept of it."""
        progress, selection = self.progress, self.selection
        # Nobody goes on with one that has come to its end: what only that takes is left out.
        is_over = self.state == "finished"
        is_large = selection is not None and len(selection.jobs) > _MOST_JOBS
        kept = msgspec.structs.replace(
            self,
            progress=msgspec.structs.replace(progress, deaths=dict(progress.often(_MOST_DEATHS))),
            selection=None if is_over or is_large else selection,
            out=[] if is_over else self.out[:_MOST_OUT],
        )
        try:
            return msgspec.json.encode(kept)
        except UnicodeEncodeError:  # a stock producer's job ids may be any bytes
            return json_line(msgspec.structs.replace(kept, selection=None, out=[])).encode()

    def again(self, who: str, address: str = "") -> "Run":
        """The same as whoever takes it up goes on with it.

        Args:
            who: that is.
            address: from where.
        """
        progress, out = self.progress, self.out
        # These come by once more; those that wait are told by a mark on their record.
        progress = msgspec.structs.replace(
            progress, **dict.fromkeys(revival.LEFT_ALONE, 0), is_awaited=False, stopped=False
        )
        progress.unfollowed += max(0, progress.waiting - len(out))
        return msgspec.structs.replace(
            self,
            progress=progress,
            taken_up=who,
            taken_up_from=address,
            state="running",
            note="",
            ended=None,
        )


def new_id(reach: Reach) -> str:
    """An id for a run that isn't kept where Redis doesn't answer."""
    run_id = secrets.token_urlsafe(8)
    for _ in range(_MOST_DRAWN):
        if reach.partitions.of(run_id) in reach:
            break
        run_id = secrets.token_urlsafe(8)
    return run_id


async def read_all(reach: Reach) -> list[Run]:
    """Those that are kept, the newest first.

    Raises: what the client does, where no partition answers.
    """
    found = [run for _, some in await reach.gather(_read) for run in some]
    return sorted(found, key=attrgetter("started"), reverse=True)


async def find(partitions: Partitions, run_id: str) -> Run | None:
    """One by its id; raises what the client does."""
    found = await _read(partitions.of(run_id), run_id)
    return found[0] if found else None


async def ask_to_stop(partitions: Partitions, run: Run, who: str) -> None:
    """Ask whoever goes on with it to stop; raises what the client does."""
    await partitions.of(run.id).run(_STOP, run.id, who)


async def _read(partition: Partition, only: str = "") -> list[Run]:
    """Those that are kept in a partition, or one of them."""
    name, names = partition.names.runs, [only, f"{only}:hold"]
    async with partition.redis.pipeline(transaction=False) as pipe:
        pipe.time()
        if only:
            pipe.hmget(name, names)
        else:
            pipe.hgetall(name)
        (seconds, _), raw = await pipe.execute()
    fields = dict(zip(map(str.encode, names), raw, strict=True)) if only else raw
    found = []
    for field_, told in fields.items():
        hold = fields.get(field_ + b":hold")
        if hold and told:
            # A later version's, or somebody's hand's, is left out.
            with suppress(msgspec.MsgspecError, ValueError):
                found.append(_run(told, hold, int(seconds)))
    return found


def _run(told: bytes, hold: bytes, now: float) -> Run:
    run = msgspec.json.decode(told, type=Run)
    times, _, held_until, _ = hold.split(b":", 3)
    run.times = int(times)
    if run.state == "running" and int(held_until) / 1000 <= now:
        run.state = "interrupted"
    return run


@dataclass(slots=True)
class Going:
    """Goes on with a run, and keeps it meanwhile.

    Attributes:
        run: which.
        reach: where its dead letters are.
        told: logs how it ends.
        retention: seconds for which a discarded event counts as handled.
        patience: seconds for which a replay waits for what becomes of the last ones.
        replay: what it does, where it is one.
    """

    run: Run
    reach: Reach
    told: Told
    retention: float = 0.0
    patience: float = PATIENCE
    replay: revival.Replay | None = None
    _holder: str = field(default_factory=lambda: secrets.token_hex(8))
    _doing: "asyncio.Future[None] | None" = None
    _asked: str | None = None
    _is_mine: bool = False

    @property
    def _partition(self) -> Partition:
        return self.reach.partitions.of(self.run.id)

    async def begin(self) -> Begun:
        """Begin it, or take it up; only where that says ``begun`` it is to go on.

        Raises: what the client does.
        """
        run, held = self.run, round(HELD_SECONDS * 1000)
        # From the first moment on: what dies later isn't meant, whoever takes it up, and when.
        run.since = await revival.since(self.reach, run.since)
        told = (run.id, run.times, self._holder, held, run.kept(), _KEPT, _KEPT_SECONDS * 1000)
        answer: bytes = await self._partition.run(_BEGIN, *told)
        begun = cast("Begun", answer.decode())
        self._is_mine = begun == "begun"
        run.times += self._is_mine
        return begun

    async def to_its_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it to its end, or until somebody asks it to stop, and say how it ended.

        Where Redis hasn't taken its beginning, it is done all the same, and not kept.

        Raises: what the work does.
        """
        self._doing = asyncio.ensure_future(work)
        keeping = [asyncio.create_task(self._keep_forever(), name="keep run")]
        try:
            await self._doing
        except (*REDIS_ERRORS, Unavailable) as exc:
            self._end("failed", translate(exc).message)
            raise
        except asyncio.CancelledError:
            self._end(*self._cut_short())
            # By whoever waits for it; else it is this that has cut the work short.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
        except Exception:  # else it would go on for ever, in everybody's eyes
            self._end("failed", "the log says why")
            raise
        else:
            self._end(*self._outcome())
        finally:
            await end(keeping)
            with suppress(*REDIS_ERRORS):  # then nobody holds it in a moment
                await self._keep(0.0)
            await self._record_end()

    async def stop(self, who: str) -> None:
        """End it where it is; what it has done stays done."""
        self._asked = who
        await self._cancel()

    async def _cancel(self) -> None:
        if self._doing is not None:
            await end([self._doing])

    # What it does

    async def work(self) -> None:
        """Do it for all partitions that answer."""
        if self.run.verb == "discard":
            await self.discard(self.letters())
            return
        replay = await self.replaying()
        await replay.run(self.letters())
        # Only then is it known whether it was of any use.
        await replay.wait(self.patience)

    async def letters(self) -> AsyncIterator[DeadLetter]:
        """Those that are left to be done, as far as can be told before they are looked at."""
        run, selection = self.run, self.run.selection or Selection()
        is_again = run.times > 1
        if run.limit is not None:
            left = run.limit - run.progress.followed
            jobs = await oldest(self.reach, selection, left, force=run.force, is_again=is_again)
            run.total = run.total if is_again else len(jobs)
            if not jobs:  # a selection of no jobs means all
                return
            selection = Selection(jobs)
        if is_again:  # by then their organization may have moved
            selection = await selection.by_names_of_now(self.reach)
        async for letter in selection.letters(self.reach):
            yield letter

    async def replaying(self, told: Callable[[int], None] = lambda _: None) -> revival.Replay:
        """What replays them, where this run, or whoever had it before, has got to.

        Args:
            told: called with how many have been looked at.
        """
        run = self.run
        self.replay = revival.Replay(
            self.reach,
            run.rate,
            force=run.force,
            who=run.who,
            told=told,
            progress=run.progress,
            since=run.since,
            is_again=run.times > 1,
            out=deque(run.out),
        )
        return self.replay

    async def discard(
        self, letters: AsyncIterator[DeadLetter], told: Callable[[int], None] = lambda _: None
    ) -> None:
        """Discard them.

        Args:
            letters: which.
            told: called with how many have been.
        """
        run = self.run
        began = run.since or await revival.since(self.reach)

        def one_more() -> None:
            run.discarded += 1
            told(run.discarded)

        def one_left() -> None:
            run.progress.moved += 1

        await revival.discard_all(
            self.reach,
            revival.died_before(began, letters),
            retention=self.retention,
            told=one_more,
            left=one_left,
        )

    # What is kept of it

    async def _keep_forever(self) -> None:
        is_kept = self._is_mine
        while self._is_mine:
            await asyncio.sleep(_EVERY)
            with suppress(*REDIS_ERRORS, Unavailable):  # the work finds that out as well
                if asked := await self._keep(HELD_SECONDS):
                    await self.stop(asked)
        if is_kept:
            await self._cancel()

    async def _keep(self, seconds: float) -> str:
        """Keep what is known, for so much longer; who has asked it to stop."""
        run = self.run
        if not self._is_mine:
            return ""
        if self.replay is not None:
            run.out = list(islice(self.replay.out, _MOST_OUT))
        told = (run.id, self._holder, round(seconds * 1000), run.kept())
        answer: bytes = await self._partition.run(_KEEP, *told)
        # Whoever has taken it up counts anew from what was kept: two would count twice.
        self._is_mine = answer != b"lost"
        return answer.partition(b":")[2].decode(errors="replace")

    # How it ends

    def _end(self, state: State, note: str) -> None:
        self.run.state, self.run.note, self.run.ended = state, note, time.time()

    async def _record_end(self) -> None:
        run = self.run
        outcome = "; ".join(filter(None, (f"{run.state}: {run.outcome}", run.note)))
        by, who, address = run.by, run.who, run.address
        if run.taken_up:
            by, who, address = "console", run.taken_up, run.taken_up_from
        about: dict[str, Any] = {"about": run.about, "outcome": outcome, "run": run.id}
        await record(self.reach, Action(run.verb, by, who, address, **about), self.told)

    def _cut_short(self) -> tuple[State, str]:
        if self._asked is None and self.run.times and not self._is_mine:
            return "interrupted", "somebody else goes on with it, or Redis knows nothing of it"
        if self._asked is None:
            return "interrupted", "what went on with it has ended"
        if self.run.progress.is_awaited:  # nothing but its fates was to come
            return self._outcome()
        return "stopped", f"stopped by {self._asked}"

    def _outcome(self) -> tuple[State, str]:
        """How it has ended, where it wasn't cut short, and why so."""
        if self.run.progress.stopped:
            row = revival.FAILURES_IN_A_ROW
            return "stopped", f"the last {row} replays died again; the rest is left alone"
        if moved := self.run.progress.moved:
            return "stopped", f"{moved:,} were on their way to another partition"
        if missing := self.reach.missing:
            return "failed", "; ".join(sentences(missing))
        return "finished", ""
