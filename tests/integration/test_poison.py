"""One job ends every worker that runs it, and workers are killed beside: who is buried, and when.

Workers do what `worker.engine.worker` has them do, a step at a time, in an order that is drawn.
"""

import math
from dataclasses import dataclass, field
from random import Random

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from tests.integration.by_hand import Hand
from tests.integration.jobs import NOTHING, account, delivery, enqueued, record_of
from worker.pipeline.transitions import Claim, Settled

JOBS, WORKERS, MOST_CLAIMS = 40, 3, 3


@dataclass
class Hands:
    """A worker that lives.

    Attributes:
        held: what it holds.
        lone: the suspect that it was given alone.
        is_quiet: it takes nothing, until it holds nothing or has waited enough.
        has_given_up: it has waited enough for a suspect.
    """

    held: list[Claim] = field(default_factory=list)
    lone: Claim | None = None
    is_quiet: bool = False
    has_given_up: bool = False


class Fleet:
    """Workers, the first of which die with the poison or by somebody's hand.

    Args:
        hand: the transitions.
        random: draws what happens.
        slots: of each worker.
    """

    def __init__(self, hand: Hand, random: Random, slots: int) -> None:
        self.hand, self.random, self.slots = hand, random, slots
        self.workers = {f"w{number}": Hands() for number in range(WORKERS)}
        self.poison = ""
        self.buried: list[str] = []
        self.deaths = 0
        self.in_company = 0
        self.kills = 5

    async def run(self) -> None:
        """Go on until nothing is unfinished."""
        jobs = await enqueued(self.hand.redis, *(delivery(b"%d" % n) for n in range(JOBS)))
        self.poison = self.random.choice(jobs)
        for _ in range(5_000):
            if not await self.hand.redis.exists(keys.ACCEPTED):
                return
            await self.step(self.random.choice(list(self.workers)))
        raise AssertionError("it doesn't end")

    async def step(self, name: str) -> None:
        """Let one worker do something, or end."""
        worker = self.workers[name]
        if not worker.held:
            worker.is_quiet = False
        draw = self.random.random()
        if draw < 0.05 and worker.held and not worker.lone and self.kills:
            self.kills -= 1
            await self.die(name)
        elif draw < 0.4 and worker.is_quiet:
            self.wait_no_longer(worker)
        elif draw < 0.6 and not worker.is_quiet:
            await self.claim(name, worker)
        elif worker.held:
            await self.end_one(name, worker)

    def wait_no_longer(self, worker: Hands) -> None:
        """The while is over, unless it has been doubled often enough for any handler."""
        if all(claim.claims < 4 for claim in worker.held):
            worker.is_quiet, worker.has_given_up = False, not worker.lone

    async def claim(self, name: str, worker: Hands) -> None:
        claimed = await self.hand.transitions.claim(
            name,
            most=min(self.slots - len(worker.held), self.random.randint(1, 48)),
            lease=30,
            holding=len(worker.held),
            slots=self.slots,
            waits_for_none=worker.has_given_up,
            no_more_alone=worker.lone,
        )
        if claimed.jobs and worker.lone:
            self.in_company += worker.lone.job == self.poison
            worker.lone = None
        worker.has_given_up = False
        worker.is_quiet = claimed.quiet or claimed.suspects
        if claimed.suspects and len(claimed.jobs) == 1:
            worker.lone = claimed.jobs[0][0]
        for claim, _ in claimed.jobs:
            await self.start(worker, claim)

    async def start(self, worker: Hands, claim: Claim) -> None:
        """Do as the pipeline does, which buries before it handles."""
        if claim.claims < MOST_CLAIMS or not claim.alone:
            worker.held.append(claim)
            return
        assert await self.hand.dead(claim, "crashed") is Settled.DEAD
        self.buried.append(claim.job)
        worker.lone = None

    async def end_one(self, name: str, worker: Hands) -> None:
        claim = self.random.choice(worker.held)
        if claim.job == self.poison:
            self.deaths += 1
            await self.die(name)
            return
        await self.hand.finish([claim])
        worker.held.remove(claim)
        if claim is worker.lone:
            worker.lone = None

    async def die(self, name: str) -> None:
        """All its leases are over; another one of its name starts."""
        for claim in self.workers[name].held:
            await self.hand.come_due(claim.job)
        self.workers[name] = Hands()


@pytest.mark.parametrize("slots", [1, 8, 100])
@pytest.mark.parametrize("seed", range(6))
async def test_the_poison_is_buried_and_nobody_else_ever(
    redis: Redis, seed: int, slots: int
) -> None:
    """After so few deaths as it takes to tell one of the slots from the others, by eighths."""
    hand = Hand(redis)
    await hand.cap(1_000)
    fleet = Fleet(hand, Random(seed), slots)
    await fleet.run()
    assert fleet.buried == [fleet.poison]
    assert (await record_of(redis, fleet.poison))["reason"] == "crashed"
    assert await account(redis) == NOTHING
    assert await redis.exists(keys.SUSPECTS) == 0
    by_eighths = math.ceil(math.log(slots, 8))
    assert fleet.deaths <= 2 + by_eighths + 1 + fleet.in_company
