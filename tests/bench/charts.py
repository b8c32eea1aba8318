"""Charts of the measurements: bars and lines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shared.svg import COLOURS, WIDTH, document, element, path, text
from tests.bench.figures import short

_LEFT: Final = 250
"""Where the bars begin; their names stand before."""
_RIGHT: Final = 90
_TOP: Final = 56
_BAR: Final = 16
_GAP: Final = 12
_LINES_HEIGHT: Final = 280
_TEXT_WIDTH: Final = 6.6
"""Of one letter, roughly; the legend is set by it."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars, one group for each name.

    Attributes:
        title: what is shown, with its unit.
        names: of the groups, from top to bottom.
        series: for each colour its values, one a group; ``None`` where there is none.
    """

    title: str
    names: Sequence[str]
    series: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines over a few places, evenly apart.

    Attributes:
        title: what is shown, with its unit.
        places: what stands below, from left to right.
        series: for each line its values, one a place.
    """

    title: str
    places: Sequence[str]
    series: Mapping[str, Sequence[float]]


def draw(chart: Bars | Lines) -> str:
    """The chart as an SVG document."""
    if isinstance(chart, Bars):
        parts, height = _bars(chart), _TOP + _GAP + len(chart.names) * _group_height(chart)
    else:
        parts, height = _lines(chart), _LINES_HEIGHT
    return document(chart.title, height, *_legend(list(chart.series)), *parts)


def _legend(names: Sequence[str]) -> Iterator[str]:
    if len(names) == 1:  # the title says it
        return
    x = 16.0
    for index, name in enumerate(names):
        yield element("rect", f"c{index % COLOURS}", x=x, y=34, width=10, height=10)
        yield text(x + 15, 43, name)
        x += 34 + len(name) * _TEXT_WIDTH


def _group_height(chart: Bars) -> int:
    return len(chart.series) * _BAR + _GAP


def _bars(chart: Bars) -> Iterator[str]:
    largest = max((v for values in chart.series.values() for v in values if v), default=1.0)
    scale = (WIDTH - _LEFT - _RIGHT) / largest
    y = float(_TOP)
    for place, name in enumerate(chart.names):
        middle = y + len(chart.series) * _BAR / 2 + 4
        yield text(_LEFT - 10, middle, name, anchor="end")
        for index, values in enumerate(chart.series.values()):
            yield from _bar(y, values[place], scale, index)
            y += _BAR
        y += _GAP


def _bar(y: float, value: float | None, scale: float, index: int) -> Iterator[str]:
    if value is None:
        return
    width = max(1.0, value * scale)
    kind = f"c{index % COLOURS}"
    yield element("rect", kind, x=_LEFT, y=y + 1, width=width, height=_BAR - 2, rx=2)
    yield text(round(_LEFT + width + 6), y + _BAR - 4, short(value))


def _lines(chart: Lines) -> Iterator[str]:
    largest = max((v for values in chart.series.values() for v in values), default=1.0) or 1.0
    bottom, top = _LINES_HEIGHT - 36, _TOP + 20
    step = (WIDTH - 160) / max(1, len(chart.places) - 1)
    yield element("line", "axis", x1=60, y1=bottom, x2=WIDTH - 60, y2=bottom)
    for place, name in enumerate(chart.places):
        yield text(80 + place * step, bottom + 20, name, anchor="middle")
    for index, values in enumerate(chart.series.values()):
        points = [
            (80 + place * step, bottom - value / largest * (bottom - top))
            for place, value in enumerate(values)
        ]
        yield from _line(points, values, index)


def _line(
    points: Sequence[tuple[float, float]], values: Sequence[float], index: int
) -> Iterator[str]:
    yield element("path", f"line s{index % COLOURS}", d=path(points))
    below = -8 if index else 18  # the first is what was measured, a later one a bound above it
    for (x, y), value in zip(points, values, strict=True):
        yield element("circle", f"c{index % COLOURS}", cx=x, cy=y, r=3)
        yield text(round(x), round(y + below), short(value), anchor="middle")
