"""A terminal that keeps what it was shown."""

from io import StringIO

from rich.console import Console, RenderableType


def shown(*parts: RenderableType, width: int) -> str:
    """The text of what rich prints at a width."""
    screen = StringIO()
    console = Console(file=screen, width=width, emoji=False, highlight=False)
    for part in parts:
        console.print(part)
    return screen.getvalue()
