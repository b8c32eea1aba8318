"""What is in the system right now, read without scanning anything."""

from collections.abc import Mapping

import msgspec
from redis.asyncio import Redis

from shared import keys

_DEAD_PREFIX = "dead:"
_CLOSED = (None, None)


class OrganizationOverview(msgspec.Struct, frozen=True):
    """One organization's share.

    Attributes:
        organization: its id; ``?`` gathers jobs that belong to none.
        waiting: accepted events that are not finished.
        running: of these, leased by a worker.
        dead: dead letters.
        paused: why its events wait; ``None`` while they don't.
        breaker: ``open`` while its events wait since its handlers kept failing, ``trying`` while
            one of them is let through; ``None`` otherwise.
        breaker_seconds: until an open breaker lets one through.
    """

    organization: str
    waiting: int
    running: int
    dead: int
    paused: str | None
    breaker: str | None
    breaker_seconds: float | None


class Overview(msgspec.Struct, frozen=True):
    """The whole system.

    Attributes:
        waiting: accepted events that are not finished.
        ready: of these, in line for a worker.
        running: of these, leased by a worker.
        deferred: of these, not due yet.
        dead: dead letters.
        oldest_seconds: age of the oldest unfinished event; ``None`` without one.
        counters: what has happened since the beginning, by name.
        dead_by_reason: what was buried since the beginning, by reason.
        organizations: each one's share.
    """

    waiting: int
    ready: int
    running: int
    deferred: int
    dead: int
    oldest_seconds: float | None
    counters: dict[str, int]
    dead_by_reason: dict[str, int]
    organizations: list[OrganizationOverview]


async def read_overview(redis: Redis) -> Overview:
    """Read it in one round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.zcard(keys.ACCEPTED)
        pipe.zcount(keys.QUEUE, "-inf", f"({keys.DEFERRED_FROM}")
        pipe.zcount(keys.QUEUE, keys.DEFERRED_FROM, "+inf")
        pipe.zrange(keys.ACCEPTED, 0, 0, withscores=True)
        pipe.time()
        pipe.hgetall(keys.ORGANIZATIONS)
        for name in (keys.COUNTERS, keys.WAITING, keys.RUNNING, keys.BURIED):
            pipe.hgetall(name)
        waiting, ready, scheduled, oldest, now, profiles, *hashes = await pipe.execute()
    moment = now[0] + now[1] / 1e6
    paused = _pauses(profiles)
    breakers = _breakers(profiles, moment)
    counters, waits, runs, buried = map(_numbers, hashes)
    running = sum(runs.values())
    return Overview(
        waiting=waiting,
        ready=ready,
        running=running,
        deferred=max(0, scheduled - running),
        dead=sum(buried.values()),
        oldest_seconds=max(0.0, moment - oldest[0][1] / 1000) if oldest else None,
        counters={k: v for k, v in counters.items() if not k.startswith(_DEAD_PREFIX)},
        dead_by_reason={
            k.removeprefix(_DEAD_PREFIX): v
            for k, v in counters.items()
            if k.startswith(_DEAD_PREFIX)
        },
        organizations=[
            OrganizationOverview(
                organization=name,
                waiting=waits.get(name, 0),
                running=runs.get(name, 0),
                dead=buried.get(name, 0),
                paused=paused.get(name),
                breaker=breakers.get(name, _CLOSED)[0],
                breaker_seconds=breakers.get(name, _CLOSED)[1],
            )
            for name in sorted({*waits, *runs, *buried, *paused, *breakers})
        ],
    )


def _pauses(profiles: Mapping[bytes, bytes]) -> dict[str, str]:
    found = {name.decode(errors="replace"): raw for name, raw in profiles.items()}
    return {
        name.removeprefix(keys.PAUSE): why.decode(errors="replace")
        for name, why in found.items()
        if name.startswith(keys.PAUSE)
    }


def _breakers(profiles: Mapping[bytes, bytes], now: float) -> dict[str, tuple[str, float | None]]:
    """The breakers that are not closed: their state, and how many seconds it lasts if known."""
    found: dict[str, tuple[str, float | None]] = {}
    for field, raw in profiles.items():
        name = field.decode(errors="replace")
        state, _, rest = raw.decode(errors="replace").partition(":")
        if name.startswith(keys.BREAKER) and state != "closed":
            seconds = max(0.0, float(rest) / 1000 - now) if state == "open" else None
            found[name.removeprefix(keys.BREAKER)] = (state, seconds)
    return found


def _numbers(raw: Mapping[bytes, bytes]) -> dict[str, int]:
    return {name.decode(errors="replace"): int(value) for name, value in sorted(raw.items())}
