"""Imports reference data: what an OpenAPI document changes in it, and the file that says so."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import msgspec
import tomlkit

from ingress.management.openapi import Listing
from shared.files.atomic import replace_file
from shared.sellfern.reference import Entry, Reference, parse_reference

Kind = Literal["event", "operation"]

_READABLE: Final = 0o644  # workers may run as another user; nothing in it is secret


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that differs.

    Attributes:
        kind: of the entry.
        name: of the entry.
        change: ``added`` and ``available`` let it be used, ``removed`` and ``unavailable`` don't;
            ``moved`` is an operation with another path; ``provenance`` is only where it is from.
    """

    kind: Kind
    name: str
    change: Literal["added", "removed", "available", "unavailable", "moved", "provenance"]


def imported(current: Reference, known: Reference, listing: Listing) -> Reference:
    """The reference data after an import.

    What the document lists is available and what it doesn't list is unavailable; of what it is
    silent about as a whole (operations, or names of events) the current data stays.

    Args:
        current: what is in force.
        known: what comes with the project, which keeps telling what isn't listed.
        listing: what the document lists.
    """
    events, operations = current.events, current.operations
    if listing.events is not None:
        events = _merged(known.events, [_listed(name) for name in listing.events])
    if listing.operations is not None:
        rows = [_listed(name, path) for name, path in listing.operations.items()]
        operations = _merged(known.operations, rows)
    return Reference(events, operations)


def changes(before: Reference, after: Reference) -> list[Change]:
    """What differs, events first, each kind in its order."""
    return [
        *_changes("event", before.events, after.events),
        *_changes("operation", before.operations, after.operations),
    ]


def _listed(name: str, path: str = "") -> Entry:
    plain = name.partition(" ")[2] == path
    return Entry(name=name, source="openapi", available=True, path="" if plain else path)


def _merged(known: Mapping[str, Entry], listed: Iterable[Entry]) -> Mapping[str, Entry]:
    unlisted = {
        name: msgspec.structs.replace(entry, available=False) for name, entry in known.items()
    }
    return MappingProxyType(unlisted | {entry.name: entry for entry in listed})


def _changes(
    kind: Kind, before: Mapping[str, Entry], after: Mapping[str, Entry]
) -> Iterator[Change]:
    for name, entry in after.items():
        old = before.get(name)
        if old is None:
            yield Change(kind, name, "added")
        elif old.available != entry.available:
            yield Change(kind, name, "available" if entry.available else "unavailable")
        elif old.path != entry.path:
            yield Change(kind, name, "moved")
        elif old != entry:
            yield Change(kind, name, "provenance")
    for name in before:
        if name not in after:
            yield Change(kind, name, "removed")


def write_reference(path: Path, reference: Reference, origin: str) -> None:
    """Replace the file.

    Args:
        path: where it is.
        reference: what it is to say.
        origin: what that was read from, on one line.

    Raises:
        OSError: it can't be written; what was there is there still.
    """
    document = tomlkit.document()
    document.add(tomlkit.comment(f"Written by `python -m ingress reference import` from {origin}."))
    document.add(tomlkit.nl())
    for key, entries in (("event", reference.events), ("operation", reference.operations)):
        rows = [_without_defaults(msgspec.to_builtins(entry)) for entry in entries.values()]
        document.add(key, tomlkit.item(rows))
    text = tomlkit.dumps(document)
    parse_reference(text)  # never write what couldn't be read
    replace_file(path, text.encode(), new_mode=_READABLE)


def _without_defaults(row: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in row.items() if value != ""}
