"""Counts anew what organizations hold in Redis, since marks and state expire without a word."""

import asyncio
from typing import Final

from redis.asyncio import Redis

from shared.queue import scripts

_RECOUNT = scripts.load("recount")

_LOOKED_AT_ONCE: Final = 500
_PAUSE: Final = 0.005
"""Seconds between two looks: others need Redis, too. Four minutes are some 20 million keys."""

_GOOD_SECONDS: Final = 86_400.0
_GOOD_WHILE_REFUSED: Final = 600.0
"""Seconds for which a count is good where an organization was refused since: it may hold less."""


async def recount(redis: Redis, *, retention: float) -> None:
    """Go on with the count until it ends, unless the last one is good still.

    How far it is stands in Redis: whoever stops in the midst, another goes on.

    Args:
        redis: where they hold it.
        retention: seconds for which a mark is kept. A count is good for a day, or for as long as
            that where it is less: so no more marks have expired than there are.
    """
    good_for = (
        round(min(_GOOD_SECONDS, retention) * 1000),
        round(_GOOD_WHILE_REFUSED * 1000),
    )
    goes_on = True
    while goes_on:
        goes_on = await _RECOUNT(redis, _LOOKED_AT_ONCE, *good_for) == b"goes on"
        await asyncio.sleep(_PAUSE)
