"""What operators do with one organization: stop its events, let them go on, read its state."""

from collections.abc import AsyncIterator
from typing import Any

from shared.errors import StateError, Unavailable
from shared.queue import keys, scripts
from shared.queue.partition import Partition
from worker.value import Value

_PAGE = 500
_GLOB = str.maketrans({character: f"\\{character}" for character in "\\*?[]^-"})


_PAUSE = scripts.load("pause")
_RESUME = scripts.load("resume")


async def pause(partition: Partition, organization: str, why: str) -> bool:
    """Let its events wait; whether it wasn't paused before.

    Raises:
        Unavailable: it is on its way to another partition (``organization_moving``).
    """
    return _is_changed(await partition.run(_PAUSE, organization, why))


async def pause_of(partition: Partition, organization: str) -> str | None:
    """Why it is paused; ``None`` while it isn't."""
    command = ("HGET", partition.names.organizations, keys.PAUSE + organization)
    why = await partition.redis.execute_command(*command)
    return None if why is None else why.decode(errors="replace")


async def resume(partition: Partition, organization: str, starts: float | None = None) -> bool:
    """Let its events go on, in the order of their acceptance; whether it was paused.

    Args:
        partition: where they are.
        organization: whose.
        starts: how many of them may start a second until none waits any more; without it a few, and
            twice as many each second.

    Raises:
        Unavailable: it is on its way to another partition (``organization_moving``).
    """
    starts_a_second = "" if starts is None else starts
    return _is_changed(await partition.run(_RESUME, organization, starts_a_second))


def _is_changed(answer: int | bytes) -> bool:
    if answer == b"moved":
        raise Unavailable(
            "organization_moving", "it is on its way to another partition: see partitions move"
        )
    return bool(answer)


async def stored_values(
    partition: Partition, organization: str, prefix: str = ""
) -> AsyncIterator[dict[str, Any]]:
    """Each value whose key starts with the prefix, in the order of the keys.

    One that is no JSON, which nothing of ours wrote, has an ``error`` rather than a value.
    Finding them walks over all keys in Redis, a page at a time.
    """
    start = partition.names.state(organization, "")
    pattern = partition.names.state(organization, prefix).translate(_GLOB) + "*"
    found = {name async for name in partition.redis.scan_iter(match=pattern, count=1000)}
    # A scan may give a name twice, and gives them in no order.
    names = sorted(found)
    for first in range(0, len(names), _PAGE):
        page = names[first : first + _PAGE]
        for name, raw in zip(page, await partition.redis.mget(page), strict=True):
            value = Value.parse(raw)
            if value.json:
                yield _shown(name.decode(errors="replace").removeprefix(start), value)


def _shown(key: str, value: Value) -> dict[str, Any]:
    try:
        return {"key": key, "value": value.decoded(key), "version": value.version}
    except StateError as exc:
        return {"key": key, "error": str(exc), "version": value.version}
