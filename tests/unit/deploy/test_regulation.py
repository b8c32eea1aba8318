"""Facts about the load of the scale demo."""

import pytest

from deploy.local.regulation import Ramp


@pytest.mark.parametrize(
    ("at", "rate"), [(0, 10), (10, 55), (20, 100), (45, 100), (60, 10), (100, 10), (101, 0)]
)
def test_it_rises_tenfold_and_falls_again(at: float, rate: float) -> None:
    assert Ramp(peak=100, seconds=100).rate(at) == pytest.approx(rate)
