"""The faults of programs: each does its harm and, before it returns, ends it."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from deploy.local.supervisor import Program
from tests.chaos.stage import LEASE_SECONDS, Stage

PATIENCE: Final = 20.0


@dataclass(slots=True)
class Saboteur:
    """Draws what is hit, and how long it lasts.

    Attributes:
        stage: what is under fire.
        random: seeded.
        harms: told whose events a fault may delay, where all others' may not be.
    """

    stage: Stage
    random: random.Random
    harms: Callable[[Iterable[str]], None]

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
            await self.lasts(1.0, 2.0)
            await self.stage.stop(self.stage.workers[number])
            self.stage.workers[number] = await self.stage.start_worker(number)

    async def endpoints_rotated(self) -> None:
        """Give every organization a new secret: both are accepted, then only the new one."""
        current = self.stage.secrets.current
        old, turn = dict(current), self.random.randrange(10**9)
        new = {name: f"whsec_{name}_{turn}" for name in old}
        await self.stage.publish_endpoints(new, old)
        current.update(new)
        await asyncio.sleep(1.0)  # what was signed with the old ones is still on its way
        await self.stage.publish_endpoints(new)

    async def _killed(self, program: Program) -> None:
        program.signal(signal.SIGKILL)
        await self.stage.do(lambda: program.wait(PATIENCE))

    async def lasts(self, least: float, most: float) -> None:
        """Wait for so many seconds."""
        await asyncio.sleep(self.random.uniform(least, most))


Fault = Callable[[Any], Awaitable[None]]
"""A method of a saboteur."""

OF_PROGRAMS: Final[tuple[Fault, ...]] = (
    Saboteur.ingress_killed,
    Saboteur.ingress_terminated,
    Saboteur.worker_killed,
    Saboteur.worker_terminated,
    Saboteur.worker_stopped_past_its_lease,
    Saboteur.worker_clock_wrong,
    Saboteur.endpoints_rotated,
)
"""What every run has to survive, wherever the events are kept."""


def name(fault: Fault) -> str:
    """What a fault is called."""
    return getattr(fault, "__name__", repr(fault)).replace("_", " ")


def schedule(
    required: Iterable[Fault], number: int, rng: random.Random, *, partial: bool = False
) -> list[Fault]:
    """So many faults in a random order, each kind as often as the others.

    Each kind comes at least once, unless the run is a part of one.
    """
    kinds = list(required)
    drawn: list[Fault] = []
    while len(drawn) < number:
        rng.shuffle(kinds)
        drawn += kinds
    return drawn[: number if partial else max(number, len(kinds))]
