"""Python looks for cycles of garbage less often, and still finds them."""

import gc
import mmap
import os
import time
import weakref
from collections.abc import Iterator

import pytest

from shared.program import garbage


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


class Cycle:
    """Refers to itself, so that only the collector ends it."""

    def __init__(self) -> None:
        self.me = self


def test_what_was_there_before_the_work_is_looked_at_no_more() -> None:
    there = Cycle()
    before = gc.get_freeze_count()
    garbage.tune()
    assert gc.get_freeze_count() > before
    assert not any(each is there for each in gc.get_objects())


def test_a_cycle_that_the_work_leaves_is_found() -> None:
    garbage.tune()
    left = weakref.ref(Cycle())
    assert left() is not None
    kept: list[list[object]] = []
    while left() is not None:
        kept.append([])
        assert len(kept) < 100_000


class Process:
    """Has a size, of which collecting frees a part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.size = 100
        self.garbage = 0
        self.collected = 0
        self.now = 0.0
        monkeypatch.setattr(gc, "collect", self.collect)
        monkeypatch.setattr(garbage, "_return_memory", lambda: None)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.watch = garbage.Watch(lambda: self.size, growth=10)

    def collect(self) -> int:
        self.collected += 1
        self.size -= self.garbage
        self.garbage = 0
        return 0

    def grow(self, kept: int, left: int = 0) -> int:
        """Grow, look after a while, and tell how often garbage has been collected by now."""
        self.size += kept + left
        self.garbage += left
        self.now += 1
        self.watch.look()
        return self.collected


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(monkeypatch)


def test_garbage_is_collected_when_the_process_has_grown(process: Process) -> None:
    assert [process.grow(0, left) for left in (9, 1, 9, 1, 0)] == [0, 1, 1, 2, 2]


def test_what_is_kept_is_gone_through_ever_less_often(process: Process) -> None:
    assert [process.grow(10) for _ in range(16)] == [1, 1, 2, 2, 2, 2, 3, *[3] * 7, 4, 4]


def test_who_has_found_garbage_again_looks_as_often_as_before(process: Process) -> None:
    assert process.grow(10) == 1
    assert process.grow(9) == 1
    assert process.grow(0, 11) == 2
    assert process.grow(0, 10) == 3


def test_a_process_that_shrank_may_grow_from_there(process: Process) -> None:
    assert process.grow(-50) == 0
    assert process.grow(0, 10) == 1


def test_two_looks_in_a_row_cost_one(process: Process) -> None:
    process.watch.look()
    process.size += 100
    process.watch.look()
    assert process.collected == 0
    assert process.grow(0) == 1


def test_the_size_is_that_of_the_process() -> None:
    size = garbage._size_of_process()
    before = size()
    # Not what other tests have left to the allocator.
    held = mmap.mmap(-1, 64 * 1024 * 1024)
    for offset in range(0, len(held), mmap.PAGESIZE):
        held[offset] = 1
    assert 60 * 1024 * 1024 < size() - before < 70 * 1024 * 1024
    del held


def test_where_there_is_no_proc_the_size_is_the_largest_that_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(os, "open", missing)
    size = garbage._size_of_process.__wrapped__()
    monkeypatch.undo()
    assert 10 * 1024 * 1024 < size() < 100 * 1024**3
