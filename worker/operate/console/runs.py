"""Replays and discards of many dead letters at once, which go on while nobody looks."""

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from shared.errors import Unavailable
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue.partitions import Partitions
from shared.queue.reach import Missing, Reach, sentences
from shared.redis.connection import REDIS_ERRORS, end, translate
from worker.operate import revival
from worker.operate.dead_letters import Selection
from worker.operate.fates import PATIENCE
from worker.operate.meant import oldest

Verb = Literal["replay", "discard"]
State = Literal["running", "finished", "stopped", "failed"]
Level = Literal["info", "good", "warn", "bad"]

AT_ONCE: Final = 4
"""Runs that may go on at the same time."""

_REMEMBERED: Final = 20


@dataclass(slots=True)
class Run:
    """One run.

    Attributes:
        verb: what it does.
        about: which dead letters, in words.
        who: started it.
        total: how many there were when it began; ``None`` where nobody has counted.
        rate: replays a second.
        force: whether it replays the unprovable ones, too.
        limit: it replays no more than so many, the oldest; ``None``: all.
        id: names it in an address.
        started: seconds since the epoch.
        ended: the same; ``None`` while it goes on.
        state: how it goes.
        note: why it ended, where it didn't finish.
        progress: how far a replay is.
        discarded: how far a discard is.
    """

    verb: Verb
    about: str
    who: str
    total: int | None
    rate: float = 100.0
    force: bool = False
    limit: int | None = None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(8))
    started: float = field(default_factory=time.time)
    ended: float | None = None
    state: State = "running"
    note: str = ""
    progress: revival.Progress = field(default_factory=revival.Progress)
    discarded: int = 0

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
        if self.state == "stopped" or self.progress.died_again:
            return "warn"
        is_good = self.state == "finished" and not self.progress.waiting
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
        if self._died_again_all:
            queued = self.progress.queued
            return f"Replayed {queued:,}: {'it' if queued == 1 else f'all {queued:,}'} died again"
        return self.progress.sentence

    @property
    def _died_again_all(self) -> bool:
        return 0 < self.progress.died_again == self.progress.queued


@dataclass(slots=True)
class Runs:
    """The runs of this process, the last first.

    Attributes:
        partitions: where the dead letters are.
        log: told of each run's end.
        retention: seconds for which a discarded event counts as handled.
        changed: called when a run has ended.
        patience: seconds for which a replay waits for what becomes of the last ones.
    """

    partitions: Partitions
    log: FilteringBoundLogger
    retention: float
    changed: Callable[[], Coroutine[Any, Any, None]]
    patience: float = PATIENCE
    known: list[Run] = field(default_factory=list)
    _tasks: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)

    @property
    def going(self) -> list[Run]:
        """Those that go on."""
        return [run for run in self.known if run.state == "running"]

    def find(self, run_id: str) -> Run | None:
        """One by its id."""
        return next((run for run in self.known if run.id == run_id), None)

    def start(self, run: Run, selection: Selection) -> bool:
        """Begin it; false where too many go on already."""
        if len(self.going) >= AT_ONCE:
            return False
        # In this process only: what a run has done stands in Redis, whoever forgets it. One that
        # goes on isn't forgotten: nobody could stop it.
        older = [each for n, each in enumerate(self.known, 2) if n <= _REMEMBERED or not each.ended]
        self.known = [run, *older]
        self._tasks[run.id] = asyncio.create_task(self._to_its_end(run, selection), name="run")
        return True

    async def stop(self, run: Run) -> None:
        """End it where it is; what it has done stays done."""
        if run.id in self._tasks:
            await end([self._tasks[run.id]])

    async def close(self) -> None:
        """End all."""
        await end(list(self._tasks.values()))

    async def _to_its_end(self, run: Run, selection: Selection) -> None:
        reach = Reach(self.partitions)
        try:
            await self._run(run, selection, reach)
        except (*REDIS_ERRORS, Unavailable) as exc:
            self._end(run, "failed", f"{translate(exc).message}; start it again to go on")
        except asyncio.CancelledError:
            if run.progress.is_awaited:  # nothing but its fates was to come
                self._end(run, *_outcome(run, reach.missing))
            else:
                self._end(run, "stopped", "stopped by an operator; start it again to go on")
            raise
        except Exception:  # else it would go on for ever, in everybody's eyes
            self.log.exception("console_run_failed", run=run.id)
            self._end(run, "failed", "the console's log says why")
        else:
            self._end(run, *_outcome(run, reach.missing))
        # So that the next page shows what it came to.
        await self.changed()

    async def _run(self, run: Run, selection: Selection, reach: Reach) -> None:
        """Do it for all partitions that answer."""
        if run.limit is not None:
            jobs = await oldest(reach, selection, run.limit, force=run.force)
            run.total, selection = len(jobs), Selection(jobs)
            if not jobs:  # a selection of no jobs means all
                return
        letters = selection.letters(reach)
        if run.verb == "replay":
            going = revival.Replay(reach, run.rate, force=run.force, progress=run.progress)
            await going.run(letters)
            # Only then is it known whether it was of any use.
            await going.wait(self.patience)
            return

        def one_more() -> None:
            run.discarded += 1

        def one_left() -> None:
            run.progress.moved += 1

        retention = self.retention
        await revival.discard_all(reach, letters, retention=retention, told=one_more, left=one_left)

    def _end(self, run: Run, state: State, note: str) -> None:
        run.state, run.note, run.ended = state, note, time.time()
        self._tasks.pop(run.id, None)
        self.log.info(
            "console_run_ended",
            run=run.id,
            action=run.verb,
            who=run.who,
            outcome=state,
            seen=run.seen,
            came_to=run.outcome,
            why=note or None,
        )


def _outcome(run: Run, missing: list[Missing]) -> tuple[State, str]:
    """How a run that wasn't cut short has ended, and why so."""
    if run.progress.stopped:
        row = revival.FAILURES_IN_A_ROW
        return "stopped", f"the last {row} replays died again; the rest is left alone"
    if missing:
        return "failed", f"{'; '.join(sentences(missing))}; start it again to go on"
    return "finished", ""
