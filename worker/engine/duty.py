"""How long a worker takes nothing for the sake of suspects."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from time import monotonic
from typing import Final, Self

from worker.pipeline.transitions import Claim, Claimed

_FIRST: Final = 5.0
"""Seconds that a worker is quiet for a suspect, at first: most handlers have ended by then."""

_MARGIN: Final = 1.0
"""Seconds that the end of a handler takes beyond its time, until its slot is free."""


@dataclass(slots=True)
class Duty:
    """A worker's part in finding out which job it is that ends workers.

    A suspect is to run with no other job beside it. So a worker that one waits for takes nothing
    until it holds nothing, and one that has been given suspects takes nothing until these have
    ended. Both last for a while only, or a single handler that doesn't end would stop the worker
    for everybody. Each time that a while was too short the next one, of whichever worker, is twice
    as long: Redis counts them. The longest one is longer than a handler may run unless others
    keep it from its time, so it is hardly ever too short: what ends workers is found in the end.

    Attributes:
        first: seconds of the first while.
        longest: seconds of the longest one.
        clock: seconds, from anywhere.
    """

    first: float
    longest: float
    clock: Callable[[], float] = monotonic
    _busy_until: float = 0.0
    _alone: Claim | None = None

    @classmethod
    def of(cls, *, lease: float, longest_handler: float) -> Self:
        """The one of a worker; seconds.

        Args:
            lease: of its claims.
            longest_handler: after which a handler has ended, or counts as stuck.
        """
        longest = longest_handler + _MARGIN
        return cls(first=min(lease / 3, _FIRST, longest), longest=longest)

    @property
    def waits_for_none(self) -> bool:
        """Whether it has just given up to wait, and works for everybody for as long as it did."""
        return self.clock() < self._busy_until

    def alone(self, held: Collection[str]) -> Claim | None:
        """The suspect that it was given alone, while it is among the claims (by token) it holds."""
        if self._alone is not None and self._alone.token not in held:
            self._alone = None
        return self._alone

    async def wait(self, claimed: Claimed, idle: Callable[[], Awaitable[None]]) -> None:
        """Take nothing until the worker is idle, or the while is over.

        Args:
            claimed: asks for it, since a suspect waits or since suspects were given.
            idle: ends once the worker holds nothing.
        """
        if claimed.suspects and len(claimed.jobs) == 1:
            ((self._alone, _),) = claimed.jobs
        seconds = self.bound(claimed.patience)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await idle()
                return
        if claimed.quiet:
            self._busy_until = self.clock() + seconds

    def bound(self, patience: int) -> float:
        """Seconds of the while, after so many that were too short."""
        return min(self.first * 2.0 ** min(patience, 64), self.longest)
