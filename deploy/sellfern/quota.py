"""How many requests an API key may make in a second."""

from collections import deque
from math import ceil
from typing import Final

from deploy.sellfern.answer import rate_limited
from deploy.sellfern.clock import Clock

WINDOW_SECONDS: Final = 1.0


class Quota:
    """Counts the requests of each key over the last second.

    Args:
        most: requests in a second; None sets no limit.
        clock: tells the time.
    """

    def __init__(self, most: int | None, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._taken: dict[str, deque[float]] = {}

    def take(self, key: str) -> None:
        """Count a request.

        Raises:
            Refused: it is one too many; this one doesn't count.
        """
        if self._most is None:
            return
        now = self._clock()
        taken = self._taken.setdefault(key, deque())
        while taken and taken[0] <= now - WINDOW_SECONDS:
            taken.popleft()
        if len(taken) >= self._most:
            raise rate_limited(max(1, ceil(taken[0] + WINDOW_SECONDS - now)))
        taken.append(now)
