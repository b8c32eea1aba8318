"""Facts about what the scale demo tells: its account, its plot."""

import re
from collections.abc import Mapping
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from deploy.local.account import Name
from deploy.local.scale_report import Curve, Evidence, complaints, draw

SVG = "{http://www.w3.org/2000/svg}"


def curves(svg: str) -> list[list[tuple[float, float]]]:
    """The points of each curve."""
    root = ET.fromstring(svg)  # noqa: S314  # written by this very test
    return [
        [tuple(map(float, point.split())) for point in re.split("[ML]", each.attrib["d"])[1:]]
        for each in root.iter(f"{SVG}path")
    ]


def texts(svg: str) -> list[str | None]:
    root = ET.fromstring(svg)  # noqa: S314  # written by this very test
    return [each.text for each in root.iter(f"{SVG}text")]


def test_all_curves_share_their_seconds() -> None:
    svg = draw("a plot", [Curve("a", [(0, 1), (80, 3)]), Curve("b", [(40, 1), (60, 2)])])
    (left, right), (middle, _) = curves(svg)
    assert left[0] < middle[0] == (left[0] + right[0]) / 2
    assert {"0 s", "10 s", "80 s"} <= set(texts(svg))


def test_a_larger_value_is_higher_and_the_largest_is_named() -> None:
    svg = draw("a plot", [Curve("a", [(0, 0), (1, 1234), (2, 617)])])
    ((_, floor), (_, top), (_, middle)) = curves(svg)[0]
    assert floor > middle > top
    assert middle == (floor + top) / 2
    assert {"0", "1,234"} <= set(texts(svg))


def test_a_stepped_curve_holds_each_value_until_the_next_and_the_last_until_the_end() -> None:
    svg = draw("a plot", [Curve("a", [(0, 2), (5, 4)], is_stepped=True), Curve("b", [(10, 1)])])
    stepped = curves(svg)[0]
    assert [y == stepped[0][1] for _, y in stepped] == [True, True, False, False]
    assert stepped[1][0] == stepped[2][0]
    assert stepped[-1][0] == curves(svg)[1][0][0]


def test_a_limit_is_a_line_with_its_name_and_fits_the_panel() -> None:
    svg = draw("a plot", [Curve("a", [(0, 1), (1, 2)], limit=(30, "too much"))])
    assert "too much" in texts(svg)
    assert "30" in texts(svg)
    assert len(re.findall(r'class="limit ', svg)) == 1


def test_a_plot_of_nothing_and_a_title_with_markup_are_a_plot_all_the_same() -> None:
    svg = draw("<b>", [Curve("a & b", [], is_stepped=True)])
    assert curves(svg) == [[]]
    assert {"<b>", "a & b"} <= set(texts(svg))


A, B, C = (("org_a", f"evt_{letter}") for letter in "abc")
GOOD = Evidence(
    sent=3,
    accepted=frozenset({A, B, C}),
    applied={A: 1, B: 1, C: 1},
    counters={"handled": 3, "released": 1},
    waiting=0,
)


def test_each_accepted_event_handled_once_is_no_complaint() -> None:
    assert list(complaints(GOOD)) == []


@pytest.mark.parametrize(
    ("evidence", "complaint"),
    [
        (replace(GOOD, sent=4), "1 of 4 weren't accepted"),
        (replace(GOOD, counters={"handled": 2}), "accepted 3, but handled 2"),
        (replace(GOOD, counters={}), "accepted 3, but handled 0"),
        (replace(GOOD, waiting=1), "1 wait still"),
        (replace(GOOD, applied={A: 1, B: 1}), "accepted, but never applied: evt_c of org_a"),
        (
            replace(GOOD, applied={**GOOD.applied, ("org_b", "evt_a"): 1}),
            "applied, but never accepted: evt_a of org_b",
        ),
        (replace(GOOD, applied={A: 1, B: 2, C: 1}), "1 applied 2 times"),
    ],
)
def test_what_does_not_agree_is_told(evidence: Evidence, complaint: str) -> None:
    assert list(complaints(evidence)) == [complaint]


def test_of_many_lost_events_a_few_are_named() -> None:
    many: Mapping[Name, int] = {("org_a", f"evt_{n}"): 1 for n in range(1000)}
    evidence = Evidence(1000, frozenset(many), {}, {"handled": 1000}, 0)
    (told,) = complaints(evidence)
    assert told.endswith("evt_106 of org_a and 990 more")
