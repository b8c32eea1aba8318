"""The faults of a primary with a replica."""

import asyncio
import resource
from dataclasses import dataclass
from typing import Final

from tests.chaos.faults import OF_PROGRAMS, PATIENCE, Fault, Saboteur
from tests.chaos.single import SingleStage


@dataclass(slots=True)
class SingleSaboteur(Saboteur):
    """Harms the primary as well."""

    stage: SingleStage

    async def redis_killed(self) -> None:
        """SIGKILL Redis, and start it again on its append-only file."""
        self.stage.primary.kill()
        await self.lasts(0.1, 1.0)
        await self.stage.start_primary()

    async def redis_frozen(self) -> None:
        """SIGSTOP Redis for a while."""
        self.stage.primary.freeze()
        await self.lasts(0.5, 4.0)
        self.stage.primary.thaw()

    async def connections_cut(self) -> None:
        """Let replies end in their middle."""
        self.stage.proxy.cut_replies(self.random.randint(3, 12))
        async with asyncio.timeout(PATIENCE):
            while self.stage.proxy.cuts_left:
                await asyncio.sleep(0.02)

    async def redis_readonly(self) -> None:
        """Make the primary a replica of nobody who is there, and then a primary again."""
        async with self.stage.redis() as redis:
            await redis.execute_command("REPLICAOF", "127.0.0.1", 1)
        await self.lasts(0.5, 2.0)
        await self.stage.promote()

    async def redis_full(self) -> None:
        """Reach maxmemory; workers go on, nothing more is accepted."""
        async with self.stage.redis() as redis:
            await redis.config_set("maxmemory", "1mb")
            await self.lasts(0.5, 2.0)
            await redis.config_set("maxmemory", "0")

    async def scripts_flushed(self) -> None:
        """Let Redis forget the scripts, as a failover does."""
        async with self.stage.redis() as redis:
            for _ in range(5):
                await redis.script_flush()
                await asyncio.sleep(0.1)

    async def disk_full(self) -> None:
        """Leave the append-only file no room: Redis exits, and is started with room."""
        primary = self.stage.primary
        files = primary.folder.glob("appendonlydir/*.incr.aof")
        size = max(file.stat().st_size for file in files)
        resource.prlimit(primary.pid, resource.RLIMIT_FSIZE, (size + 4096, size + 4096))
        async with asyncio.timeout(PATIENCE):
            while "exiting" not in primary.log().lower().rpartition("ready to accept")[2]:
                await asyncio.sleep(0.05)
        primary.kill()
        await self.stage.start_primary()

    async def replica_promoted(self) -> None:
        """Kill the primary, promote its replica, and give that one a replica of its own."""
        stage = self.stage
        stage.primary.kill()
        stage.primary = stage.replica
        await stage.promote()
        stage.proxy.upstream = stage.primary.port
        stage.proxy.drop_all()
        await stage.new_replica()


EVERYWHERE: Final[tuple[Fault, ...]] = (
    *OF_PROGRAMS,
    SingleSaboteur.redis_killed,
    SingleSaboteur.redis_frozen,
    SingleSaboteur.connections_cut,
    SingleSaboteur.redis_readonly,
    SingleSaboteur.redis_full,
    SingleSaboteur.scripts_flushed,
    SingleSaboteur.disk_full,
)
"""What both kinds of durability have to survive."""

REQUIRED: Final[dict[str, tuple[Fault, ...]]] = {
    "fsync": EVERYWHERE,
    "replica": (*EVERYWHERE, SingleSaboteur.replica_promoted),
}
"""The kinds of fault that a run of each durability has to exercise."""
