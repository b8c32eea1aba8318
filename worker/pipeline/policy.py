"""The rules of handling."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Breaker:
    """What opens an organization's breaker, and for how long.

    While it is open the organization's events wait and spend no attempts. Then one is let
    through: when its handler works the breaker closes, when it fails the breaker opens again.

    Attributes:
        failures: that many in a row open it; 0: none do.
        share: failures among what handlers ended, from 0 to 1, that open it; 0: none does.
        sample: ends needed before the share counts.
        cool_off: seconds that it stays open.
    """

    failures: int = 50
    share: float = 0.0
    sample: int = 20
    cool_off: float = 30.0

    def packed(self) -> tuple[int, float, int, int]:
        """The same as ``settle.lua`` takes it."""
        return (self.failures, self.share, self.sample, round(self.cool_off * 1000))


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


@dataclass(frozen=True, slots=True)
class Limits:
    """How old, or how far ahead, an event may be; all in seconds.

    Attributes:
        max_event_age: from its creation to its receipt. Waiting in our queue makes none stale.
        dedupe_retention: how long the mark of a finished event is kept.
        clock_skew: how far apart Sellfern's clock and ours may be.
    """

    max_event_age: float
    dedupe_retention: float
    clock_skew: float


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of handling; times are seconds.

    Attributes:
        limits: of an event's age.
        handler_timeout: that one attempt may take.
        max_attempts: attempts before the dead letter.
        max_claims: claims without an outcome, the last one alone in its worker, after which the job
            is buried.
        backoff: the delay between attempts.
        breaker: when an organization's events wait because its handlers keep failing.
        stuck_after: how long a handler may go on after it was cancelled.
        no_handler_patience: how long an event waits for a worker that has a handler for it.
    """

    limits: Limits
    handler_timeout: float
    max_attempts: int
    max_claims: int
    backoff: Backoff
    breaker: Breaker
    stuck_after: float = 5.0
    no_handler_patience: float = 600.0
