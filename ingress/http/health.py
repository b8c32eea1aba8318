"""Whether the ingress is ready for deliveries."""

from collections.abc import Awaitable, Callable

from shared.errors import Problem
from shared.program.admin import cached

DRAINING = Problem("draining", "this process is shutting down")


class Readiness:
    """What ``/readyz`` goes by.

    Args:
        check: finds what is wrong with Redis; asked about once a second.
    """

    def __init__(self, check: Callable[[], Awaitable[list[Problem]]]) -> None:
        self._check = cached(check)
        self.draining = False

    async def problems(self) -> list[Problem]:
        """What keeps the ingress from being ready; an empty list when nothing does."""
        if self.draining:
            return [DRAINING]
        return await self._check()
