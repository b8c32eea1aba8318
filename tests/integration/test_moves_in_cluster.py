"""Facts about moves of organizations while slots of a cluster move as well."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
from redis.crc import key_slot

from deploy.local.embedded_cluster import EmbeddedCluster
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions, open_partitions
from shared.redis.connection import REDIS_ERRORS
from shared.redis.wire import Argument, Script
from tests.integration.moves import ORG, SHORT, Shop
from tests.integration.resharding import Resharding, resharding
from tests.integration.test_cluster import in_cluster
from worker.operate.belongings import Belongings
from worker.operate.moving import Move


class Runs:
    """Counts what a mover runs, and has a slot of a cluster move before one of these.

    Args:
        monkeypatch: puts it in place until the test ends.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._run, self._before = Partition.run, 0
        self._moves: Resharding | None = None
        self.number = 0

        async def run(partition: Partition, script: Script, *arguments: Argument) -> Any:
            self.number += 1
            if self._moves and self.number == self._before:
                await self._moves.begin()
                await self._moves.take(*(await self._moves.keys())[:: self._step])
            return await self._run(partition, script, *arguments)

        monkeypatch.setattr(Partition, "run", run)

    @asynccontextmanager
    async def with_moving(self, slot: Resharding, before: int, step: int) -> AsyncIterator[None]:
        """In the block the slot moves, each of so many of its keys; behind it, all have."""
        self.number, self._moves, self._before, self._step = 0, slot, before, step
        try:
            yield
        finally:
            self._moves = None
            if self.number >= before:
                await slot.end()


async def test_slots_of_a_cluster_may_move_in_the_middle_of_it(
    redis_cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any of a mover's scripts, that of where it is or where it goes to, half or wholly."""
    runs, settings = Runs(monkeypatch), in_cluster(redis_cluster.url, 4)
    async with (
        open_partitions(settings, connections=20) as partitions,
        open_partitions(settings, connections=3) as movers,
    ):
        shop, here, failed = Shop(partitions), 0, 0
        await shop.deliver("done")
        await shop.deliver("bad", bad=True)
        await shop.work_off(0)
        for before in count(1):
            to = before % 4
            goes = partitions.all[(here, to)[before // 2 % 2]]
            slot = resharding(redis_cluster, key_slot(goes.names.tag.encode()))
            await shop.deliver("done")
            async with runs.with_moving(slot, before, 1 + before % 2):
                try:
                    await Move(movers, ORG, movers.all[to], SHORT).run()
                except REDIS_ERRORS:
                    failed += 1
            if runs.number < before:
                break
            await until_found(movers)
            await Move(movers, ORG, movers.all[to], SHORT).run()
            await until_found(partitions)
            await shop.work_off(to)
            there = partitions.all[to]
            assert await shop.state(there) == {"done": str(shop.sent["done"]).encode()}
            assert await there.redis.zcard(there.names.dead(ORG)) == 1
            assert await shop.state(partitions.all[here]) == {}
            here = to
    assert failed > before / 2 > 4


async def test_no_look_at_names_is_taken_for_all_while_a_slot_moves(
    redis_cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that gives a slot away tells, of a look at names, those that it has still."""
    run, look = Partition.run, Belongings.value_names
    async with open_partitions(in_cluster(redis_cluster.url, 4), connections=20) as partitions:
        shop, (here, there) = Shop(partitions), partitions.all[:2]
        await shop.deliver("done")
        await shop.work_off(0)
        await here.redis.hset(here.names.rates, "another", "1")
        await here.redis.zadd(here.names.breakers, {"another": 9e12})
        slot = resharding(redis_cluster, key_slot(here.names.tag.encode()))

        async def dies(partition: Partition, script: Script, *arguments: Argument) -> Any:
            if script.name == "join":
                raise asyncio.CancelledError
            return await run(partition, script, *arguments)

        monkeypatch.setattr(Partition, "run", dies)
        with pytest.raises(asyncio.CancelledError):
            await Move(partitions, ORG, there, SHORT).run()
        monkeypatch.setattr(Partition, "run", run)
        values = [name async for names in look(Belongings(here, ORG)) for name in names]
        for name in values:
            await there.redis.delete(
                name.replace(here.names.tag.encode(), there.names.tag.encode())
            )

        async def meanwhile(its: Belongings) -> AsyncIterator[list[bytes]]:
            await slot.begin()
            await slot.take(*values)
            async for names in look(its):
                yield names

        monkeypatch.setattr(Belongings, "value_names", meanwhile)
        with pytest.raises(REDIS_ERRORS):
            await Move(partitions, ORG, there, SHORT).run()
        monkeypatch.setattr(Belongings, "value_names", look)
        await slot.end()
        await until_found(partitions)
        await Move(partitions, ORG, there, SHORT).run()
        assert await shop.state(there) == {"done": b"1"}


async def until_found(partitions: Partitions) -> None:
    """Have connections find out where slots are."""
    async with asyncio.timeout(60):
        for each in partitions:
            while True:
                try:
                    await each.redis.exists(each.names.accepted)
                except REDIS_ERRORS:
                    await asyncio.sleep(0.02)
                else:
                    break
