"""Where the tables of an endpoints file stand, for whoever has to say what is wrong with one."""

import re
from pathlib import Path
from typing import Final

import msgspec

from shared.errors import SettingsError

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
    # A key may stand in quotes, which mean nothing to TOML.
    return rf"[\"']?{re.escape(key)}[\"']?\s*"


def _blanked(found: re.Match[str]) -> str:
    """Empty comments and long texts but keep their line breaks; short texts may be keys."""
    piece = found.group()
    if piece.startswith(("#", '"""', "'''")):
        return "\n" * piece.count("\n")
    return piece


ARRAY: Final = "endpoint"
"""The name of the array of tables."""

_SHOWN: Final = 60


class Place(msgspec.Struct, frozen=True, gc=False):
    """One ``[[endpoint]]`` table. Its lines are counted only when somebody asks for them.

    Attributes:
        path: of the file.
        text: a piece of it, valid TOML by itself.
        first: the line at which the piece begins, from 1.
        index: of the table within the piece, from 0.
    """

    path: Path
    text: str
    first: int
    index: int

    def wrong(
        self, key: str, expected: str, got: str, kind: type[SettingsError] = SettingsError
    ) -> SettingsError:
        """The error that names a key and its line."""
        return self.misplaced(key, f"{key} to be {expected}", got, kind)

    def misplaced(
        self, key: str, expected: str, got: str, kind: type[SettingsError] = SettingsError
    ) -> SettingsError:
        """The error about a key that shouldn't be there, with its line."""
        line = TableLines(self.text, ARRAY).key(self.index, key)
        place = None if line is None else self.first + line - 1
        return blaming(self.path, place, expected, got, kind)


def blaming(
    path: Path,
    line: int | None,
    expected: str,
    got: str,
    kind: type[SettingsError] = SettingsError,
) -> SettingsError:
    """The error that names an endpoints file and a line of it."""
    return kind(f"ENDPOINTS_FILE ({path})", expected, got, line=line)


def shown(value: object) -> str:
    """A value for a message, unless it looks like a secret in the wrong place."""
    # People paste secrets into the wrong key, and messages end up in logs and tickets.
    if isinstance(value, str) and "whsec_" in value:
        return "something that looks like a secret"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def kind(value: object) -> str:
    """Name a value without showing it: it may be a secret in the wrong place."""
    names = {type(None): "nothing", str: "a text", dict: "a table", list: "a list", bool: "a flag"}
    return names.get(type(value), f"a {type(value).__name__}")
