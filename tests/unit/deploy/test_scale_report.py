"""Facts about the plots of the scale demo."""

import re
from xml.etree import ElementTree as ET

from deploy.local.plot import Curve, draw

SVG = "{http://www.w3.org/2000/svg}"


def curves(svg: str) -> list[list[tuple[float, float]]]:
    """The points of each curve."""
    root = ET.fromstring(svg)  # noqa: S314  # written by this very test
    return [
        [tuple(map(float, point.split(","))) for point in each.attrib["points"].split()]
        for each in root.iter(f"{SVG}polyline")
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
