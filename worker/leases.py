"""What this worker holds, and its signs of life."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from structlog.typing import FilteringBoundLogger

from shared import metrics
from shared.connection import REDIS_ERRORS
from worker.load import with_load
from worker.outage import Outage
from worker.transitions import Claim, Transitions

_BATCH = 256

Profiles = list[tuple[str, int | None, float]]
"""Of each organization: id, cap (``None``: the default one), weight."""


@dataclass(slots=True)
class Leases:
    """The claims of one worker.

    Attributes:
        transitions: the scripts.
        worker: its name.
        description: what it says of itself, a JSON object; its load is put beside it.
        slots: how many events it handles at once.
        lease: seconds; it is renewed every third of it.
        profiles: what the endpoints file says now.
        log: told of lost leases.
        lost: told of each claim that somebody else has by now.
        announced: set once Redis knows of the worker's slots and the organizations' caps.
    """

    transitions: Transitions
    worker: str
    description: bytes
    slots: int
    lease: float
    profiles: Callable[[], Profiles]
    log: FilteringBoundLogger
    lost: Callable[[Claim], None]
    _held: dict[str, Claim] = field(default_factory=dict)
    _published: Profiles | None = None
    _started: float = field(default_factory=time.time)
    announced: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._held)

    def take(self, claim: Claim) -> None:
        """From now on the claim is renewed."""
        self._held[claim.job] = claim

    def drop(self, claim: Claim) -> None:
        """From now on it isn't."""
        if self._held.get(claim.job) is claim:
            del self._held[claim.job]

    async def beat(self) -> None:
        """One sign of life, for the worker and all that it holds."""
        await self._publish()
        running = min(len(self), self.slots)  # the rest has been handled, and is being committed
        description = with_load(self.description, running=running, started=self._started)
        for batch in _batches(self._held.values()):
            lost = await self.transitions.renew(
                self.worker,
                batch,
                description=description,
                slots=self.slots,
                lease=self.lease,
            )
            metrics.LEASES_RENEWED.inc(len(batch) - len(lost))
            metrics.LEASES_LOST.inc(len(lost))
            for claim in lost:
                self.log.warning("lease_lost", job=claim.job)
                self.drop(claim)
                self.lost(claim)

    async def beat_forever(self) -> None:
        """A sign of life every third of a lease, whatever Redis does."""
        outage = Outage(self.log, "renew")
        while True:
            try:
                await self.beat()
            except REDIS_ERRORS as exc:
                await outage.pause(exc)
            else:
                outage.over()
                self.announced.set()
                await asyncio.sleep(self.lease / 3)

    async def _publish(self) -> None:
        profiles = self.profiles()
        if profiles and profiles != self._published:
            await self.transitions.publish(profiles)
        self._published = profiles


def _batches(claims: Iterable[Claim]) -> list[list[Claim]]:
    """At least one, so that a worker which holds nothing shows that it lives."""
    everything = list(claims)
    return [everything[start : start + _BATCH] for start in range(0, len(everything) or 1, _BATCH)]
