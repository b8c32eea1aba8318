"""Events that happen by themselves, at a rate."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

_LOOK_SECONDS: Final = 0.05  # how soon a rate or a subscription that has changed is seen
_LAGGED_SECONDS: Final = 1.0  # behind by more, what was missed is dropped rather than hurried


async def keep_happening(rate: Callable[[], float], happen: Callable[[], Awaitable[bool]]) -> None:
    """Let events happen for ever.

    Args:
        rate: events a second; it may change at any time, and 0 is a pause.
        happen: lets one happen; false if nobody wants any.
    """
    clock = asyncio.get_running_loop().time
    due = clock()
    while True:
        now, speed = clock(), rate()
        due = max(due, now - _LAGGED_SECONDS)
        if speed <= 0:
            await asyncio.sleep(_LOOK_SECONDS)
        elif now < due:
            await asyncio.sleep(min(_LOOK_SECONDS, due - now))
        elif await happen():
            due += 1 / speed
            await asyncio.sleep(0)  # a rate that can't be kept must not keep others from working
        else:
            await asyncio.sleep(_LOOK_SECONDS)
