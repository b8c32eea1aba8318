"""Facts about what is called flat."""

import pytest

from tests.bench.memory import _growth


def test_what_is_reached_by_the_half_is_no_growth() -> None:
    assert _growth([40, 50, 60, 60, 60, 60, 60, 60, 60, 60]) == 1.0


def test_what_leaks_in_each_part_is() -> None:
    assert _growth([100.0 + part for part in range(10)]) == pytest.approx(108.5 / 105.5)


def test_one_part_alone_decides_nothing() -> None:
    assert _growth([60, 60, 60, 60, 60, 60, 60, 60, 60, 66]) == pytest.approx(1.05)
