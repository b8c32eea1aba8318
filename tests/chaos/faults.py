"""The faults: each does its harm and, before it returns, ends it."""

import asyncio
import random
import resource
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from deploy.local.supervisor import Program
from tests.chaos.stage import LEASE_SECONDS, Stage

_PATIENCE: Final = 20.0


@dataclass(slots=True)
class Saboteur:
    """Draws what is hit, and how long it lasts.

    Attributes:
        stage: what is under fire.
        random: seeded.
    """

    stage: Stage
    random: random.Random

    async def ingress_killed(self) -> None:
        """SIGKILL an ingress; it comes back."""
        number = self.random.randrange(len(self.stage.ingresses))
        await self._killed(self.stage.ingresses[number])
        self.stage.ingresses[number] = await self.stage.start_ingress(number)

    async def ingress_terminated(self) -> None:
        """SIGTERM an ingress; it drains and comes back."""
        number = self.random.randrange(len(self.stage.ingresses))
        await self.stage.stop(self.stage.ingresses[number])
        self.stage.ingresses[number] = await self.stage.start_ingress(number)

    async def worker_killed(self) -> None:
        """SIGKILL a worker; it comes back."""
        number = self.random.randrange(len(self.stage.workers))
        async with self.stage.in_hand[number]:
            await self._killed(self.stage.workers[number])
            self.stage.workers[number] = await self.stage.start_worker(number)

    async def worker_terminated(self) -> None:
        """SIGTERM a worker; it drains and comes back."""
        number = self.random.randrange(len(self.stage.workers))
        async with self.stage.in_hand[number]:
            await self.stage.stop(self.stage.workers[number])
            self.stage.workers[number] = await self.stage.start_worker(number)

    async def worker_stopped_past_its_lease(self) -> None:
        """SIGSTOP a worker until others have its events, then let it go on."""
        worker = self.random.choice(self.stage.workers)
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE_SECONDS * (1.2 + self.random.random() / 2))
        worker.signal(signal.SIGCONT)

    async def worker_clock_wrong(self) -> None:
        """Run a worker whose clock is an hour ahead, or behind."""
        number = self.random.randrange(len(self.stage.workers))
        clock = self.random.choice([-3600.0, 3600.0])
        async with self.stage.in_hand[number]:
            await self.stage.stop(self.stage.workers[number])
            self.stage.workers[number] = await self.stage.start_worker(number, clock)
            await self._lasts(1.0, 2.0)
            await self.stage.stop(self.stage.workers[number])
            self.stage.workers[number] = await self.stage.start_worker(number)

    async def redis_killed(self) -> None:
        """SIGKILL Redis, and start it again on its append-only file."""
        self.stage.primary.kill()
        await self._lasts(0.1, 1.0)
        await self.stage.start_primary()

    async def redis_frozen(self) -> None:
        """SIGSTOP Redis for a while."""
        self.stage.primary.freeze()
        await self._lasts(0.5, 4.0)
        self.stage.primary.thaw()

    async def connections_cut(self) -> None:
        """Let replies end in their middle."""
        self.stage.proxy.cut_replies(self.random.randint(3, 12))
        async with asyncio.timeout(_PATIENCE):
            while self.stage.proxy.cuts_left:
                await asyncio.sleep(0.02)

    async def redis_readonly(self) -> None:
        """Make the primary a replica of nobody who is there, and then a primary again."""
        async with self.stage.redis() as redis:
            await redis.execute_command("REPLICAOF", "127.0.0.1", 1)
        await self._lasts(0.5, 2.0)
        await self.stage.promote()

    async def redis_full(self) -> None:
        """Reach maxmemory; workers go on, nothing more is accepted."""
        async with self.stage.redis() as redis:
            await redis.config_set("maxmemory", "1mb")
            await self._lasts(0.5, 2.0)
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
        async with asyncio.timeout(_PATIENCE):
            while "exiting" not in primary.log().lower().rpartition("ready to accept")[2]:
                await asyncio.sleep(0.05)
        primary.kill()
        await self.stage.start_primary()

    async def endpoints_rotated(self) -> None:
        """Give every organization a new secret: both are accepted, then only the new one."""
        current = self.stage.secrets.current
        old, turn = dict(current), self.random.randrange(10**9)
        new = {name: f"whsec_{name}_{turn}" for name in old}
        await self.stage.publish_endpoints(new, old)
        current.update(new)
        await asyncio.sleep(1.0)  # what was signed with the old ones is still on its way
        await self.stage.publish_endpoints(new)

    async def replica_promoted(self) -> None:
        """Kill the primary, promote its replica, and give that one a replica of its own."""
        stage = self.stage
        stage.primary.kill()
        stage.primary = stage.replica
        await stage.promote()
        stage.proxy.upstream = stage.primary.port
        stage.proxy.drop_all()
        await stage.new_replica()

    async def _killed(self, program: Program) -> None:
        program.signal(signal.SIGKILL)
        await self.stage.do(lambda: program.wait(_PATIENCE))

    async def _lasts(self, least: float, most: float) -> None:
        await asyncio.sleep(self.random.uniform(least, most))


Fault = Callable[[Saboteur], Awaitable[None]]

EVERYWHERE: Final[tuple[Fault, ...]] = (
    Saboteur.ingress_killed,
    Saboteur.ingress_terminated,
    Saboteur.worker_killed,
    Saboteur.worker_terminated,
    Saboteur.worker_stopped_past_its_lease,
    Saboteur.worker_clock_wrong,
    Saboteur.redis_killed,
    Saboteur.redis_frozen,
    Saboteur.connections_cut,
    Saboteur.redis_readonly,
    Saboteur.redis_full,
    Saboteur.scripts_flushed,
    Saboteur.disk_full,
    Saboteur.endpoints_rotated,
)
"""What every run has to survive, whatever the durability."""

REQUIRED: Final[dict[str, tuple[Fault, ...]]] = {
    "fsync": EVERYWHERE,
    "replica": (*EVERYWHERE, Saboteur.replica_promoted),
}
"""The kinds of fault that a run of each durability has to exercise."""


def name(fault: Fault) -> str:
    """What a fault is called."""
    return getattr(fault, "__name__", repr(fault)).replace("_", " ")


def schedule(
    durability: str, number: int, rng: random.Random, *, partial: bool = False
) -> list[Fault]:
    """So many faults in a random order, each kind as often as the others.

    Each kind comes at least once, unless the run is a part of one.
    """
    kinds = list(REQUIRED[durability])
    drawn: list[Fault] = []
    while len(drawn) < number:
        rng.shuffle(kinds)
        drawn += kinds
    return drawn[: number if partial else max(number, len(kinds))]
