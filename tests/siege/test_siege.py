"""Facts about programs under attack: a few of the attacks, each for a short time."""

from typing import Final

import pytest

from tests.siege.genuine import Tally
from tests.siege.siege import Besieged
from tests.siege.worked import BesiegedWorker

pytestmark = pytest.mark.usefixtures("forked")

SECONDS: Final = 1.0
_SHIPPED: Final = 384 * 1024 * 1024
"""The memory that the manifest allows the ingress."""

_SHIPPED_WORKER: Final = 512 * 1024 * 1024
_STANDS: Final = 0.2
"""How long the worker's loop may stand, in seconds."""


def _are_accepted(tallies: dict[str, Tally]) -> bool:
    sent = sum(tally.sent for tally in tallies.values())
    return sum(tally.accepted for tally in tallies.values()) >= 0.99 * sent > 0


@pytest.mark.parametrize(
    "name",
    ["falsely signed bodies", "a byte each", "tiny chunks", "heads", "heads behind requests"],
)
async def test_whoever_has_no_secret_hurts_nobody_who_has_one(name: str) -> None:
    async with Besieged.begun() as ingress:
        outcome = await ingress.attacked(name, SECONDS)
    assert _are_accepted(outcome.tallies), outcome.tallies
    assert _are_accepted(outcome.after), outcome.after
    assert outcome.rss <= 0.75 * _SHIPPED


async def test_a_captured_delivery_of_a_dead_event_is_held_and_delays_nobody() -> None:
    async with BesiegedWorker.begun() as worker:
        outcome = await worker.attacked("captured", SECONDS)
    assert outcome.captured_runs == 2  # what was delivered, and revived once
    assert outcome.held > 0
    assert len(outcome.waits) == outcome.sent > 0
    assert not outcome.is_open


async def test_signed_garbage_fills_no_more_of_redis_than_its_senders_share() -> None:
    async with BesiegedWorker.begun() as worker:
        outcome = await worker.attacked("signed garbage", SECONDS)
    assert 0.2 < outcome.filled < 0.5  # a quarter, and what Redis takes for itself
    assert len(outcome.waits) == outcome.sent > 0


async def test_bodies_that_decode_to_much_fill_no_memory_and_hold_nobody_up() -> None:
    async with BesiegedWorker.begun() as worker:
        outcome = await worker.attacked("small objects", SECONDS)
    assert outcome.others > 0
    assert len(outcome.waits) == outcome.sent > 0
    assert outcome.rss <= 0.75 * _SHIPPED_WORKER
    assert outcome.stood <= _STANDS + 0.1  # a turn more or less until it is told
