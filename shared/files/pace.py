"""Slices of work that leave the processor to others in between."""

from dataclasses import dataclass, field
from time import perf_counter, sleep
from typing import Final

WORK: Final = 0.0005
"""Seconds of work at a time. Another thread of this process waits as long for its turn: Python lets
one run at a time, and by itself changes only every 5 ms."""

REST: Final = 0.0007
"""Seconds of rest after it."""


@dataclass(slots=True)
class Pace:
    """Work in a thread beside the event loop.

    Attributes:
        rest: seconds after each slice; 0 where nobody waits.
    """

    rest: float = REST
    _since: float = field(default_factory=perf_counter)

    def breathe(self) -> None:
        """Rest if the slice is over; call it between any two small steps."""
        if perf_counter() - self._since >= WORK:
            if self.rest:
                sleep(self.rest)
            self._since = perf_counter()
