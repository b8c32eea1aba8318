"""Facts about the figures that must hold."""

import pytest

from tests.bench.__main__ import SECTIONS
from tests.bench.figures import Figure
from tests.bench.floors import FLOORS, Floor, verdicts

RATIO = Floor("over arq", "drain/over arq", 8, 15, "x")
TIME = Floor("idle p99", "latency/p99", 40, 10, " ms", at_least=False)


def exactly(value: float) -> Figure:
    return Figure(value, value, value)


@pytest.mark.parametrize(
    ("floor", "value", "word"),
    [
        (RATIO, 7.9, "MISSED"),
        (RATIO, 8.0, "holds"),
        (RATIO, 15.0, "holds, aim reached"),
        (TIME, 40.1, "MISSED"),
        (TIME, 40.0, "holds"),
        (TIME, 9.9, "holds, aim reached"),
    ],
)
def test_a_figure_holds_on_the_right_side_of_its_limit(
    floor: Floor, value: float, word: str
) -> None:
    (verdict,) = verdicts({floor.figure: exactly(value)}, [floor])
    assert verdict.row()[-1] == word
    assert verdict.missed == (word == "MISSED")


def test_the_median_decides_not_the_worst_round() -> None:
    (verdict,) = verdicts({RATIO.figure: Figure(9.0, 5.0, 16.0)}, [RATIO])
    assert not verdict.missed
    assert verdict.row() == ("over arq", "≥ 8.00x (aim 15.0x)", "9.00 (5.00 to 16.0)x", "holds")


def test_what_was_not_measured_is_said_and_not_missed() -> None:
    (verdict,) = verdicts({}, [RATIO])
    assert verdict.row()[-1] == "not measured"
    assert not verdict.missed


def test_an_aim_may_be_about_another_figure() -> None:
    floor = Floor("beside", "n/beyond", 3, 1.5, "x", at_least=False, aim_figure="n/over alone")
    (near,) = verdicts({"n/beyond": exactly(0.0), "n/over alone": exactly(2.0)}, [floor])
    assert near.row()[-1] == "holds"
    (there,) = verdicts({"n/beyond": exactly(0.0), "n/over alone": exactly(1.5)}, [floor])
    assert there.row()[-1] == "holds, aim reached"


def test_every_floor_is_about_a_figure_of_its_own() -> None:
    assert len({floor.figure for floor in FLOORS}) == len(FLOORS)


def test_every_floor_is_about_a_section_that_is_measured() -> None:
    assert {floor.figure.partition("/")[0] for floor in FLOORS} <= set(SECTIONS)
