"""Who is asked which node has a slot, and how often, with nodes that do as they are told."""

import asyncio

import pytest
from redis.exceptions import ClusterDownError

from shared.redis.cluster import Slots

Node = tuple[str, int]
A, B, C, D = (("a", 1), ("b", 2), ("c", 3), ("d", 4))


class Told(Slots):
    """Asks nodes that say what they are told to, and fail where they are told nothing.

    Attributes:
        says: by node, who has all slots.
        asked: which ones were.
    """

    def __init__(self, *hosts: Node, says: dict[Node, Node]) -> None:
        super().__init__(hosts, tls=None)
        self.says = says
        self.asked: list[Node] = []

    async def _ask(self, node: Node) -> list[tuple[int, int, Node]]:
        self.asked.append(node)
        await asyncio.sleep(0)
        if node not in self.says:
            raise ConnectionRefusedError(node)
        return [(0, 9, self.says[node])]

    def _is_old(self) -> None:
        """Let what is known be too old for whoever doubts it."""
        self._asked = -1.0


async def doubted(slots: Told) -> Node:
    """The owner, once the last answer is some time ago."""
    slots._is_old()
    return await slots.owner(0, is_doubtful=True)


async def test_all_that_doubt_at_once_are_told_by_one_answer() -> None:
    slots = Told(A, B, says={A: C, B: C})
    assert set(await asyncio.gather(*(slots.owner(n, is_doubtful=True) for n in range(9)))) == {C}
    assert slots.asked == [A]
    assert await slots.owner(0, is_doubtful=False) == C
    assert await slots.owner(0, is_doubtful=True) == C  # that was a moment ago
    assert slots.asked == [A]
    with pytest.raises(ClusterDownError):
        await slots.owner(10, is_doubtful=False)


async def test_where_no_node_answers_nobody_waits_for_that_after_the_others() -> None:
    slots = Told(A, B, C, D, says={})
    asking = (slots.owner(n, is_doubtful=True) for n in range(9))
    failures = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(each) for each in failures} == {ConnectionRefusedError}
    assert slots.asked == [A, B, C]
    slots.says = {D: D}
    assert await doubted(slots) == D  # which is the next one


async def test_each_time_another_one_is_asked_since_one_that_is_cut_off_may_lie() -> None:
    slots = Told(A, says={A: B, B: B, C: C})
    assert [await doubted(slots) for _ in range(3)] == [B, B, B]
    assert slots.asked == [A, B, A]
    slots.suggest(C)
    assert await slots.owner(0, is_doubtful=True) == C  # it is the first to know, at once
    assert slots.asked[3:] == [C]
    del slots.says[C]
    assert [await doubted(slots) for _ in range(2)] == [B, B]


async def test_a_question_that_is_cancelled_costs_no_node() -> None:
    slots = Told(A, says={A: A})
    for _ in range(3):
        asking = asyncio.create_task(doubted(slots))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
    assert await doubted(slots) == A
