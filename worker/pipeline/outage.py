"""Says once that Redis has gone away, and once that it is back."""

import asyncio

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.redis.connection import translate
from worker.pipeline.pulse import Pulse

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class Outage:
    """The state of Redis as one loop of the worker sees it.

    Args:
        log: where it is said.
        doing: what the loop can't do meanwhile.
        pulse: of the loop itself, which may be what kept a reply from being read.
    """

    def __init__(self, log: FilteringBoundLogger, doing: str, pulse: Pulse | None = None) -> None:
        self._log = log
        self._doing = doing
        self._pulse = pulse
        self._pause = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the last call failed."""
        return self._pause > 0

    def is_our_own(self, exc: BaseException) -> bool:
        """Whether a call failed since the loop stood still: Redis has answered, nobody read it."""
        was_still = self._pulse is not None and self._pulse.was_still
        return was_still and translate(exc).code == "redis_timeout"

    async def pause(self, exc: BaseException) -> None:
        """Take note of a failed call, and wait a while that grows with each."""
        if self.is_our_own(exc):
            return
        code = translate(exc).code
        metrics.REDIS_ERRORS.labels("worker", code).inc()
        if not self.is_on:
            self._log.warning("redis_lost", doing=self._doing, code=code)
        self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, self._pause * 2))
        await asyncio.sleep(self._pause)

    def over(self) -> None:
        """Take note of a call that worked."""
        if self.is_on:
            self._log.info("redis_back", doing=self._doing)
            self._pause = 0.0
