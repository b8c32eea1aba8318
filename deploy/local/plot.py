"""Plots over time as one SVG document, readable on a light and on a dark page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH: Final = 760
_LEFT: Final = 64
_RIGHT: Final = 24
_TOP: Final = 44
_PANEL: Final = 110
"""The height in which a curve is drawn; its title stands above."""
_TITLE: Final = 30
_BOTTOM: Final = 34
_MOST_TICKS: Final = 10
_PRECISE_BELOW: Final = 10
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)

_STYLE: Final = """<style>
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 14px; font-weight: 600; } .quiet { fill: #59636e; }
  .page { fill: #ffffff; } .axis { stroke: #d0d7de; } .limit { stroke-dasharray: 4 4; }
  .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .c0 { stroke: #0969da; } .c1 { stroke: #1a7f37; } .c2 { stroke: #bf8700; }
  .c3 { stroke: #cf222e; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .quiet { fill: #9198a1; }
    .page { fill: #0d1117; } .axis { stroke: #3d444d; }
    .c0 { stroke: #58a6ff; } .c1 { stroke: #3fb950; } .c2 { stroke: #d29922; }
    .c3 { stroke: #ff7b72; }
  }
</style>"""
_COLOURS: Final = 4


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over time, in a panel of their own.

    Attributes:
        title: what is shown, with its unit.
        points: seconds and value, by time.
        is_stepped: whether a value holds until the next one.
        limit: a value worth a line of its own, if there is one, and what it is.
    """

    title: str
    points: Sequence[tuple[float, float]]
    is_stepped: bool = False
    limit: tuple[float, str] | None = None

    @property
    def top(self) -> float:
        """The largest value that has to fit."""
        largest = max((value for _, value in self.points), default=0.0)
        return max(largest, self.limit[0] if self.limit else 0.0) or 1.0


def draw(title: str, curves: Sequence[Curve]) -> str:
    """The curves, one below the other over the same seconds, as an SVG document."""
    end = max((at for curve in curves for at, _ in curve.points), default=0.0) or 1.0
    height = _TOP + len(curves) * (_PANEL + _TITLE) + _BOTTOM
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    label = f'role="img" aria-label="{escape(title)}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>',
            _STYLE,
            f'<rect class="page" width="{_WIDTH}" height="{height}" rx="6"/>',
            _text(16, 26, title, "title"),
            *(
                part
                for index, curve in enumerate(curves)
                for part in _panel(curve, index, end, _TOP + index * (_PANEL + _TITLE))
            ),
            *_seconds(end, height - _BOTTOM),
            "</svg>\n",
        ]
    )


def _panel(curve: Curve, index: int, end: float, top: float) -> Iterator[str]:
    floor = top + _TITLE + _PANEL
    scale = (_PANEL - 6) / curve.top
    yield _text(_LEFT, top + 20, curve.title)
    yield _level(floor, "axis")
    yield _text(_LEFT - 8, floor + 4, "0", "quiet", "end")
    yield _level(floor - curve.top * scale, "axis")
    yield _text(_LEFT - 8, floor - curve.top * scale + 4, _number(curve.top), "quiet", "end")
    if curve.limit is not None:
        value, name = curve.limit
        yield _level(floor - value * scale, f"limit c{index % _COLOURS}")
        yield _text(_WIDTH - _RIGHT, floor - value * scale - 5, name, "quiet", "end")
    points = _stepped(curve.points, end) if curve.is_stepped else curve.points
    path = " ".join(f"{_x(at, end):.1f},{floor - value * scale:.1f}" for at, value in points)
    yield f'<polyline class="curve c{index % _COLOURS}" points="{path}"/>'


def _stepped(points: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """The corners of the steps, up to the end."""
    corners: list[tuple[float, float]] = []
    for at, value in points:
        if corners:
            corners.append((at, corners[-1][1]))
        corners.append((at, value))
    return [*corners, (end, corners[-1][1])] if corners else []


def _seconds(end: float, y: float) -> Iterator[str]:
    """The times below the last panel."""
    step = next((each for each in _STEPS if end / each <= _MOST_TICKS), _STEPS[-1])
    for tick in range(0, int(end) + 1, step):
        yield _text(_x(tick, end), y + 20, f"{tick} s", "quiet", "middle")


def _x(at: float, end: float) -> float:
    return _LEFT + at / end * (_WIDTH - _LEFT - _RIGHT)


def _level(y: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'


def _text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= _PRECISE_BELOW or value == int(value) else f"{value:.1f}"
