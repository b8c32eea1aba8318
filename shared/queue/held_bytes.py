"""What organizations hold in Redis, and what Redis has."""

import contextlib
import heapq
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import msgspec

from shared.queue.partition import Partition

_KINDS: Final = ("waiting", "dead", "marks", "state")

HeldBytes = dict[str, int]
"""By kind, as ``prelude/bytes.lua`` counts them."""


class RedisMemory(msgspec.Struct, frozen=True):
    """The memory of a Redis.

    Attributes:
        used: bytes that count against its limit.
        limit: ``maxmemory``, bytes; 0: none.
    """

    used: int = 0
    limit: int = 0

    @property
    def is_full(self) -> bool:
        """Whether it takes no more."""
        return 0 < self.limit <= self.used

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Self:
        """What its ``INFO memory`` says."""
        # What replicas and the file are still to get doesn't count for Redis either.
        apart = int(info.get("mem_not_counted_for_evict", 0))
        return cls(int(info.get("used_memory", 0)) - apart, int(info.get("maxmemory", 0)))


def by_organization(raw: Mapping[bytes, bytes]) -> dict[str, HeldBytes]:
    """What the hash ``Names.bytes`` says."""
    held: dict[str, HeldBytes] = {}
    for field, number in raw.items():
        organization, _, kind = field.decode(errors="replace").rpartition(":")
        with contextlib.suppress(ValueError):  # somebody's hand wrote it; the recount removes it
            held.setdefault(organization, {})[kind] = max(0, int(number))
    return held


async def of(partition: Partition, organizations: Sequence[str]) -> dict[str, HeldBytes]:
    """What some of them hold."""
    fields = [f"{organization}:{kind}" for organization in organizations for kind in _KINDS]
    if not fields:
        return {}
    numbers = await partition.redis.execute_command("HMGET", partition.names.bytes, *fields)
    found = zip(map(str.encode, fields), numbers, strict=True)
    return by_organization({field: number for field, number in found if number is not None})


def largest(held: Mapping[str, HeldBytes], most: int) -> list[str]:
    """Those that hold most, all kinds together."""
    return heapq.nlargest(most, held, key=lambda organization: sum(held[organization].values()))
