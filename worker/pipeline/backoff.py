"""How long a failed event waits for its next attempt."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter.

    Full jitter draws evenly from zero to the bound, which spreads the retries of events that
    failed together better than a fixed part plus a random one does.

    Attributes:
        base: seconds; the bound after the first attempt.
        cap: seconds; the bound never exceeds it.
    """

    base: float = 1.0
    cap: float = 3600.0

    def bound(self, attempt: int) -> float:
        """The longest delay after this attempt (from 1), in seconds."""
        # 2**1000 is still a float; beyond that the cap has long been reached.
        return min(self.cap, self.base * 2.0 ** min(attempt - 1, 1000))

    def horizon(self, attempts: int) -> float:
        """The longest time that the delays between so many attempts take, in seconds."""
        return sum(self.bound(attempt) for attempt in range(1, attempts))

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """The delay after this attempt (from 1), in seconds.

        Args:
            attempt: how many attempts have been made.
            random: draws evenly from 0 to 1, as ``random.random`` does.
        """
        return random() * self.bound(attempt)
