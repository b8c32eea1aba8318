"""What this worker holds, and its signs of life."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from worker.engine.load import with_load
from worker.pipeline.transitions import Claim, Transitions

_BATCH = 256

Profiles = list[tuple[str, int | None, float]]
"""Of each organization: id, cap (``None``: the default one), weight."""


def _none() -> int:
    return 0


@dataclass(slots=True)
class Leases:
    """The claims of one worker.

    The worker's loop takes and drops them, the watchdog's thread renews them. Each looks at the
    other's doing only through a copy, which Python makes in one step.

    Attributes:
        worker: its name.
        description: what it says of itself, a JSON object; its load is put beside it.
        slots: how many events it handles at once.
        lease: seconds; it is renewed every third of it.
        profiles: what the endpoints file says now.
        log: told where Redis had lost what it knew.
        stuck: how many handlers go on though their events are settled.
        lost: told of each claim that somebody else has by now, in the thread that renews.
        renewed_at: when Redis last heard of this worker, by the monotonic clock; ``None``: never.
    """

    worker: str
    description: bytes
    slots: int
    lease: float
    profiles: Callable[[], Profiles]
    log: FilteringBoundLogger
    lost: Callable[[Claim], None]
    stuck: Callable[[], int] = _none
    renewed_at: float | None = None
    _held: dict[str, Claim] = field(default_factory=dict)
    _published: Profiles | None = None
    _started: float = field(default_factory=time.time)

    def __len__(self) -> int:
        return len(self._held)

    def take(self, claim: Claim) -> None:
        """From now on the claim is renewed."""
        self._held[claim.job] = claim

    def drop(self, claim: Claim) -> None:
        """From now on it isn't."""
        if self._held.get(claim.job) is claim:
            del self._held[claim.job]

    def holds(self, claim: Claim) -> bool:
        """Whether the claim is renewed."""
        return self._held.get(claim.job) is claim

    def held(self) -> list[Claim]:
        """All of them, as they are now."""
        return list(self._held.values())

    async def beat(self, transitions: Transitions) -> None:
        """One sign of life, for the worker and all that it holds."""
        held = self.held()
        running = min(len(held), self.slots)  # the rest has been handled, and is being committed
        description = with_load(
            self.description, running=running, started=self._started, stuck=self.stuck()
        )
        is_new = False
        for batch in _batches(held):
            renewed = await transitions.renew(
                self.worker,
                batch,
                description=description,
                slots=self.slots,
                lease=self.lease,
            )
            is_new = is_new or renewed.is_new
            metrics.LEASES_RENEWED.inc(len(batch) - len(renewed.lost))
            for claim in renewed.lost:
                self.lost(claim)
        await self._publish(transitions, anew=is_new)
        self.renewed_at = time.monotonic()

    async def _publish(self, transitions: Transitions, *, anew: bool) -> None:
        """Tell Redis the caps and weights when they change, and when it has lost them."""
        if anew and self.renewed_at is not None:
            self.log.warning("redis_knew_nothing_of_this_worker", worker=self.worker)
        profiles = self.profiles()
        if profiles and (anew or profiles != self._published):
            await transitions.publish(profiles)
        self._published = profiles


def _batches(claims: Iterable[Claim]) -> list[list[Claim]]:
    """At least one, so that a worker which holds nothing shows that it lives."""
    everything = list(claims)
    return [everything[start : start + _BATCH] for start in range(0, len(everything) or 1, _BATCH)]
