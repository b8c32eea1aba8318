"""The faults of a cluster, and of moves in it."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from deploy.local.embedded_redis import EmbeddedRedis
from deploy.local.supervisor import Program
from tests.chaos.cluster import PARTITIONS, REPLICAS, WAITED_FOR, ClusterStage, slot_of
from tests.chaos.faults import OF_PROGRAMS, Fault, Saboteur
from tests.integration.resharding import ask, resharding

_MOVES_AT_ONCE: Final = 50
"""Keys of a slot that moves."""

_MOVE_SECONDS: Final = 90.0
"""A mover that has been killed holds its lock for a while."""

_MOST_MOVES: Final = 3

_STEPS: Final = (
    "looking for its events",
    "copying events",
    "copying dead letters",
    "copying state and marks",
    "clearing away",
)
"""What a mover says that it does."""


@dataclass(slots=True)
class ClusterSaboteur(Saboteur):
    """Harms nodes as well, and whoever moves an organization."""

    stage: ClusterStage

    async def primary_killed(self) -> None:
        """SIGKILL a primary; when a replica has taken its place, it comes back as one."""
        async with self._failing_primary() as victim:
            victim.kill()
            await self._taken_over(victim)
            await self.stage.start_node(victim)

    async def primary_frozen(self) -> None:
        """SIGSTOP a primary until a replica has taken its place."""
        async with self._failing_primary() as victim:
            victim.freeze()
            await self._taken_over(victim)
            victim.thaw()

    async def primary_cut_off(self) -> None:
        """Let nothing pass between a primary and other nodes, while all clients reach it still.

        Where all replicas are waited for, one may be on its side.
        """
        async with self._failing_primary() as victim:
            gone = [victim]
            if WAITED_FOR[self.stage.durability] == REPLICAS and self.random.random() < 0.5:
                gone += [self.random.choice(await self.stage.replicas_of(victim))]
            await self.stage.network.cut_off(*map(self.stage.address, gone))
            try:
                await self._taken_over(*gone)
            finally:
                await self.stage.network.heal()

    async def primary_restarted(self) -> None:
        """SIGKILL a primary, and start it on its file before anybody takes its place."""
        async with self._failing_primary() as victim:
            victim.kill()
            await self.lasts(0.1, 0.8)
            await self.stage.start_node(victim)

    async def replica_killed(self) -> None:
        """SIGKILL a replica, and start it again."""
        async with self._failing_replica() as victim:
            victim.kill()
            await self.lasts(0.5, 4.0)
            await self.stage.start_node(victim)

    async def replica_frozen(self) -> None:
        """SIGSTOP a replica for a while."""
        async with self._failing_replica() as victim:
            victim.freeze()
            await self.lasts(0.5, 4.0)
            victim.thaw()

    async def nodes_restarted_in_turn(self) -> None:
        """Restart all, the replicas first; each primary hands over before."""
        primaries = set((await self.stage.owners()).values())
        for node in sorted(self.stage.cluster.nodes, key=lambda node: node in primaries):
            if node in primaries:
                await self.stage.hand_over(node)
            await self.stage.do(node.stop)
            await self.stage.start_node(node)
            await self.stage.until_whole()

    async def slot_resharded(self) -> None:
        """Take a partition's slot to another primary, some keys at a time."""
        partition = self.random.randrange(PARTITIONS)
        slot = slot_of(partition)
        move = await asyncio.to_thread(resharding, self.stage.cluster, slot)
        self.harms(self.stage.living_in(partition))
        await move.begin()
        while keys := await ask(move.source, "GETKEYSINSLOT", slot, _MOVES_AT_ONCE):
            await move.take(*keys)
            await asyncio.sleep(0.005)
        await move.end()
        await self.stage.until_whole()

    async def organization_moved(self) -> None:
        """Move one to another partition; nobody dies."""
        name, target = self._drawn_move()
        await self._moved(name, target)

    async def mover_killed(self) -> None:
        """SIGKILL a mover wherever it is; another one goes on."""
        name, target = self._drawn_move()
        await self._half_moved(name, target)
        await self._moved(name, target)

    async def primary_killed_as_it_moves(self) -> None:
        """SIGKILL a primary that an organization is leaving, or is to have."""
        name, target = self._drawn_move()
        owners = await self.stage.owners()
        victim = owners[self.random.choice([self.stage.places[name], target])]
        mover = await self._mover(name, target)
        await self._said(mover, self.random.choice(_STEPS))
        victim.kill()
        await self._taken_over(victim)
        await self.stage.start_node(victim)
        await self.stage.do(lambda: mover.wait(_MOVE_SECONDS))
        await self._moved(name, target)
        await self.stage.until_whole()

    async def scripts_flushed(self) -> None:
        """Let all primaries forget the scripts."""
        async with self.stage.primaries() as primaries:
            for _ in range(5):
                for redis in primaries:
                    await redis.script_flush()
                await asyncio.sleep(0.1)

    async def primary_full(self) -> None:
        """Let a primary reach maxmemory: workers go on, it accepts nothing more."""
        redis = self.stage.client(await self._drawn_primary())
        await redis.config_set("maxmemory", "1mb")
        await self.lasts(0.5, 2.0)
        await redis.config_set("maxmemory", "0")

    @contextlib.asynccontextmanager
    async def _failing_primary(self) -> AsyncIterator[EmbeddedRedis]:
        """A primary; behind the block all is whole again."""
        victim = await self._drawn_primary()
        self.harms(await self._living_at(victim))
        yield victim
        await self.stage.until_whole()

    @contextlib.asynccontextmanager
    async def _failing_replica(self) -> AsyncIterator[EmbeddedRedis]:
        primary = await self._drawn_primary()
        is_needed = WAITED_FOR[self.stage.durability] == REPLICAS
        self.harms(await self._living_at(primary) if is_needed else ())
        yield self.random.choice(await self.stage.replicas_of(primary))
        await self.stage.until_whole()

    async def _living_at(self, primary: EmbeddedRedis) -> set[str]:
        owners = await self.stage.owners()
        owned = [number for number, node in owners.items() if node is primary]
        return self.stage.living_in(*owned)

    async def _drawn_primary(self) -> EmbeddedRedis:
        """One that has partitions."""
        owners = await self.stage.owners()
        return owners[self.random.randrange(PARTITIONS)]

    async def _taken_over(self, *away: EmbeddedRedis) -> None:
        """Wait until replicas have what was theirs, and then for a moment."""
        await self.stage.until_taken_over(*away)
        await self.lasts(0.1, 1.0)

    def _drawn_move(self) -> tuple[str, int]:
        name = self.random.choice(sorted(self.stage.places))
        others = [each for each in range(PARTITIONS) if each != self.stage.places[name]]
        return name, self.random.choice(others)

    async def _mover(self, name: str, target: int) -> Program:
        words = ("-m", "worker", "partitions", "move", name, str(target))
        return await self.stage.start_program("mover", self.stage.environ(), *words)

    async def _half_moved(self, name: str, target: int) -> None:
        """End a mover at a step that is drawn, or a moment later."""
        mover = await self._mover(name, target)
        await self._said(mover, self.random.choice(_STEPS))
        await self.lasts(0.0, 0.03)
        mover.signal(signal.SIGKILL)
        await self.stage.do(lambda: mover.wait(_MOVE_SECONDS))

    async def _moved(self, name: str, target: int) -> None:
        """Move it; again, where its handlers take too long."""
        for left in reversed(range(_MOST_MOVES)):
            mover = await self._mover(name, target)
            code = await asyncio.to_thread(mover.wait, _MOVE_SECONDS)
            if not code:
                self.stage.places[name] = target
                return
            if not left:
                self.stage.say(f"{mover.name} ended with code {code}, see {mover.log}")

    async def _said(self, mover: Program, step: str) -> None:
        """Wait until it has begun a step, or ended."""
        async with asyncio.timeout(_MOVE_SECONDS):
            while mover.is_running and step not in mover.log.read_text():
                await asyncio.sleep(0.002)


REQUIRED: Final[tuple[Fault, ...]] = (
    *OF_PROGRAMS,
    ClusterSaboteur.primary_killed,
    ClusterSaboteur.primary_frozen,
    ClusterSaboteur.primary_cut_off,
    ClusterSaboteur.primary_restarted,
    ClusterSaboteur.primary_full,
    ClusterSaboteur.replica_killed,
    ClusterSaboteur.replica_frozen,
    ClusterSaboteur.nodes_restarted_in_turn,
    ClusterSaboteur.slot_resharded,
    ClusterSaboteur.scripts_flushed,
    ClusterSaboteur.organization_moved,
    ClusterSaboteur.mover_killed,
    ClusterSaboteur.primary_killed_as_it_moves,
)
"""The kinds of fault that a run on a cluster has to exercise."""
