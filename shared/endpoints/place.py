"""Where a table of an endpoints file stands, for whoever has to say what is wrong with it."""

from pathlib import Path
from typing import Final

import msgspec

from shared.endpoints.toml_lines import TableLines
from shared.errors import SettingsError

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
    if isinstance(value, str) and "whsec_" in value:
        return "something that looks like a secret"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def kind(value: object) -> str:
    """Name a value without showing it: it may be a secret in the wrong place."""
    names = {type(None): "nothing", str: "a text", dict: "a table", list: "a list", bool: "a flag"}
    return names.get(type(value), f"a {type(value).__name__}")
