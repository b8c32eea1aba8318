"""What operators do with one organization: stop its events, see why they wait, read its state."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from shared.display import roughly
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


# Why its events wait


def fields_of(organization: str) -> list[str]:
    """Of the hash of organizations, those that say why its events may wait."""
    return [prefix + organization for prefix in (keys.PAUSE, keys.HOLD, keys.BREAKER)]


def why_it_waits(state: str, told: Sequence[Any], now: float) -> str:
    """Why it waits, for people; empty where that has to do with neither.

    Args:
        state: where the event is.
        told: since when no worker could handle it, as ``settle.lua`` has it; what the fields of
            its organization say; and its rate, if there is one.
        now: seconds since the epoch.
    """
    unhandled, said, rate = told
    if state == "deferred" and isinstance(unhandled, bytes):
        return f"since no worker could handle it from {_clock(unhandled)} on"
    if state != "parked":
        return ""
    texts = said if isinstance(said, list) else [None] * 3
    pause, hold, breaker = map(_text, texts)
    return (
        _paused(pause)
        or _held(hold, now)
        or _broken(breaker, now)
        or ("its organization's rate, or cap" if rate else "its organization has no free slot")
    )


def _paused(pause: str | None) -> str:
    return "" if pause is None else f"its organization is paused ({pause})"


def _held(hold: str | None, now: float) -> str:
    until, _, reason = (hold or "").partition(":")
    if not until.isdigit() or int(until) / 1000 <= now:
        return ""
    left = roughly(int(until) / 1000 - now)
    return f"its organization's own system asks for fewer calls, {left} still ({reason})"


def _broken(breaker: str | None, now: float) -> str:
    state, _, rest = (breaker or "").partition(":")
    if state == "open" and rest.isdigit():
        left = roughly(max(0.0, int(rest) / 1000 - now))
        return f"its organization's handlers kept failing: one event is tried in {left}"
    if state == "trying":
        return "its organization's handlers kept failing: one event is tried"
    return ""


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode(errors="replace")


def _clock(raw: bytes) -> str:
    at = int(raw) / 1000 if raw.isdigit() else 0.0
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
