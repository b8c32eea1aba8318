"""Which endpoint is which organization's, read from the endpoints file without its secrets."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


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
