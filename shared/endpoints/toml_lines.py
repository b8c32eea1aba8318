"""Where in a TOML text its tables and keys stand, which tomllib doesn't tell."""

import re
from typing import Final

_STRING_OR_COMMENT: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""'  # the contents of a text over several lines are no TOML
    r"|'''.*?'''"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*",
    re.DOTALL,
)


class TableLines:
    """The lines of an array of tables, ``[[name]]``.

    Args:
        text: valid TOML.
        name: of the array, at the top level.
    """

    def __init__(self, text: str, name: str) -> None:
        self._name = _quoted(name)
        self._lines = _STRING_OR_COMMENT.sub(_blanked, text).split("\n")
        header = re.compile(rf"\s*\[\[\s*{self._name}\]\]")
        numbered = enumerate(self._lines, start=1)
        self._headers = [number for number, line in numbered if header.match(line)]

    def top(self, key: str) -> int | None:
        """The line of a key or a table at the top level."""
        quoted = _quoted(key)
        written = re.compile(rf"\s*(?:\[\[?\s*)?{quoted}[=.\]]")
        return next((at for at, line in enumerate(self._lines, 1) if written.match(line)), None)

    def table(self, index: int) -> int | None:
        """The line of the array's table number ``index``, from 0; both lines count from 1.

        None where the array isn't written with ``[[name]]`` headers.
        """
        return self._headers[index] if index < len(self._headers) else None

    def key(self, index: int, key: str) -> int | None:
        """The line of a key of that table, else the table's own line."""
        start = self.table(index)
        if start is None:
            return None
        after = self.table(index + 1) or len(self._lines) + 1
        quoted = _quoted(key)
        written = re.compile(rf"\s*{quoted}[=.]|\s*\[\[?\s*{self._name}\.\s*{quoted}[\].]")
        inside = range(start, after - 1)
        return next((at + 1 for at in inside if written.match(self._lines[at])), start)


def _quoted(key: str) -> str:
    return rf"[\"']?{re.escape(key)}[\"']?\s*"


def _blanked(found: re.Match[str]) -> str:
    """Empty comments and long texts but keep their line breaks; short texts may be keys."""
    piece = found.group()
    if piece.startswith(("#", '"""', "'''")):
        return "\n" * piece.count("\n")
    return piece
