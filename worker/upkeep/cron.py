"""What one of all workers does every few minutes, whatever comes in."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import arq
from arq.cron import CronJob

EVERY: Final = timedelta(minutes=5)
"""How often one of all workers does it."""

_LONGEST: Final = timedelta(minutes=4)


def cron_job(*tasks: Callable[[], Awaitable[None]]) -> CronJob:
    """These, one after the other, as one arq cron job; one that fails keeps none from its turn.

    It has the name of the first thing that was ever done so: arq puts it into the queue that all
    share, and a worker of an earlier version would bury a job whose name it doesn't know.
    """

    async def do_all(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:  # noqa: ARG001  # arq's
        failures = []
        for task in tasks:
            try:
                await task()
            except Exception as exc:  # noqa: BLE001  raised below
                failures.append(exc)
        if failures:
            raise ExceptionGroup("upkeep", failures)

    minutes = set(range(0, 60, round(EVERY.total_seconds() / 60)))
    return arq.cron(do_all, name="cron:expire_dead_letters", minute=minutes, timeout=_LONGEST)
