"""Settles what a worker holds for it, when its own loop can't any more."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from worker.outcomes import Dead, Later, Outcome, Released
from worker.pipeline.driver import Pipeline
from worker.pipeline.transitions import Settled, Settlement, Transitions
from worker.pipeline.work import Work

_BATCH: Final = 40
_STILL_HELD: Final = (Settled.AGAIN, Settled.CONFLICT, Settled.OVERDUE)


@dataclass(frozen=True, slots=True)
class Parting:
    """The last word about each event of a worker that is about to end.

    Should the loop wake up meanwhile and say another: the token lets one of the two through.

    Attributes:
        pipeline: knows the rules, and where ends are told.
        transitions: on a connection of the thread that does this.
    """

    pipeline: Pipeline
    transitions: Transitions

    async def settle(self, works: list[Work], blocking: Work | None, seconds: float) -> None:
        """Charge the event that blocks, and give the others back.

        Nobody is charged where nothing is known of who blocks. What a handler was at then stays
        counted: one of these it was, and should that happen again, they run in smaller groups.

        Args:
            works: all that the worker holds.
            blocking: the one that blocks, if known.
            seconds: for how long.
        """
        ends = [(work, *self._end(work, blocking, seconds)) for work in works]
        left = await self._settle_all(ends)
        # Its commit came too late, or was refused: it is given back like those that still run.
        back = [(work, Released(), Settlement(work.claim, "release")) for work in left]
        await self._settle_all(back)

    async def _settle_all(self, ends: Sequence[tuple[Work, Outcome, Settlement]]) -> list[Work]:
        """Settle and tell; answers those that are still held."""
        left: list[Work] = []
        for start in range(0, len(ends), _BATCH):
            batch = ends[start : start + _BATCH]
            settled = await self.transitions.settle([settlement for _, _, settlement in batch])
            for (work, outcome, _), answer in zip(batch, settled, strict=True):
                if not isinstance(answer, Settled) or answer in _STILL_HELD:
                    left.append(work)
                elif answer is not Settled.LOST or work.settling is None:
                    # Else it was sent a second time: the first one has been applied.
                    self.pipeline.report.settled(work, outcome, answer, now=time.time())
        return left

    def _end(self, work: Work, blocking: Work | None, seconds: float) -> tuple[Outcome, Settlement]:
        settling = work.settling
        goes_on = work is blocking and self._goes_on(work)
        if settling is not None and not goes_on:
            # It has ended; only its commit is still to be sent, or its reply read.
            return settling.outcome, settling.settlement
        outcome: Outcome
        if work is blocking:
            said = "didn't end when it was cancelled, and " if goes_on else ""
            said += f"blocked the worker for {seconds:.1f} s"
            outcome = Later(said, failed=True, blocked=True)
        else:
            outcome = Released(in_doubt=blocking is None and work.attempt is not None)
        outcome = self.pipeline.settlements.final(work, outcome)
        return outcome, self.pipeline.settlements.of(work, outcome)

    def _goes_on(self, work: Work) -> bool:
        """Whether its attempt is to be settled as failed since it doesn't end."""
        settling = work.settling
        is_failed = settling is not None and isinstance(settling.outcome, Later | Dead)
        return is_failed and self.pipeline.attempts.is_stuck(work)
