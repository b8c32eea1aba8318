"""The text of an endpoints file, read piece by piece or only for its names."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shared.endpoints.endpoint import nearest
from shared.endpoints.place import ARRAY, Place, TableLines, blaming, shown
from shared.endpoints.table import EndpointDraft, Placed, read_table
from shared.errors import SettingsError
from shared.files.background import Pace

_HEADER: Final = re.compile(rf"^[ \t]*\[\[[ \t]*{ARRAY}[ \t]*\]\][ \t]*(?:#.*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one text.

    Attributes:
        placed: each endpoint and where it stands, in the order of the text.
        pieces: what each piece of the text says, so that the same piece needn't be parsed again.
    """

    placed: tuple[Placed, ...] = ()
    pieces: Mapping[str, tuple[EndpointDraft, ...]] = field(default_factory=dict)


def read_tables(text: str, path: Path, *, before: Tables | None = None, pace: Pace) -> Tables:
    """Read the endpoints of a text, with their secrets still where they stand.

    Args:
        text: of the file.
        path: of it, for messages.
        before: what was read of the file the last time.
        pace: of the work.

    Raises:
        SettingsError: it isn't valid TOML, or something in a table is wrong. The message names file
            and line and holds no part of any secret.
    """
    known = before.pieces if before else {}
    placed: list[Placed] = []
    pieces: dict[str, tuple[EndpointDraft, ...]] = {}
    for first, piece in _pieces(text):
        # The same text says the same: only what has changed is parsed.
        drafts = pieces.get(piece) or known.get(piece)
        if drafts is None:
            drafts = _read_piece(piece, first, path)
        pieces[piece] = drafts
        places = (Place(path, piece, first, index) for index in range(len(drafts)))
        placed += zip(drafts, places, strict=True)
        pace.breathe()
    if not placed:
        raise blaming(path, None, "at least one [[endpoint]] table", "none")
    return Tables(tuple(placed), pieces)


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Cut a text at the headers of its tables; gives each piece with its first line.

    A valid text is cut into valid ones that say the same. tomllib has to be given small ones: it
    takes a second for ten thousand tables, all that time in competition with the event loop.
    """
    starts = [found.start() for found in _HEADER.finditer(text)]
    # Only in a text of several lines could such a line be anything but a header.
    has_long_texts = '"""' in text or "'''" in text
    if has_long_texts or not starts or _says_something(text[: starts[0]]):
        yield 1, text
        return
    line = 1 + text.count("\n", 0, starts[0])
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield line, text[start:end]
        line += text.count("\n", start, end)


def _says_something(text: str) -> bool:
    lines = map(str.strip, text.split("\n"))
    return any(line and not line.startswith("#") for line in lines)


def _read_piece(piece: str, first: int, path: Path) -> tuple[EndpointDraft, ...]:
    tables = _parsed(piece, first, path)
    return tuple(
        read_table(raw, Place(path, piece, first, index)) for index, raw in enumerate(tables)
    )


def _parsed(piece: str, first: int, path: Path) -> list[Any]:
    try:
        document = tomllib.loads(piece)
    except tomllib.TOMLDecodeError as exc:
        raise _syntax_error(piece, first, path, exc) from None
    except RecursionError:
        raise blaming(path, None, "valid TOML", "brackets nested too deeply") from None
    except ValueError:  # Python's own, which says no line
        raise blaming(path, None, "valid TOML", "a number of too many digits") from None
    for key in document:
        if key != ARRAY:
            line = TableLines(piece, ARRAY).top(key)
            got = f"the key {shown(key)}{nearest(key, [ARRAY])}"
            place = None if line is None else first + line - 1
            raise blaming(path, place, "only [[endpoint]] tables", got)
    tables = document.get(ARRAY, [])
    if not isinstance(tables, list):
        raise blaming(path, None, "at least one [[endpoint]] table", "none")
    return tables


def _syntax_error(
    piece: str, first: int, path: Path, exc: tomllib.TOMLDecodeError
) -> SettingsError:
    # tomllib says what and where, and quotes at most a single character.
    what, _, place = str(exc).rpartition(" (at ")
    found = re.match(r"line (\d+)", place)
    line = int(found.group(1)) if found else piece.count("\n") + 1
    return blaming(path, first + line - 1, "valid TOML", f"a mistake: {what or 'unreadable'}")


def endpoint_names(path: Path) -> Mapping[str, str]:
    """Give the organization of each endpoint by its id; what can't be read is left out.

    For commands: whoever types one often may not read the secrets, and needs Redis only.

    Args:
        path: the endpoints file, or a directory of them.
    """
    files = sorted(path.glob("[!.]*.toml")) if path.is_dir() else [path]
    return {name: organization for file in files for name, organization in _named(file)}


def _named(file: Path) -> Iterator[tuple[str, str]]:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig")).get("endpoint")
    except (OSError, ValueError, RecursionError):
        return
    for table in tables if isinstance(tables, list) else []:
        if isinstance(table, dict):
            name, organization = _text(table.get("id")), _text(table.get("organization_id"))
            if name and organization:
                yield name, organization


def _text(value: Any) -> str:
    """An id as text; ids may be whole numbers as well, and a flag is none to TOML."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
