"""Looks at the system every so often, for all pages together."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from shared.errors import Unavailable
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue.partitions import Partitions
from shared.queue.reach import Missing, Reach, reached
from shared.redis.connection import REDIS_ERRORS, translate
from worker.operate.dead_lists import Filter
from worker.operate.failure_groups import FailureGroup, largest
from worker.operate.history import History
from worker.operate.merged import look
from worker.operate.overview import OrganizationOverview, Overview

INTERVAL: Final = 2.0
_GROUPS: Final = 5


@dataclass(frozen=True, slots=True)
class Outage:
    """Redis does not answer.

    Attributes:
        cause: why, as far as is known.
        since: seconds since the epoch.
    """

    cause: Unavailable
    since: float


@dataclass(slots=True)
class Sampler:
    """The one reader of overviews, so that open pages cost Redis nothing more.

    Attributes:
        partitions: what is looked at.
        log: told of outages.
        interval: seconds between two looks.
        history: what has been seen.
        outage: why nothing is seen now.
        groups: the largest failure groups.
    """

    partitions: Partitions
    log: FilteringBoundLogger
    interval: float = INTERVAL
    history: History = field(default_factory=History)
    outage: Outage | None = None
    groups: Sequence[FailureGroup] = ()
    _ranked: dict[object, Sequence[OrganizationOverview]] = field(default_factory=dict)
    _by_name: dict[str, OrganizationOverview] = field(default_factory=dict)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def latest(self) -> Overview | None:
        """The last overview; ``None`` before the first."""
        return self.history.latest

    @property
    def missing(self) -> Sequence[Missing]:
        """The partitions that didn't answer at the last look; none while nothing answers at all."""
        return [] if self.latest is None or self.outage else self.latest.left_out

    @property
    def organizations(self) -> Sequence[OrganizationOverview]:
        """What was seen last of each."""
        return self.latest.organizations if self.latest else []

    def organization(self, name: str) -> OrganizationOverview | None:
        """What was seen last of one; ``None`` where it did nothing."""
        return self._by_name.get(name)

    def ranked(
        self,
        name: object,
        rank: Callable[[OrganizationOverview], Any],
        is_shown: Callable[[OrganizationOverview], bool] = lambda _: True,
    ) -> Sequence[OrganizationOverview]:
        """What was seen last of some, in an order: of ten thousand that is done once a look.

        Args:
            name: of the order and of which are shown, for whoever asks again.
            rank: the order.
            is_shown: which.
        """
        if name not in self._ranked:
            self._ranked[name] = sorted(filter(is_shown, self.organizations), key=rank)
        return self._ranked[name]

    async def look(self) -> None:
        """Look now, such as after somebody has changed something."""
        # Pages ask for a look after an action, beside the timer.
        async with self._one_at_a_time:
            try:
                self.history.add(*await look(reach := await reached(self.partitions)))
                self.groups = await self._groups(reach)
                self._by_name = {each.organization: each for each in self.organizations}
                self._ranked.clear()
            except (*REDIS_ERRORS, Unavailable) as exc:
                self.lost(exc)
            except Exception as exc:  # somebody's hand has left what can't be read
                if self.outage is None:
                    self.log.exception("console_look_failed")
                self.lost(Unavailable("redis_unreadable", f"it holds what can't be read ({exc})"))
            else:
                self._back()

    async def _groups(self, reach: Reach) -> Sequence[FailureGroup]:
        if not (self.latest and self.latest.dead):
            return []
        # Of an earlier user's rights, say: that is no reason to show nothing else.
        with suppress(*REDIS_ERRORS, Unavailable):
            return (await largest(reach, Filter(), _GROUPS))[0]
        return []

    async def look_forever(self) -> None:
        """Look every so often, whatever Redis does."""
        while True:
            await self.look()
            await asyncio.sleep(self.interval)

    def lost(self, exc: BaseException) -> Outage:
        """Take note of a call that failed."""
        cause = translate(exc)
        if self.outage is None:
            self.log.warning("redis_lost", doing="console", code=cause.code)
        if self.outage is None or self.outage.cause.code != cause.code:
            self.outage = Outage(cause, time.time())
        return self.outage

    def _back(self) -> None:
        if self.outage is not None:
            self.log.info("redis_back", doing="console")
            self.outage = None
