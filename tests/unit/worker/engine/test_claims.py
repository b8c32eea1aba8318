"""Facts about the time for which a worker takes nothing for suspects' sake."""

import asyncio
from itertools import pairwise

import pytest

from worker.engine.claims import Duty
from worker.pipeline.transitions import Claim, Claimed

ALONE, OTHER = Claim("org_a:1", "aa"), Claim("org_a:2", "bb")


class Clock:
    """Tells the time that it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def never() -> None:
    await asyncio.Event().wait()


async def at_once() -> None:
    """The worker holds nothing."""


def quiet(patience: int = 0) -> Claimed:
    return Claimed([], more=False, quiet=True, next_due=None, patience=patience)


def given(*claims: Claim) -> Claimed:
    jobs = [(claim, b"") for claim in claims]
    return Claimed(jobs, more=False, quiet=False, next_due=None, suspects=True)


@pytest.mark.parametrize(
    ("lease", "longest_handler", "first", "longest"),
    [(30, 65, 5, 66), (3, 65, 1, 66), (3600, 5.01, 5, 6.01), (1, 5.01, 1 / 3, 6.01)],
)
def test_the_first_while_is_short_and_the_longest_outlasts_any_handler(
    lease: float, longest_handler: float, first: float, longest: float
) -> None:
    duty = Duty.of(lease=lease, longest_handler=longest_handler)
    assert (duty.bound(0), duty.bound(2_000)) == (first, longest)
    bounds = [duty.bound(times) for times in range(20)]
    assert bounds == sorted(bounds)
    assert all(later <= 2 * one for one, later in pairwise(bounds))
    assert bounds[-1] == longest


async def test_a_worker_that_gives_up_works_for_everybody_for_as_long_as_it_waited() -> None:
    clock = Clock()
    duty = Duty(first=0.01, longest=60, clock=clock)
    seen = [duty.waits_for_none]
    await duty.wait(quiet(patience=2), never)
    for later in (0.0, 0.039, 0.002):
        clock.now += later
        seen.append(duty.waits_for_none)
    assert seen == [False, True, True, False]


async def test_a_worker_that_became_idle_waits_for_the_next_as_well() -> None:
    duty = Duty(first=60, longest=60)
    await duty.wait(quiet(), at_once)
    assert not duty.waits_for_none


async def test_suspects_that_take_long_keep_no_other_from_asking() -> None:
    duty = Duty(first=0.01, longest=60)
    await duty.wait(given(ALONE), never)
    assert not duty.waits_for_none


async def test_who_was_given_alone_is_known_while_it_is_held() -> None:
    duty = Duty(first=0.01, longest=60)
    await duty.wait(given(ALONE), never)
    await duty.wait(quiet(), never)  # another suspect waits now
    assert duty.alone({"aa", "bb"}) == ALONE
    assert duty.alone({"bb"}) is None
    assert duty.alone({"aa"}) is None


async def test_a_group_has_nobody_alone_in_it() -> None:
    duty = Duty(first=0.01, longest=60)
    await duty.wait(given(ALONE, OTHER), never)
    assert duty.alone({"aa", "bb"}) is None
