"""What operators do with one organization: stop its events, let them go on, read its state."""

from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis

from shared.errors import StateError
from shared.queue import keys, scripts
from worker.value import Value

_PAGE = 500
_GLOB = str.maketrans({character: f"\\{character}" for character in "\\*?[]^-"})


_PAUSE = scripts.load("pause")
_RESUME = scripts.load("resume")


async def pause(redis: Redis, organization: str, why: str) -> bool:
    """Let its events wait; whether it wasn't paused before."""
    return bool(await _PAUSE(redis, organization, why))


async def resume(redis: Redis, organization: str, starts: float | None = None) -> bool:
    """Let its events go on, in the order of their acceptance; whether it was paused.

    Args:
        redis: where they are.
        organization: whose.
        starts: how many of them may start a second until none waits any more; without it a few, and
            twice as many each second.
    """
    return bool(await _RESUME(redis, organization, "" if starts is None else starts))


async def stored_values(
    redis: Redis, organization: str, prefix: str = ""
) -> AsyncIterator[dict[str, Any]]:
    """Each value whose key starts with the prefix, in the order of the keys.

    One that is no JSON, which nothing of ours wrote, has an ``error`` rather than a value.
    Finding them walks over all keys in Redis, a page at a time.
    """
    start = keys.state(organization, "")
    pattern = keys.state(organization, prefix).translate(_GLOB) + "*"
    found = {name async for name in redis.scan_iter(match=pattern, count=1000)}
    # A scan may give a name twice, and gives them in no order.
    names = sorted(found)
    for first in range(0, len(names), _PAGE):
        page = names[first : first + _PAGE]
        for name, raw in zip(page, await redis.mget(page), strict=True):
            value = Value.parse(raw)
            if value.json:
                yield _shown(name.decode(errors="replace").removeprefix(start), value)


def _shown(key: str, value: Value) -> dict[str, Any]:
    try:
        return {"key": key, "value": value.decoded(key), "version": value.version}
    except StateError as exc:
        return {"key": key, "error": str(exc), "version": value.version}
