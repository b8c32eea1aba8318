"""Writes SVG: elements, paths, and documents that are readable on a light and on a dark page."""

from collections.abc import Iterable
from html import escape
from typing import Final

WIDTH: Final = 760
"""Pixels, of every document."""

COLOURS: Final = 4
"""How many there are; ``c0`` fills with the first of them, ``s0`` draws with it."""

_STYLE: Final = """<style>
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 14px; font-weight: 600; } .quiet { fill: #59636e; }
  .page { fill: #ffffff; } .axis { stroke: #d0d7de; } .limit { stroke-dasharray: 4 4; }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .c0 { fill: #0969da; } .c1 { fill: #bf8700; } .c2 { fill: #1a7f37; } .c3 { fill: #cf222e; }
  .s0 { stroke: #0969da; } .s1 { stroke: #bf8700; } .s2 { stroke: #1a7f37; }
  .s3 { stroke: #cf222e; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .quiet { fill: #9198a1; }
    .page { fill: #0d1117; } .axis { stroke: #3d444d; }
    .c0 { fill: #58a6ff; } .c1 { fill: #d29922; } .c2 { fill: #3fb950; } .c3 { fill: #ff7b72; }
    .s0 { stroke: #58a6ff; } .s1 { stroke: #d29922; } .s2 { stroke: #3fb950; }
    .s3 { stroke: #ff7b72; }
  }
</style>"""


def document(title: str, height: float, *parts: str) -> str:
    """A page with its title and what stands on it.

    Args:
        title: of the page, as text.
        height: pixels.
        parts: elements.
    """
    size = f'viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}"'
    # A file of its own is no SVG without the namespace, and who can't see it hears the label.
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">'
    )
    page = element("rect", "page", width=WIDTH, height=height, rx=6)
    return "\n".join([head, _STYLE, page, text(16, 24, title, "title"), *parts, "</svg>\n"])


def element(tag: str, kind: str, **attributes: float | str) -> str:
    """An element without content, of a class of the style above; numbers are pixels."""
    return f"<{tag}{_said(kind, attributes)}/>"


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text that begins, ends or has its middle at a point."""
    said = _said(kind, {"x": x, "y": y, "text-anchor": anchor})
    return f"<text{said}>{escape(content)}</text>"


def path(points: Iterable[tuple[float, float]]) -> str:
    """What a path's ``d`` says to go from point to point; nothing for none."""
    steps = "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
    return f"M{steps}" if steps else ""


def _said(kind: str, attributes: dict[str, float | str]) -> str:
    named = {"class": kind, **attributes} if kind else attributes
    return "".join(
        f' {name}="{value if isinstance(value, str) else _number(value)}"'
        for name, value in named.items()
    )


def _number(pixels: float) -> str:
    """To the tenth, which is as fine as anybody sees."""
    return f"{round(pixels, 1):g}"
