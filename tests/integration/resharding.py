"""A slot of a cluster goes from one node to another, key by key, as ``redis-cli`` has it go."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from deploy.local.embedded_cluster import SLOTS, EmbeddedCluster
from deploy.local.embedded_redis import EmbeddedRedis

_ALL = 1_000_000


@dataclass(frozen=True, slots=True)
class Resharding:
    """One slot on its way.

    Attributes:
        cluster: whose it is.
        slot: its number.
        source: who has it.
        target: who gets it.
    """

    cluster: EmbeddedCluster
    slot: int
    source: EmbeddedRedis
    target: EmbeddedRedis

    @asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        """In the block the source has only those keys that it has still; behind it, none."""
        await self.begin()
        try:
            yield
        finally:
            await self.end()

    async def begin(self) -> None:
        """Let the source give the slot away."""
        await ask(self.target, "SETSLOT", self.slot, "IMPORTING", await name(self.source))
        await ask(self.source, "SETSLOT", self.slot, "MIGRATING", await name(self.target))

    async def keys(self) -> list[bytes]:
        """What of the slot is at the source."""
        found: list[bytes] = await ask(self.source, "GETKEYSINSLOT", self.slot, _ALL)
        return sorted(found)

    async def take(self, *keys: bytes) -> None:
        """Take some keys along."""
        if keys:
            async with Redis(port=self.source.port) as redis:
                where = ("127.0.0.1", self.target.port, "", 0, 30_000)
                await redis.execute_command("MIGRATE", *where, "KEYS", *keys)

    async def end(self) -> None:
        """Take the rest along, and tell all nodes."""
        await self.take(*await self.keys())
        owner = await name(self.target)
        others = (each for each in self.cluster.nodes if each is not self.target)
        for node in (self.target, *others):
            with contextlib.suppress(ResponseError):  # of a replica, which hears of it
                await ask(node, "SETSLOT", self.slot, "NODE", owner)

    async def held(self) -> dict[int, dict[bytes, bytes]]:
        """All keys of the slot as they stand, with who has them."""
        found = {}
        for node in (self.source, self.target):
            async with Redis(port=node.port) as redis:
                # Where a key has gone, or isn't yet known to be, nobody else would be answered.
                names = await ask(node, "GETKEYSINSLOT", self.slot, _ALL)
                found[node.port] = {each: await _dump(redis, each) for each in names}
        return found


async def _dump(redis: Redis, key: bytes) -> bytes:
    async with redis.pipeline(transaction=False) as pipe:
        pipe.execute_command("ASKING")
        pipe.dump(key)
        _, dumped = await pipe.execute()
    return bytes(dumped)


async def ask(node: EmbeddedRedis, *words: str | int) -> Any:
    """The node's answer to a command of the cluster's."""
    async with Redis(port=node.port) as redis:
        return await redis.execute_command("CLUSTER", *words)


async def name(node: EmbeddedRedis) -> str:
    """What the others call it."""
    return str((await ask(node, "MYID")).decode())


def resharding(cluster: EmbeddedCluster, slot: int) -> Resharding:
    """Of a slot to another primary."""
    owner = cluster.owner(slot)
    others = (cluster.owner(each) for each in range(0, SLOTS, SLOTS // 16))
    return Resharding(cluster, slot, owner, next(each for each in others if each is not owner))
