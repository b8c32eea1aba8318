"""Waits, at the start of a program and after it, for a Redis that isn't there yet."""

import asyncio
import contextlib
from collections.abc import Mapping
from time import monotonic
from typing import Final

from shared.errors import Problem, SettingsError
from shared.observe.logs import get_logger
from shared.program.admin import Check
from shared.settings.redis_url import RedisUrl

MENDS_ITSELF: Final[Mapping[str, bool]] = {
    # Redis, or who knows where it is, comes back; nobody has to change a setting of ours.
    "redis_unreachable": True,
    "redis_timeout": True,
    "redis_no_primary": True,
    "redis_cluster_down": True,
    "redis_partition_moving": True,
    "redis_loading": True,
    "redis_busy": True,
    "redis_readonly": True,  # a fail-over is under way, or the host's name follows it later
    "not_replicated": True,  # replicas connect by themselves, most of all after a cold start
    # Workers make room; a disk gets free or fast again.
    "redis_out_of_memory": True,
    "redis_not_persisting": True,
    # Programs are given another number one after the other; whoever is early waits for the others.
    "redis_layout": True,
    # Somebody has to do something, and is best told by a start that fails.
    "redis_refused_login": False,
    "redis_permission": False,
    "redis_untrusted": False,
    "redis_refused_certificate": False,
    "redis_too_old": False,
    "redis_cluster": False,
    "redis_full_coverage": False,
    "redis_evicts": False,
    "not_durable": False,
    # What nobody knows isn't waited for: whoever starts the program again tries it again.
    "redis_error": False,
}
"""Whether to wait for the end of a problem with Redis, by its code; one not named here isn't."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 1.0
"""Seconds from one look to the next, twice as many each time."""

_NOT_LOOKED: Final = Problem("redis_awaited", "Redis has not been looked at yet")
_ONCE_MORE: Final = 0.1

_log = get_logger()


class AwaitedRedis:
    """The Redis without which a program can't begin.

    Its log lines are ``redis_awaited``, when the reason for waiting is a new one, and
    ``redis_found``, where there was something to wait for.

    Args:
        check: finds what is wrong with it.
        url: where it is, as it may be shown.
        expected: what kind of Redis that is, for the error of a start that can't succeed.
        is_patient: whether to wait for what mends itself; else that is an error, too.

    Attributes:
        problems: what is wrong with it; empty once it has been found. Any thread may read it.
    """

    def __init__(
        self, check: Check, *, url: RedisUrl | str, expected: str, is_patient: bool = True
    ) -> None:
        self._check = check
        self._is_patient = is_patient
        self._url = url
        self._expected = expected
        self._begun = monotonic()
        self.problems = [_NOT_LOOKED]

    def before(self, check: Check) -> Check:
        """Give a check for ``/readyz``: what is waited for, and then the one given here.

        Redis may be well before this program has noticed, and then that isn't ready yet.
        """

        async def ask() -> list[Problem]:
            return self.problems or await check()

        return ask

    async def found(self, stop: asyncio.Event) -> bool:
        """Wait until it is there, or for the stop; whether it is there.

        Raises:
            SettingsError: something is wrong that isn't waited for.
        """
        pause = FIRST_PAUSE
        while self.problems and not stop.is_set():
            if not await self.look(stop):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause)
                pause = min(LONGEST_PAUSE, pause * 2)
        return not self.problems

    async def look(self, stop: asyncio.Event) -> bool:
        """Look once, which a stop cuts short; whether it is there.

        Raises:
            SettingsError: something is wrong that isn't waited for.
        """
        looking = asyncio.ensure_future(self._check())
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((looking, stopping), return_when=asyncio.FIRST_COMPLETED)
            if looking.done():
                self._note(looking.result())
        finally:
            stopping.cancel()
            while not looking.done():  # redis-py may lose one cancellation
                looking.cancel()
                await asyncio.wait((looking,), timeout=_ONCE_MORE)
        return not self.problems

    def _note(self, problems: list[Problem]) -> None:
        message = "; ".join(problem.message for problem in problems)
        if any(
            not (self._is_patient and MENDS_ITSELF.get(problem.code, False)) for problem in problems
        ):
            raise SettingsError("REDIS_URL", self._expected, f"{self._url}: {message}")
        if problems and problems != self.problems:
            _log.warning(
                "redis_awaited", url=str(self._url), code=problems[0].code, message=message
            )
        if not problems and self.problems != [_NOT_LOOKED]:
            seconds = round(monotonic() - self._begun, 1)
            _log.info("redis_found", url=str(self._url), seconds=seconds)
        self.problems = problems


class AwaitedPrimary:
    """One of several primaries, which a program can begin without; then it is waited for.

    Its log lines are the same.

    Args:
        check: finds what keeps it from being worked with.
        named: what it is called.
        is_found: whether there is nothing to wait for.

    Attributes:
        problems: what was wrong at the last look; any thread may read it.
    """

    def __init__(self, check: Check, *, named: str, is_found: bool = False) -> None:
        self._check = check
        self._named = named
        self._is_found = is_found
        self._one_looks = asyncio.Lock()
        self.problems: list[Problem] = []

    async def found(self) -> None:
        """Wait until nothing is wrong with it; from then on it is left to itself."""
        async with self._one_looks:
            while not self._is_found:
                await self._look()
                if not self._is_found:
                    await asyncio.sleep(LONGEST_PAUSE)

    def misplaced(self) -> list[Problem]:
        """That it is there, and the wrong one; any thread may ask."""
        return [
            Problem(each.code, f"{self._named}: {each.message}")
            for each in self.problems
            if each.code == "redis_layout"
        ]

    async def _look(self) -> None:
        before, self.problems = self.problems, await self._check()
        if not self.problems:
            self._is_found = True
            if before:
                _log.info("redis_found", url=self._named)
        elif not before or self.problems[0].code != before[0].code:
            code, message = self.problems[0].code, self.problems[0].message
            _log.warning("redis_awaited", url=self._named, code=code, message=message)
