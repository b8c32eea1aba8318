"""Facts about batches that form while another is on its way."""

import asyncio
from collections.abc import Sequence

import pytest

from shared.group_commit import GroupCommit


class Gate:
    """A sender that waits until it is let go, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.started = asyncio.Semaphore(0)
        self.go = asyncio.Semaphore(0)

    async def send(self, items: list[bytes]) -> Sequence[int | Exception]:
        self.batches.append(items)
        self.started.release()
        await self.go.acquire()
        return [len(item) for item in items]


async def test_what_comes_during_a_batch_is_the_next_batch() -> None:
    gate = Gate()
    commits: GroupCommit[bytes, int] = GroupCommit(gate.send, weigh=len)
    first = commits.submit(b"1")
    await gate.started.acquire()
    others = [commits.submit(item) for item in (b"22", b"333")]
    gate.go.release()
    assert await first == 1
    gate.go.release()
    assert [await other for other in others] == [2, 3]
    assert gate.batches == [[b"1"], [b"22", b"333"]]


async def test_a_batch_is_bounded_by_number_and_bytes() -> None:
    gate = Gate()
    commits: GroupCommit[bytes, int] = GroupCommit(
        gate.send, weigh=len, most_items=2, most_bytes=10
    )
    gate.go = asyncio.Semaphore(10)
    items = [b"1", b"2", b"3", b"x" * 50, b"y" * 6, b"z" * 6]
    assert await asyncio.gather(*map(commits.submit, items)) == [1, 1, 1, 50, 6, 6]
    assert gate.batches == [[b"1", b"2"], [b"3"], [b"x" * 50], [b"y" * 6], [b"z" * 6]]


async def test_a_batch_that_fails_fails_for_each_who_waits_and_the_next_goes_on() -> None:
    calls = 0

    async def send(items: list[bytes]) -> Sequence[int | Exception]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("away")
        return [1] * len(items)

    commits: GroupCommit[bytes, int] = GroupCommit(send, weigh=len)
    results = await asyncio.gather(
        commits.submit(b"1"), commits.submit(b"2"), return_exceptions=True
    )
    assert [str(result) for result in results] == ["away", "away"]
    assert await commits.submit(b"3") == 1


async def test_one_items_exception_is_its_own() -> None:
    async def send(items: list[bytes]) -> Sequence[int | Exception]:
        return [KeyError("mine") if item == b"bad" else 1 for item in items]

    commits: GroupCommit[bytes, int] = GroupCommit(send, weigh=len)
    bad, good = commits.submit(b"bad"), commits.submit(b"good")
    assert await good == 1
    with pytest.raises(KeyError):
        await bad


async def test_who_gave_up_waiting_does_not_disturb_the_others() -> None:
    gate = Gate()
    commits: GroupCommit[bytes, int] = GroupCommit(gate.send, weigh=len)
    gone, stays = commits.submit(b"1"), commits.submit(b"2")
    await gate.started.acquire()
    gone.cancel()
    gate.go.release()
    assert await stays == 1


async def test_draining_waits_for_everything_that_was_submitted() -> None:
    gate = Gate()
    commits: GroupCommit[bytes, int] = GroupCommit(gate.send, weigh=len, most_items=1)
    futures = [commits.submit(b"1"), commits.submit(b"2")]
    gate.go = asyncio.Semaphore(2)
    await commits.drain()
    assert all(future.done() for future in futures)
