"""One run: events at a rate, faults one after the other, then quiet, then the account."""

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos import cluster_faults, faults, single_faults
from tests.chaos.checker import Verdict, check
from tests.chaos.cluster import ClusterStage
from tests.chaos.cluster_faults import ClusterSaboteur
from tests.chaos.faults import Fault, Saboteur
from tests.chaos.ledger import Ledger
from tests.chaos.others import Bounds
from tests.chaos.sender import Sender
from tests.chaos.single import SingleStage
from tests.chaos.single_faults import SingleSaboteur
from tests.chaos.stage import LEASE_SECONDS, Stage

QUIET_WITHIN: Final = 2.0 * LEASE_SECONDS
"""Two leases."""

_GIVE_UP: Final = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does.

    Attributes:
        durability: ``fsync`` or ``replica``.
        number: of faults at least; each kind comes at least once, unless it is partial.
        events: that have to be accepted at least, before it ends.
        rate: events begun a second.
        pause: seconds between two faults.
        seed: draws events and faults.
        quiet_within: seconds after the last fault in which everything has to end.
        partial: whether what is not exercised fails nothing.
        in_cluster: on a cluster rather than on one primary.
        bounds: what a fault of the cluster may cost whom it doesn't concern.
        only: the names of some kinds, where the others are left out.
    """

    durability: str
    number: int
    events: int
    rate: float
    pause: float
    seed: int
    quiet_within: float = QUIET_WITHIN
    partial: bool = False
    in_cluster: bool = False
    bounds: Bounds = field(default_factory=Bounds)
    only: tuple[str, ...] = ()

    @property
    def required(self) -> tuple[Fault, ...]:
        """The kinds of fault that it has to exercise."""
        of_one = single_faults.REQUIRED[self.durability]
        every = cluster_faults.REQUIRED if self.in_cluster else of_one
        return tuple(each for each in every if not self.only or faults.name(each) in self.only)


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Verdict:
    """Run it in an empty folder; what was found."""
    ledger = Ledger(folder / "ledger.jsonl")
    rng = random.Random(plan.seed)
    order = faults.schedule(plan.required, plan.number, rng, partial=plan.partial)

    def problem(text: str) -> None:
        say(text)
        ledger.write("problem", text=text)

    def harms(organizations: Iterable[str]) -> None:
        ledger.write("harms", organizations=list(organizations))

    stage, saboteur = _set_up(plan, folder, rng, problem, harms)
    async with stage.running():
        sender = Sender(stage.ports, stage.secrets, ledger, random.Random(plan.seed + 1))
        stop = asyncio.Event()
        sending = asyncio.create_task(sender.run(plan.rate, stop))
        try:
            await _sabotage(plan, order, saboteur, sender, ledger, say)
        finally:
            stop.set()
        await sending
        in_time = await _all_ended(stage)
        ledger.write("workers left", number=stage.left)
        ledger.write("all ended", in_time=in_time)
        ledger.close()
        required = [faults.name(fault) for fault in plan.required]
        bounds = plan.bounds if plan.in_cluster else None
        async with stage.primaries() as primaries:
            return await check(folder, primaries, required, plan.quiet_within, bounds)


def _set_up(
    plan: Plan,
    folder: Path,
    rng: random.Random,
    problem: Callable[[str], None],
    harms: Callable[[Iterable[str]], None],
) -> tuple[Stage, Saboteur]:
    if plan.in_cluster:
        nodes = ClusterStage(folder, plan.durability, problem)
        return nodes, ClusterSaboteur(nodes, rng, harms)
    stage = SingleStage(folder, plan.durability, problem)
    return stage, SingleSaboteur(stage, rng, harms)


async def _sabotage(
    plan: Plan,
    order: list[Fault],
    saboteur: Saboteur,
    sender: Sender,
    ledger: Ledger,
    say: Callable[[str], None],
) -> None:
    for number, fault in enumerate(order, 1):
        await asyncio.sleep(plan.pause)
        while number == len(order) and sender.accepted < plan.events:
            await asyncio.sleep(0.1)  # on a slow machine the last fault waits for enough events
        say(f"{number}/{len(order)} {faults.name(fault)}, accepted {sender.accepted}")
        ledger.write("fault began", fault=faults.name(fault))
        await fault(saboteur)
        ledger.write("fault ended", fault=faults.name(fault))


async def _all_ended(stage: Stage) -> bool:
    """Wait until nothing that was accepted is unfinished; whether that came."""
    try:
        async with asyncio.timeout(_GIVE_UP):
            while await stage.has_more():
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False
    return True
