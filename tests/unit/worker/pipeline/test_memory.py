"""Facts about the memory budget: what decoded bodies take, and who waits for it."""

import asyncio
import tracemalloc
from itertools import pairwise
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.observe import metrics
from worker.decoding import DataDecoder
from worker.pipeline.memory import DEFAULT, MemoryBudget, Share, estimate

KIB: Final = 1024
JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=30,
)
UNITS: Final = {
    "objects": b'{"a":1}',
    "objects of text": b'{"k":"v"}',
    "empty objects": b"{}",
    "empty lists": b"[]",
    "lists of lists": b"[[],[]]",
    "deep lists": b"[" * 100 + b"]" * 100,
    "deep objects": b'{"":' * 100 + b"0" + b"}" * 100,
    "numbers": b"1.5",
    "large whole numbers": b"1234567890123456789",
    "short texts": b'"ab"',
    "one letter of four bytes in each": '"😀aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"'.encode(),
    "one letter of two bytes in each": '"āaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"'.encode(),
    "orders": b'{"order_id":"A-1","status":"paid","total":1.5,"items":[{"sku":"x1","n":2}]}',
}


def taken(body: bytes) -> int:
    """Bytes that the decoded body has."""
    decode = DataDecoder().decode
    tracemalloc.start()  # what was there before isn't traced, nor is its end
    try:
        before, _ = tracemalloc.get_traced_memory()
        decoded = decode(body)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del decoded
    return after - before


@pytest.mark.parametrize("shape", UNITS)
def test_no_shape_takes_more_than_the_estimate(shape: str) -> None:
    unit = UNITS[shape]
    body = b"[" + b",".join([unit] * (100 * KIB // len(unit))) + b"]"
    assert taken(body) <= estimate(body)


def test_no_text_and_no_keys_take_more_than_the_estimate() -> None:
    for body in (
        b'{"a":"' + b"x" * 100_000 + b'"}',
        '{"a":"😀'.encode() + b"x" * 100_000 + b'"}',
        b'{"a":"' + b"\\u0101" * 10_000 + b'"}',
        b"{" + b",".join(b'"%d":0' % n for n in range(20_000)) + b"}",
        b"{" + b",".join('"😀%d":0'.encode() % n for n in range(20_000)) + b"}",
    ):
        assert taken(body) <= estimate(body)


@given(JSON)
def test_nothing_takes_more_than_the_estimate(value: object) -> None:
    body = msgspec.json.encode({"data": [value] * 20})
    assert taken(body) <= estimate(body)


# Who waits


class Asking:
    """Shares of a budget of 64 KiB: large from 1 KiB on, of which there may be 32 KiB at once."""

    def __init__(self) -> None:
        self.budget = MemoryBudget(64 * KIB, slots=1)
        self.has: list[str] = []

    def ask(self, name: str, kib: float, flow: str = "org_a") -> Share:
        share = self.budget.share(flow, round(kib * KIB))
        share.take(lambda _: self.has.append(name))
        return share

    async def settle(self) -> list[str]:
        """Who has been told by now."""
        for _ in range(20):
            await asyncio.sleep(0)
        return self.has


@pytest.fixture
def asking() -> Asking:
    return Asking()


async def test_who_fits_has_it_at_once_and_who_does_not_waits(asking: Asking) -> None:
    first = asking.ask("first", 20)
    second = asking.ask("second", 20)
    assert asking.has == ["first"]
    assert (first.waits, second.waits) == (False, True)
    first.give_back()
    assert await asking.settle() == ["first", "second"]
    assert not second.waits


async def test_one_that_is_larger_than_all_runs_alone(asking: Asking) -> None:
    first = asking.ask("first", 2)
    huge = asking.ask("huge", 1000)
    asking.ask("after", 2)
    assert await asking.settle() == ["first"]
    first.give_back()
    assert await asking.settle() == ["first", "huge"]
    huge.give_back()
    assert await asking.settle() == ["first", "huge", "after"]


async def test_small_ones_never_wait_for_large_ones(asking: Asking) -> None:
    asking.ask("huge", 1000)
    asking.ask("large", 2)
    asking.ask("small", 1)
    assert await asking.settle() == ["huge", "small"]


async def test_a_large_one_is_not_starved_by_those_that_would_fit(asking: Asking) -> None:
    shares = [asking.ask("a", 16), asking.ask("b", 16)]
    large = asking.ask("large", 30)
    for name in "cdefg":
        asking.ask(name, 2)
    shares[0].give_back()
    assert await asking.settle() == ["a", "b"]
    shares[1].give_back()
    assert await asking.settle() == ["a", "b", "large", "c"]
    large.give_back()
    assert sorted(await asking.settle()) == sorted(["large", *"abcdefg"])


async def test_organizations_take_turns(asking: Asking) -> None:
    held = asking.ask("held", 30)
    shares = {name: asking.ask(name, 30, "org_flood") for name in ("f1", "f2", "f3")}
    shares |= {name: asking.ask(name, 30, "org_b") for name in ("b1", "b2")}
    order = []
    held.give_back()
    for _ in range(5):
        order.append((await asking.settle())[-1])
        shares[order[-1]].give_back()
    assert order == ["f1", "b1", "f2", "b2", "f3"]


async def test_who_waits_no_longer_goes_on_and_takes_nothing(asking: Asking) -> None:
    before = metrics.DECODED_BYTES._value.get()
    held = asking.ask("held", 30)
    gone = asking.ask("gone", 1000)
    asking.ask("next", 2)
    gone.wait_no_longer()
    gone.wait_no_longer()
    assert await asking.settle() == ["held", "gone", "next"]
    gone.give_back()
    held.give_back()
    assert metrics.DECODED_BYTES._value.get() == before + 2 * KIB
    asking.ask("last", 30)
    assert (await asking.settle())[-1] == "last"


async def test_who_has_it_is_not_told_again(asking: Asking) -> None:
    asking.ask("held", 2).wait_no_longer()
    assert await asking.settle() == ["held"]


async def test_there_is_one_a_turn_of_the_loop(asking: Asking) -> None:
    """What is told decodes, which may take a tenth of a second each."""
    held = asking.ask("held", 1000)
    for name in "abcd":
        asking.ask(name, 2)
    held.give_back()
    counts = []
    for _ in range(6):
        await asyncio.sleep(0)
        counts.append(len(asking.has))
    assert counts[-1] == 5
    assert all(after - before <= 1 for before, after in pairwise(counts))


async def test_a_long_row_of_those_that_give_back_at_once_is_no_deep_stack(
    asking: Asking,
) -> None:
    held = asking.ask("held", 1000)
    ended = []
    for number in range(2000):
        share = asking.budget.share("org_a", 2 * KIB)

        def end(_: None, share: Share = share, number: int = number) -> None:
            ended.append(number)
            share.give_back()

        share.take(end)
    held.give_back()
    async with asyncio.timeout(20):
        while len(ended) < 2000:
            await asyncio.sleep(0)
    assert ended == list(range(2000))


@pytest.mark.parametrize("slots", [1, 100, 10_000])
def test_what_nobody_counts_is_bounded_by_the_slots(slots: int) -> None:
    most = MemoryBudget(slots=slots).most_uncounted
    worst = b"[" + b",".join([b"{}"] * ((most - 1) // 3)) + b"]"
    assert slots * estimate(worst) <= DEFAULT // 4


def test_an_ordinary_event_is_not_counted() -> None:
    assert MemoryBudget(slots=100).most_uncounted > 2 * KIB
