"""Slows whoever guesses the token, and nobody else."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Final

AT_ONCE: Final = 5
"""Wrong tokens that may come at once from one place."""

SECONDS: Final = 10.0
"""After those, one in so long."""

_PLACES: Final = 4096  # that are remembered: whoever has more of them isn't held by this


@dataclass(slots=True)
class Guesses:
    """Counts wrong tokens by the place that they come from.

    Nobody waits in here: a place that has guessed too often is told to come again later, and its
    token isn't looked at. Others never notice.

    Attributes:
        now: the clock.
    """

    now: Callable[[], float] = time.monotonic
    # When each place has made up for its wrong tokens, the last one to guess at the end.
    _even_at: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def wait(self, place: str) -> float:
        """Seconds until the next token from a place is looked at; 0: it is."""
        owes = self._even_at.get(place, 0.0) - self.now()
        return max(0.0, owes - (AT_ONCE - 1) * SECONDS)

    def wrong(self, place: str) -> bool:
        """Take note of a wrong token; whether that was one too many."""
        now = self.now()
        self._even_at[place] = max(self._even_at.get(place, now), now) + SECONDS
        self._even_at.move_to_end(place)
        if len(self._even_at) > _PLACES:
            self._even_at.popitem(last=False)
        return self.wait(place) > 0


def network(address: str | None) -> str:
    """The place that an address stands for: of IPv6 a whole network, which one machine may have."""
    try:
        parsed = ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
