"""The runs that this console goes on with, and what is known of all others."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from shared.errors import Unavailable
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue.actions import log_to
from shared.queue.partitions import Partitions
from shared.queue.reach import Missing, Reach
from shared.redis.connection import REDIS_ERRORS, end
from worker.operate import runs
from worker.operate.fates import PATIENCE
from worker.operate.runs import Begun, Going, Run

AT_ONCE: Final = 4
"""Runs that a console goes on with at the same time."""

_LOOK_EVERY: Final = 2.0


@dataclass(slots=True)
class Runs:
    """Runs that are kept in Redis, some of which this process goes on with.

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
    _seen: list[Run] = field(default_factory=list)
    _here: dict[str, Going] = field(default_factory=dict)
    _tasks: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)

    @property
    def known(self) -> list[Run]:
        """All that were seen last, the newest first; of those that go on here, what is so now."""
        here = {run_id: going.run for run_id, going in self._here.items()}
        found = {run.id: run for run in self._seen} | here
        return sorted(found.values(), key=lambda run: -run.started)

    @property
    def going(self) -> list[Run]:
        """Those that go on, wherever."""
        return [run for run in self.known if run.state == "running"]

    async def look(self, missing: Iterable[Missing] = ()) -> None:
        """See what is known of all, in the partitions that answer; raises nothing for the others.

        Args:
            missing: those that are known to fail.
        """
        with suppress(*REDIS_ERRORS, Unavailable):  # the pages say so by themselves
            self._seen = await runs.read_all(Reach(self.partitions, missing))

    async def look_forever(self, missing: Callable[[], Iterable[Missing]]) -> None:
        """Look every so often."""
        while True:
            await self.look(missing())
            await asyncio.sleep(_LOOK_EVERY)

    async def find(self, run_id: str) -> Run | None:
        """One by its id, as it stands now; raises what the client does."""
        if run_id in self._here:
            return self._here[run_id].run
        return await runs.find(self.partitions, run_id)

    @property
    def is_full(self) -> bool:
        """Whether too many go on here already."""
        return len(self._here) >= AT_ONCE

    def goes_on(self, run_id: str) -> bool:
        """Whether it goes on here."""
        return run_id in self._here

    async def start(self, run: Run) -> Begun:
        """Begin it here, or take it up; by ``begun`` alone it was that.

        Raises: what the client does.
        """
        reach = Reach(self.partitions)
        going = Going(run, reach, log_to(self.log), self.retention, self.patience)
        begun = await going.begin()
        if begun == "begun":
            self._here[run.id] = going
            self._tasks[run.id] = asyncio.create_task(self._to_its_end(going), name="run")
        return begun

    async def stop(self, run: Run, who: str) -> None:
        """End it where it is, wherever that is; what it has done stays done.

        Raises: what the client does.
        """
        if (going := self._here.get(run.id)) is None:  # another process looks twice a second
            await runs.ask_to_stop(self.partitions, run, who)
            return
        task = self._tasks[run.id]
        await going.stop(who)
        await asyncio.wait([task])

    async def close(self) -> None:
        """Go on with none of them; each can be taken up."""
        await end(list(self._tasks.values()))

    async def _to_its_end(self, going: Going) -> None:
        run_id = going.run.id
        try:
            with suppress(*REDIS_ERRORS, Unavailable):  # the run says so
                await going.to_its_end(going.work())
        except Exception:
            self.log.exception("run_failed", run=run_id)
        else:
            # So that the next page shows what it came to.
            await self.changed()
            await self.look()
        finally:
            if self._here[run_id] is going:  # else it has been taken up here meanwhile
                del self._here[run_id], self._tasks[run_id]
