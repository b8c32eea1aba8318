"""Plots as SVG: bars and lines, readable on a light and on a dark page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from tests.bench.figures import short

_WIDTH: Final = 760
_LEFT: Final = 250
"""Where the bars begin; their names stand before."""
_RIGHT: Final = 90
_TOP: Final = 56
_BAR: Final = 16
_GAP: Final = 12
_LINES_HEIGHT: Final = 280
_TEXT_WIDTH: Final = 6.6
"""Of one letter, roughly; the legend is set by it."""

_STYLE: Final = """<style>
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 14px; font-weight: 600; }
  .page { fill: #ffffff; } .axis { stroke: #d0d7de; }
  .c0 { fill: #0969da; } .c1 { fill: #bf8700; } .c2 { fill: #1a7f37; } .c3 { fill: #cf222e; }
  .line { fill: none; stroke-width: 2; }
  .s0 { stroke: #0969da; } .s1 { stroke: #bf8700; } .s2 { stroke: #1a7f37; }
  .s3 { stroke: #cf222e; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .page { fill: #0d1117; } .axis { stroke: #3d444d; }
    .c0 { fill: #58a6ff; } .c1 { fill: #d29922; } .c2 { fill: #3fb950; } .c3 { fill: #ff7b72; }
    .s0 { stroke: #58a6ff; } .s1 { stroke: #d29922; } .s2 { stroke: #3fb950; }
    .s3 { stroke: #ff7b72; }
  }
</style>"""
_COLOURS: Final = 4


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
    parts = list(_bars(chart) if isinstance(chart, Bars) else _lines(chart))
    height = _bars_height(chart) if isinstance(chart, Bars) else _LINES_HEIGHT
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    label = f'role="img" aria-label="{escape(chart.title)}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>',
            _STYLE,
            f'<rect class="page" width="{_WIDTH}" height="{height}" rx="6"/>',
            _text(16, 24, chart.title, "title"),
            *_legend(list(chart.series)),
            *parts,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(content)}</text>'


def _legend(names: Sequence[str]) -> Iterator[str]:
    if len(names) == 1:  # the title says it
        return
    x = 16.0
    for index, name in enumerate(names):
        yield f'<rect class="c{index % _COLOURS}" x="{x:g}" y="34" width="10" height="10"/>'
        yield _text(x + 15, 43, name)
        x += 34 + len(name) * _TEXT_WIDTH


def _bars_height(chart: Bars) -> int:
    return _TOP + len(chart.names) * (len(chart.series) * _BAR + _GAP) + _GAP


def _bars(chart: Bars) -> Iterator[str]:
    largest = max((v for values in chart.series.values() for v in values if v), default=1.0)
    scale = (_WIDTH - _LEFT - _RIGHT) / largest
    y = float(_TOP)
    for place, name in enumerate(chart.names):
        middle = y + len(chart.series) * _BAR / 2 + 4
        yield _text(_LEFT - 10, middle, name, anchor="end")
        for index, values in enumerate(chart.series.values()):
            yield from _bar(y, values[place], scale, index)
            y += _BAR
        y += _GAP


def _bar(y: float, value: float | None, scale: float, index: int) -> Iterator[str]:
    if value is None:
        return
    width = max(1.0, value * scale)
    yield (
        f'<rect class="c{index % _COLOURS}" x="{_LEFT}" y="{y + 1:g}" width="{width:.1f}" '
        f'height="{_BAR - 2}" rx="2"/>'
    )
    yield _text(round(_LEFT + width + 6), y + _BAR - 4, short(value))


def _lines(chart: Lines) -> Iterator[str]:
    largest = max((v for values in chart.series.values() for v in values), default=1.0) or 1.0
    bottom, top = _LINES_HEIGHT - 36, _TOP + 20
    step = (_WIDTH - 160) / max(1, len(chart.places) - 1)
    yield f'<line class="axis" x1="60" y1="{bottom}" x2="{_WIDTH - 60}" y2="{bottom}"/>'
    for place, name in enumerate(chart.places):
        yield _text(80 + place * step, bottom + 20, name, anchor="middle")
    for index, values in enumerate(chart.series.values()):
        points = [
            (80 + place * step, bottom - value / largest * (bottom - top))
            for place, value in enumerate(values)
        ]
        yield from _line(points, values, index)


def _line(
    points: Sequence[tuple[float, float]], values: Sequence[float], index: int
) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline class="line s{index % _COLOURS}" points="{path}"/>'
    below = -8 if index else 18  # the first is what was measured, a later one a bound above it
    for (x, y), value in zip(points, values, strict=True):
        yield f'<circle class="c{index % _COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
        yield _text(round(x), round(y + below), short(value), anchor="middle")
