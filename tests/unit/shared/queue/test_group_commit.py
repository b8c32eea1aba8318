"""Facts about batches that form while another is on its way."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.queue.group_commit import GroupCommit


def flow(item: bytes) -> bytes:
    """What stands before a colon; without one, all items are of one flow."""
    return item.rpartition(b":")[0]


def submit(commits: GroupCommit[bytes, int], item: bytes) -> "asyncio.Future[int]":
    return commits.submit(item, flow(item), len(item))


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
    commits: GroupCommit[bytes, int] = GroupCommit(gate.send)
    first = submit(commits, b"1")
    await gate.started.acquire()
    others = [submit(commits, item) for item in (b"22", b"333")]
    gate.go.release()
    assert await first == 1
    gate.go.release()
    assert [await other for other in others] == [2, 3]
    assert gate.batches == [[b"1"], [b"22", b"333"]]


async def test_a_batch_is_bounded_by_number_and_bytes() -> None:
    gate = Gate()
    commits: GroupCommit[bytes, int] = GroupCommit(gate.send, most_items=2, most_bytes=10)
    gate.go = asyncio.Semaphore(10)
    items = [b"1", b"2", b"3", b"x" * 50, b"y" * 6, b"z" * 6]
    assert await asyncio.gather(*(submit(commits, item) for item in items)) == [1, 1, 1, 50, 6, 6]
    assert gate.batches == [[b"1", b"2"], [b"3"], [b"x" * 50], [b"y" * 6], [b"z" * 6]]


async def test_a_batch_that_fails_fails_for_each_who_waits_and_the_next_goes_on() -> None:
    calls = 0

    async def send(items: list[bytes]) -> Sequence[int | Exception]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("away")
        return [1] * len(items)

    commits: GroupCommit[bytes, int] = GroupCommit(send)
    results = await asyncio.gather(
        submit(commits, b"1"), submit(commits, b"2"), return_exceptions=True
    )
    assert [str(result) for result in results] == ["away", "away"]
    assert await submit(commits, b"3") == 1


async def test_who_fails_over_a_result_keeps_nobody_else_from_theirs() -> None:
    async def send(items: list[bytes]) -> Sequence[int | Exception]:
        return [len(item) for item in items]

    def fail(_: int | Exception) -> None:
        raise ValueError("mine")

    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: raised.append(context["exception"])
    )
    commits: GroupCommit[bytes, int] = GroupCommit(send)
    commits.post(b"1", fail, b"", 1)
    async with asyncio.timeout(10):
        assert await submit(commits, b"22") == 2
    assert [str(each) for each in raised] == ["mine"]
    assert await submit(commits, b"333") == 3


async def test_one_items_exception_is_its_own() -> None:
    async def send(items: list[bytes]) -> Sequence[int | Exception]:
        return [KeyError("mine") if item == b"bad" else 1 for item in items]

    commits: GroupCommit[bytes, int] = GroupCommit(send)
    bad, good = submit(commits, b"bad"), submit(commits, b"good")
    assert await good == 1
    with pytest.raises(KeyError):
        await bad


async def test_who_gave_up_waiting_does_not_disturb_the_others() -> None:
    gate = Gate()
    commits: GroupCommit[bytes, int] = GroupCommit(gate.send)
    gone, stays = submit(commits, b"1"), submit(commits, b"2")
    await gate.started.acquire()
    gone.cancel()
    gate.go.release()
    assert await stays == 1


async def test_draining_waits_for_everything_that_was_submitted() -> None:
    gate = Gate()
    commits: GroupCommit[bytes, int] = GroupCommit(gate.send, most_items=1)
    futures = [submit(commits, b"1"), submit(commits, b"2")]
    gate.go = asyncio.Semaphore(2)
    await commits.drain()
    assert all(future.done() for future in futures)


async def test_flows_take_turns_and_each_keeps_its_order() -> None:
    gate = Gate()
    commits: GroupCommit[bytes, int] = GroupCommit(gate.send, most_items=3)
    gate.go = asyncio.Semaphore(10)
    items = [b"a:1", b"a:2", b"a:3", b"a:4", b"b:1", b"b:2", b"c:1"]
    await asyncio.gather(*(submit(commits, item) for item in items))
    assert gate.batches == [[b"a:1", b"b:1", b"c:1"], [b"a:2", b"b:2", b"a:3"], [b"a:4"]]


async def test_another_lane_is_for_a_full_batch() -> None:
    gate = Gate()
    commits: GroupCommit[bytes, int] = GroupCommit(gate.send, most_items=2, lanes=3)
    futures = [submit(commits, b"a:1")]
    await gate.started.acquire()
    futures.append(submit(commits, b"a:2"))  # no full batch
    await asyncio.sleep(0)
    assert gate.batches == [[b"a:1"]]
    futures += [submit(commits, b"a:%d" % number) for number in (3, 4, 5, 6)]
    for _ in range(2):
        await gate.started.acquire()
    assert gate.batches == [[b"a:1"], [b"a:2", b"a:3"], [b"a:4", b"a:5"]]
    futures.append(submit(commits, b"a:7"))  # a full one, and no lane for it
    gate.go.release()
    await gate.started.acquire()
    assert gate.batches[3:] == [[b"a:6", b"a:7"]]
    futures.append(submit(commits, b"a:8"))  # goes once nothing else is on its way
    for _ in range(4):
        gate.go.release()
    await asyncio.gather(*futures)
    assert gate.batches[4:] == [[b"a:8"]]


async def test_another_lane_is_for_as_many_bytes_as_fill_a_batch() -> None:
    gate = Gate()
    commits: GroupCommit[bytes, int] = GroupCommit(gate.send, most_bytes=6, lanes=2)
    futures = [submit(commits, b"a:1")]
    await gate.started.acquire()
    futures += [submit(commits, b"a:2"), submit(commits, b"a:3")]
    await gate.started.acquire()
    assert gate.batches == [[b"a:1"], [b"a:2", b"a:3"]]
    for _ in range(2):
        gate.go.release()
    await asyncio.gather(*futures)


async def test_far_away_what_has_waited_takes_another_lane() -> None:
    gate = Gate()
    commits: GroupCommit[bytes, int] = GroupCommit(gate.send, lanes=3, apart=0.005)
    first = submit(commits, b"a:1")
    await gate.started.acquire()
    await asyncio.sleep(0.011)  # so long is a round trip
    gate.go.release()
    assert await first == 3
    others = [submit(commits, b"a:2")]
    for number in (3, 4):
        await gate.started.acquire()
        others.append(submit(commits, b"a:%d" % number))
    async with asyncio.timeout(10):
        await gate.started.acquire()  # the lanes are full
    others.append(submit(commits, b"a:5"))
    assert gate.batches == [[b"a:1"], [b"a:2"], [b"a:3"], [b"a:4"]]
    gate.go.release()
    async with asyncio.timeout(10):
        await gate.started.acquire()
    for _ in range(3):
        gate.go.release()
    assert await asyncio.gather(*others) == [3] * 4
    assert gate.batches[4:] == [[b"a:5"]]


async def test_near_by_nothing_goes_beside_another_batch_that_would_not_fill_one() -> None:
    gate = Gate()
    commits: GroupCommit[bytes, int] = GroupCommit(gate.send, lanes=3, apart=0.005)
    first = submit(commits, b"a:1")
    gate.go.release()
    assert await first == 3
    others = [submit(commits, b"a:2")]
    await gate.started.acquire()
    await gate.started.acquire()
    others.append(submit(commits, b"a:3"))
    await asyncio.sleep(0.02)  # one that is slow for once is not far
    assert gate.batches == [[b"a:1"], [b"a:2"]]
    for _ in range(2):
        gate.go.release()
    assert await asyncio.gather(*others) == [3, 3]


async def test_an_item_that_comes_in_the_moment_of_a_batchs_end_is_sent() -> None:
    sent: list[bytes] = []

    async def send(items: list[bytes]) -> Sequence[int | Exception]:
        sent.extend(items)
        return [1] * len(items)

    commits: GroupCommit[bytes, int] = GroupCommit(send)
    async with asyncio.timeout(5):
        for number in range(100):
            assert await submit(commits, b"%d" % number) == 1
    assert len(sent) == 100


@given(
    items=st.lists(st.binary(min_size=1, max_size=2), max_size=60),
    lanes=st.integers(1, 4),
    apart=st.sampled_from((None, 1e-6)),
)
def test_whatever_is_submitted_is_sent_once_and_answered(
    items: list[bytes], lanes: int, apart: float | None
) -> None:
    sent: list[bytes] = []
    together = 0

    async def send(batch: list[bytes]) -> Sequence[int | Exception]:
        nonlocal together
        together += 1
        assert together <= lanes
        for _ in range(len(batch) % 3):
            await asyncio.sleep(0)
        together -= 1
        sent.extend(batch)
        return [item[0] for item in batch]

    async def run() -> list[int]:
        commits: GroupCommit[bytes, int] = GroupCommit(send, most_items=3, lanes=lanes, apart=apart)
        futures = []
        for number, item in enumerate(items):
            futures.append(commits.submit(item, item, 1))
            if number % 4 == 0:
                await asyncio.sleep(0)
        return await asyncio.gather(*futures)

    assert asyncio.run(run()) == [item[0] for item in items]
    assert sorted(sent) == sorted(items)
