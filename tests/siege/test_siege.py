"""Facts about an ingress under attack: a few of the attacks, each for a short time."""

from typing import Final

import pytest

from tests.siege.genuine import Tally
from tests.siege.siege import Besieged

SECONDS: Final = 2.0
_SHIPPED: Final = 384 * 1024 * 1024
"""The memory that the manifest allows."""


def _are_accepted(tallies: dict[str, Tally]) -> bool:
    sent = sum(tally.sent for tally in tallies.values())
    return sum(tally.accepted for tally in tallies.values()) >= 0.99 * sent > 0


@pytest.mark.parametrize("name", ["falsely signed bodies", "a byte each", "tiny chunks", "heads"])
async def test_whoever_has_no_secret_hurts_nobody_who_has_one(name: str) -> None:
    async with Besieged.begun() as ingress:
        outcome = await ingress.attacked(name, SECONDS)
    assert _are_accepted(outcome.tallies), outcome.tallies
    assert _are_accepted(outcome.after), outcome.after
    assert outcome.rss <= 0.75 * _SHIPPED
