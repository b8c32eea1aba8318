"""Python looks for cycles of garbage less often, and still finds them."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from shared import garbage


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


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
