"""When an organization's events wait because its handlers keep failing."""

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
