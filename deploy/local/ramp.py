"""The load of the scale demo: it rises, stays, falls, and stays low."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

TIMES: Final = 10
"""The peak is so many times what there is at the beginning and at the end."""

_SHAPE: Final = ((0.0, 1 / TIMES), (0.2, 1.0), (0.45, 1.0), (0.6, 1 / TIMES), (1.0, 1 / TIMES))
"""Share of the time, share of the peak; straight lines between."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """A rise and a fall.

    Attributes:
        peak: events a second.
        seconds: for all of it.
    """

    peak: float
    seconds: float

    def rate(self, at: float) -> float:
        """Events a second at a moment; none afterwards."""
        share = at / self.seconds
        for (left, low), (right, high) in pairwise(_SHAPE):
            if left <= share <= right:
                return self.peak * (low + (high - low) * (share - left) / (right - left))
        return 0.0
