"""Facts about the shares that partitions have of a worker's slots."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from worker.engine.asked import AskedClaims
from worker.engine.claims import Duty
from worker.engine.together import Together
from worker.pipeline.transitions import Claimed, Transitions


def wanting(weight: float = 1, *, busy: int = 0, reserved: int = 0, hungry: bool = True) -> Any:
    """Claims, as far as they are looked at here."""
    return SimpleNamespace(
        weight=weight,
        slots=SimpleNamespace(busy=busy),
        asked=SimpleNamespace(reserved=reserved, is_late=False),
        running={},
        is_hungry=hungry,
    )


def together(slots: int, *several: Any) -> Together:
    made = Together(slots, Duty(first=1, longest=1))
    made.all += several
    return made


def taken(slots: int, *several: Any) -> list[int]:
    """How many each has once nobody may have another one; they ask by turns."""
    shared = together(slots, *several)
    while any([_takes_one(shared, each) for each in several]):  # noqa: C419  # each has its turn
        pass
    return [each.slots.busy for each in several]


def _takes_one(shared: Together, claims: Any) -> bool:
    may = claims.is_hungry and shared.free(claims) > 0
    claims.slots.busy += may
    return bool(may)


def test_one_that_has_work_alone_may_have_all_slots() -> None:
    assert taken(24, wanting(), wanting(hungry=False), wanting(hungry=False)) == [24, 0, 0]


def test_hungry_ones_have_slots_by_the_weights_of_those_that_wait() -> None:
    assert taken(24, wanting(9), wanting(), wanting(), wanting()) == [18, 2, 2, 2]


@pytest.mark.parametrize("slots", [1, 2, 5, 10, 20, 100])
@pytest.mark.parametrize("weights", [(9, 1, 1, 1), (1, 1, 1), (0.5, 7.25), (1,) * 16])
def test_no_slot_is_left_while_some_are_hungry(slots: int, weights: tuple[float, ...]) -> None:
    assert sum(taken(slots, *map(wanting, weights))) == slots


def test_what_others_have_already_is_theirs_until_it_ends() -> None:
    greedy = wanting(busy=10)
    assert taken(10, greedy, wanting()) == [10, 0]
    greedy.slots.busy = 6
    newcomer = wanting()
    shared = together(10, greedy, newcomer)
    assert (shared.free(greedy), shared.free(newcomer)) == (-1, 4)


def test_what_is_on_its_way_has_its_slots_already() -> None:
    shared = together(10, wanting(reserved=4), wanting(busy=3))
    assert [shared.free(each) for each in shared.all] == [1, 2]


def test_nobody_but_who_is_quiet_may_say_that_the_worker_holds_nothing() -> None:
    one, other = wanting(), wanting()
    shared = together(10, one, other)
    assert [shared.holding(each) for each in (one, other)] == [1, 1]
    shared._quiet_for = one
    assert [shared.may_ask(each) for each in (one, other)] == [True, False]
    assert [shared.holding(each) for each in (one, other)] == [0, 1]
    other.asked.reserved = 2  # what they bring would be its neighbours
    assert shared.holding(one) == 1
    other.asked.reserved, other.running = 0, {"token": None}
    assert shared.holding(one) == 1


def test_who_is_quiet_may_ask_though_its_share_is_taken_by_the_suspect() -> None:
    """Or it would never hear of what comes next, and nobody else may ask meanwhile."""
    several = [wanting() for _ in range(16)]
    shared = together(10, *several)
    several[0].slots.busy = 1
    assert shared.free(several[0]) == 0
    shared._quiet_for = several[0]
    assert shared.free(several[0]) == 9


def test_nobody_waits_for_a_suspect_of_a_redis_that_does_not_answer() -> None:
    one, other = wanting(), wanting()
    shared = together(10, one, other)
    shared._quiet_for = one
    one.asked.is_late = True
    assert shared.may_ask(other)
    suspects = Claimed([], more=False, quiet=False, next_due=None, suspects=True)
    assert shared.room(one, suspects) == 10
    other.running = {"token": None}  # it would be its neighbour
    assert shared.room(one, suspects) == 0


async def test_a_change_has_as_many_go_on_as_there_are_slots_by_one_look_at_each() -> None:
    """Each of many that looked at all would cost the square of how many there are."""
    looks, gone = 0, list[Any]()

    class Waiting(SimpleNamespace):
        @property
        def is_hungry(self) -> bool:
            nonlocal looks
            looks += 1
            return True

        def __hash__(self) -> int:  # type: ignore[override]  # by which it waits
            return id(self)

        def go_on(self) -> int:
            free = shared.free(cast("Any", self))
            if free > 0:
                gone.append(self)
            return max(0, free)

    several: list[Any] = []
    for _ in range(64):
        fields = vars(wanting(busy=1))
        del fields["is_hungry"]
        several.append(Waiting(**fields))
    shared = together(64, *several)
    shared.waiting |= dict.fromkeys(reversed(several))  # who has waited longest comes first
    for each in several[:3]:
        each.slots.busy = 0
        shared.changed.set()
    await asyncio.sleep(0)
    assert gone == several[2::-1]
    assert looks <= 2 * 64


async def test_a_claim_of_a_redis_that_is_far_is_late_by_its_own_round_trips() -> None:
    """What it brings would be given back, and asked for anew, again and again."""
    changed = asyncio.Event()
    asked = AskedClaims("w1", cast("Transitions", None), 30, changed)
    asked.late = 0.01, 4

    async def far(seconds: float) -> list[int]:
        async def claim(*, base: str) -> Claimed:
            await asyncio.sleep(seconds)
            return Claimed([], more=False, quiet=False, next_due=None, suspects=False)

        reserved = []
        asked.send(claim, most=5, was_idle=True)
        while not asked.answered:
            reserved.append(asked.reserved)
            await asyncio.sleep(0.001)
        asked.read()
        return reserved

    assert 0 in await far(0.1)  # nobody knows yet how far it is
    assert set(await far(0.1)) == {5}
    assert asked.reserved == 0
