"""Facts about SVG: what is drawn is where it was told, and text is text."""

from xml.etree import ElementTree as ET

import pytest

from shared.svg import document, element, path, text


def test_a_document_is_valid_whatever_its_texts_hold() -> None:
    drawn = document('<b> & "c"', 90, text(1, 2, "a < b & c"))
    root = ET.fromstring(drawn)  # noqa: S314  # written by this very test
    assert root.attrib["aria-label"] == '<b> & "c"'
    assert [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")] == [
        '<b> & "c"',
        "a < b & c",
    ]


def test_numbers_are_as_fine_as_anybody_sees() -> None:
    assert element("line", "axis", x1=0, y1=100.04, x2=2 / 3) == (
        '<line class="axis" x1="0" y1="100" x2="0.7"/>'
    )


@pytest.mark.parametrize(
    ("points", "steps"), [([], ""), ([(1, 2.5)], "M1 2.5"), ([(0, 0), (1, 1 / 3)], "M0 0L1 0.3")]
)
def test_a_path_goes_from_point_to_point(points: list[tuple[float, float]], steps: str) -> None:
    assert path(points) == steps
