"""What others ask of a worker: whether it may start, is ready, is alive, and what is of note."""

import asyncio
import contextlib
from dataclasses import dataclass
from itertools import chain

from shared.endpoints.file import EndpointsFile
from shared.errors import Problem
from shared.program.admin import admin_site, cached
from shared.program.awaiting import MENDS_ITSELF, AwaitedRedis
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions, check_layout
from shared.redis.connection import end
from shared.redis.durability import check_server
from worker.engine.worker import Worker
from worker.lifespans import Lifespans
from worker.pipeline.pulse import Pulse
from worker.settings import WorkerSettings


@dataclass(slots=True)
class Probes:
    """Answers in the thread of the watchdog, whatever the worker's loop does.

    Attributes:
        settings: of the worker.
        endpoints: what is served.
        lifespans: what it waits for before it starts.
        pulse: of its loop.
        is_burst: whether it waits for nothing.
        worker: once there is one.
        awaited: the Redis that is waited for, once it is.
        stopping: whether it has been told to stop.
    """

    settings: WorkerSettings
    endpoints: EndpointsFile
    lifespans: Lifespans
    pulse: Pulse
    is_burst: bool
    worker: Worker | None = None
    awaited: AwaitedRedis | None = None
    stopping: bool = False

    def site(self, partitions: Partitions) -> contextlib.AbstractAsyncContextManager[int]:
        """The admin site."""

        async def ready() -> list[Problem]:
            return self._unready() or await _check_servers(partitions)

        def notes() -> list[Problem]:
            misplaced = [] if self.worker is None else self.worker.misplaced()
            return self.endpoints.notes + misplaced + self._unheard()

        return admin_site(self.settings.admin, cached(ready), alive=self._dead, notes=notes)

    async def startable(self, partitions: Partitions) -> list[Problem]:
        """What keeps this worker from its start.

        One primary that works is enough, but for what somebody has to mend. All have to agree on
        how many partitions there are.
        """
        looks = (check_server(there[0].redis) for there in partitions.by_primary())
        found = await asyncio.gather(*looks)
        problems = list(dict.fromkeys(chain.from_iterable(found)))
        # All are told, though one of them would do for the end. A burst waits for none.
        lasts = self.is_burst or any(not MENDS_ITSELF.get(each.code, False) for each in problems)
        if problems and (lasts or all(found)):
            return problems
        return await check_layout(partitions, drains=True)

    def heard(self) -> set[int]:
        """The partitions that know of this worker."""
        return set(range(self.settings.common.partitions)).difference(self._not_heard())

    def is_heard_by(self, partition: Partition) -> bool:
        """Whether one of them knows of it."""
        return self.worker is not None and partition.number in self.heard()

    def _unready(self) -> list[Problem]:
        """What keeps this worker from being ready, as far as it knows without asking Redis."""
        if self.stopping:
            return [Problem("draining", "the worker is stopping")]
        if self.worker is None:
            awaited = [] if self.awaited is None else self.awaited.problems
            awaited = awaited or self.lifespans.problems
            return awaited or [Problem("starting", "the worker has not started yet")]
        missing = self._missing()
        if len(self._not_heard()) == self.settings.common.partitions:
            message = "Redis has not heard of this worker for longer than a lease"
            missing.append(Problem("no_sign_of_life", message))
        return missing

    def _not_heard(self) -> list[int]:
        return [] if self.worker is None else self.worker.unheard(self.settings.lease)

    def _unheard(self) -> list[Problem]:
        """The partitions that have not heard of this worker, where others have: it works there."""
        number, unheard = self.settings.common.partitions, self._not_heard()
        if not 0 < len(unheard) < number:
            return []
        named = ", ".join(map(str, unheard))
        message = f"of {number} partitions, {named} have not heard of this worker for a lease"
        return [Problem("no_sign_of_life", message)]

    async def _dead(self) -> list[Problem]:
        """What only a restart mends."""
        limit = self.settings.policy.handler_timeout
        still = self.pulse.still() if self.worker is not None else 0.0
        if still > limit:
            message = f"the worker's loop has stood still for {still:.0f} s"
            return [Problem("loop_blocked", message)]
        return [] if self.stopping else self._missing()

    def _missing(self) -> list[Problem]:
        missing = [] if self.worker is None else self.worker.missing()
        return [Problem("loop_missing", f"its {name} loop has failed") for name in missing]


async def _check_servers(partitions: Partitions) -> list[Problem]:
    """What is wrong with all primaries; nothing, where one can be worked with."""
    looks = [
        asyncio.ensure_future(check_server(there[0].redis)) for there in partitions.by_primary()
    ]
    found: list[Problem] = []
    try:
        for look in asyncio.as_completed(looks):
            if not (problems := await look):
                return []
            found += problems
    finally:
        await end(looks)
    return found
