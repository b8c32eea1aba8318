"""The end of a worker that handles what waits rather than whatever comes."""

import asyncio
import contextlib
from typing import Final

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue import depths
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.redis.connection import REDIS_ERRORS
from worker.pipeline.transitions import Claimed

SOON: Final = 0.25
"""Seconds: what is due within them is waited for. A turn that can't be decided yet, and a start at
a rate of four a second or more, is put off for less; a lease that somebody renews, and a hold, for
longer: those may never end."""

_LOOKING: Final = 2.0
"""Seconds that the last look may take: who was told to stop has promised to end."""


def finds_nothing(claimed: Claimed) -> bool:
    """Whether a claim by a worker that held nothing says that nothing can be handled now."""
    if claimed.jobs or claimed.more or claimed.quiet:
        return False
    return claimed.next_due is None or claimed.next_due > SOON


async def tell(partitions: Partitions, log: FilteringBoundLogger) -> None:
    """Log what this process's events came to, and how many are left, by where they wait."""
    ended = {
        name: round(metrics.EVENTS.labels(name).total) for name in ("handled", "retried", "dead")
    }
    left = await asyncio.gather(*map(_left, partitions))
    # Of less than all of them there is no sum.
    sums = {name: sum(each[name] for each in left) for name in left[0]} if all(left) else {}
    log.info("burst_ended", **ended, **sums)


async def _left(partition: Partition) -> dict[str, int]:
    """Nothing where Redis doesn't answer: then only it knows."""
    with contextlib.suppress(TimeoutError, *REDIS_ERRORS):
        async with asyncio.timeout(_LOOKING), partition.redis.pipeline(transaction=False) as pipe:
            depths.ask(pipe, partition.names)
            found = depths.told(await pipe.execute(), *await depths.read_rest(partition))
            return {
                "left": found.waiting,
                "queued": found.queued,
                "leased": found.leased,
                "deferred": found.deferred,
                "parked": found.parked,
                "in_turn": found.in_turn,
            }
    return {}
