"""Facts about the plots: valid SVG that says what it was given."""

from xml.etree import ElementTree as ET

import pytest

from tests.bench.charts import Bars, Lines, draw

_SVG = "{http://www.w3.org/2000/svg}"
BARS = Bars(
    "Jobs a second", ["ours", "a < b & c"], {"one": [4000.0, 1000.0], "two": [2000.0, None]}
)
LINES = Lines(
    "Events", ["1", "2", "4"], {"measured": [10.0, 19.0, 30.0], "most": [10.0, 20.0, 40.0]}
)


# The drawings are our own, so that the parser needs no protection from them.
def parsed(chart: Bars | Lines) -> ET.Element:
    return ET.fromstring(draw(chart))  # noqa: S314


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{_SVG}text")]


def bars(root: ET.Element) -> list[ET.Element]:
    """Its rectangles, but for the page and the legend."""
    return [each for each in root.iter(f"{_SVG}rect") if each.get("rx") == "2"]


def test_every_bar_is_as_long_as_its_value_and_says_it() -> None:
    root = parsed(BARS)
    first, second, third = (float(bar.get("width", 0)) for bar in bars(root))
    assert first == pytest.approx(2 * second)
    assert first == pytest.approx(4 * third, rel=0.01)
    assert {"4,000", "2,000", "1,000"} <= set(texts(root))


def test_a_value_that_is_not_there_has_no_bar() -> None:
    assert len(bars(parsed(BARS))) == 3


def test_names_are_text_whatever_they_hold() -> None:
    assert "a < b & c" in texts(parsed(BARS))


def test_the_legend_names_the_series_where_there_are_several() -> None:
    assert {"one", "two"} <= set(texts(parsed(BARS)))
    alone = parsed(Bars("Bytes", ["ours"], {"only": [1.0]}))
    assert "only" not in texts(alone)


def test_bars_of_nothing_can_be_drawn() -> None:
    assert not bars(parsed(Bars("Nothing", [], {"none": []})))
    assert len(bars(parsed(Bars("Zero", ["a"], {"": [0.0]})))) == 1


@pytest.mark.parametrize("chart", [BARS, LINES])
def test_all_that_is_drawn_is_within_the_page(chart: Bars | Lines) -> None:
    root = parsed(chart)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for rect in root.iter(f"{_SVG}rect"):
        right = float(rect.get("x", 0)) + float(rect.get("width", 0))
        below = float(rect.get("y", 0)) + float(rect.get("height", 0))
        assert right <= width
        assert below <= height
    for circle in root.iter(f"{_SVG}circle"):
        assert 0 <= float(circle.get("cx", 0)) <= width
        assert 0 <= float(circle.get("cy", 0)) <= height


def test_a_line_rises_with_its_values() -> None:
    lines = [line.get("d", "") for line in parsed(LINES).iter(f"{_SVG}path")]
    assert len(lines) == 2
    heights = [float(point.split()[1]) for point in lines[1].removeprefix("M").split("L")]
    assert heights == sorted(heights, reverse=True)  # y counts from the top


def test_the_colours_follow_the_readers_scheme() -> None:
    drawn = draw(BARS)
    assert "prefers-color-scheme: dark" in drawn
    assert drawn.count(".c0 {") == 2  # one for each scheme
