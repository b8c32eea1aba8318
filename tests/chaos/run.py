"""One run: events at a rate, faults one after the other, then quiet, then the account."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos import faults
from tests.chaos.checker import Verdict, check
from tests.chaos.faults import Fault, Saboteur
from tests.chaos.ledger import Ledger
from tests.chaos.sender import Sender
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
    """

    durability: str
    number: int
    events: int
    rate: float
    pause: float
    seed: int
    quiet_within: float = QUIET_WITHIN
    partial: bool = False


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Verdict:
    """Run it in an empty folder; what was found."""
    ledger = Ledger(folder / "ledger.jsonl")
    rng = random.Random(plan.seed)
    order = faults.schedule(plan.durability, plan.number, rng, partial=plan.partial)

    def problem(text: str) -> None:
        say(text)
        ledger.write("problem", text=text)

    async with Stage(folder, plan.durability, problem).running() as stage:
        sender = Sender(stage.ports, stage.secrets, ledger, random.Random(plan.seed + 1))
        stop = asyncio.Event()
        sending = asyncio.create_task(sender.run(plan.rate, stop))
        try:
            await _sabotage(plan, order, Saboteur(stage, rng), sender, ledger, say)
        finally:
            stop.set()
        await sending
        in_time = await _all_ended(stage)
        ledger.write("workers left", number=stage.left)
        ledger.write("all ended", in_time=in_time)
        ledger.close()
        required = [faults.name(fault) for fault in faults.REQUIRED[plan.durability]]
        async with stage.redis() as redis:
            return await check(folder, redis, required, plan.quiet_within)


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
        async with asyncio.timeout(_GIVE_UP), stage.redis() as redis:
            while await redis.zcard("sellfern:accepted"):
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False
    return True
