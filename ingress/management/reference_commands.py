"""The commands that show what is known of Sellfern's API Reference, or import it."""

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import click
import msgspec
import tomlkit

from ingress.management.acting import tell_action
from ingress.management.context import confirm
from ingress.management.openapi import LARGEST, DocumentError, Listing, read_document
from shared import display
from shared.errors import SettingsError
from shared.files.atomic import replace_file
from shared.program import tables
from shared.program.commands import json_option, yes_option
from shared.sellfern.reference import Entry, Reference, load_default, parse_reference
from shared.sellfern.reference_file import load_reference, read_reference, reference_path
from shared.settings.config import CommonSettings

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
        # Not into what is in force: a name that only an earlier import listed is simply gone.
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
        SettingsError: it can't be written; what was there is there still.
    """
    document = tomlkit.document()
    document.add(tomlkit.comment(f"Written by `python -m ingress reference import` from {origin}."))
    document.add(tomlkit.nl())
    for key, entries in (("event", reference.events), ("operation", reference.operations)):
        rows = [_without_defaults(msgspec.to_builtins(entry)) for entry in entries.values()]
        document.add(key, tomlkit.item(rows))
    text = tomlkit.dumps(document)
    parse_reference(text)  # never write what couldn't be read
    try:
        replace_file(path, text.encode(), new_mode=_READABLE)
    except OSError as exc:
        got = f"{path} ({exc.strerror})"
        raise SettingsError("REFERENCE_FILE", "a file that can be replaced", got) from exc


def _without_defaults(row: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in row.items() if value != ""}


_MEANS: Final = {
    ("event", "added"): "can be subscribed to; workers hand it to handlers",
    ("event", "available"): "can be subscribed to; workers hand it to handlers",
    ("event", "unavailable"): "its deliveries become dead letters (unavailable_event)",
    ("event", "removed"): "its deliveries become dead letters (unavailable_event)",
    ("operation", "added"): "can be asked for",
    ("operation", "available"): "can be asked for",
    ("operation", "unavailable"): "is refused before anything is sent",
    ("operation", "removed"): "is refused before anything is sent",
    ("operation", "moved"): "is asked for at another path",
}


@click.group()
def reference() -> None:
    """What Sellfern's API Reference lists: events and management operations."""


@reference.command()
@json_option
def show(*, as_json: bool) -> None:
    """Show what is known, from where, and whether it is available."""
    try:
        settings = CommonSettings.from_environ(os.environ)
        known = load_reference(settings)
    except SettingsError as exc:
        display.refuse(exc)
    path = reference_path(settings)
    origin = str(path) if known is not load_default() else "this project's own data"
    tables.emit(
        _rows(known),
        ["kind", "name", "available", "source", "note"],
        as_json=as_json,
        title=f"Sellfern's API Reference, from {origin}",
    )


@reference.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@yes_option
@json_option
def import_it(file: Path, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Take over what an OpenAPI document 3.0 or 3.1 (JSON or YAML) lists of webhooks.

    What it doesn't list becomes unavailable. Workers read the result when they start.
    """
    try:
        settings = CommonSettings.from_environ(os.environ)
        content = _content(file)
        listing = _listing(file, content)
        target = reference_path(settings)
        current = read_reference(target) if target.exists() else load_default()
        after = imported(current, load_default(), listing)
        found = changes(current, after)
        _show(found, listing, as_json=as_json)
        # Nothing to ask about where nothing changes.
        if not found or dry_run:
            return
        confirm([f"{target} will say so; restart the workers then"], yes=yes)
        write_reference(target, after, _origin(file, content, listing))
        about = f"{len(found)} changes of {target}"
        asyncio.run(tell_action("import reference", about=about))
    except SettingsError as exc:
        display.refuse(exc)
    click.echo(f"{display.escape_controls(str(target))} is written", err=True)


def _rows(known: Reference) -> Iterable[dict[str, object]]:
    for kind, entries in (("event", known.events), ("operation", known.operations)):
        for entry in entries.values():
            yield {
                "kind": kind,
                "name": entry.name,
                "available": entry.available,
                "source": entry.source,
                "note": entry.note or (entry.path and f"at {entry.path}") or None,
            }


def _content(file: Path) -> bytes:
    """The document, or so much of it that it is seen to be too large."""
    try:
        with file.open("rb") as stream:
            return stream.read(LARGEST + 1)
    except OSError as exc:
        raise SettingsError("FILE", "a readable file", f"{file} ({exc.strerror})") from exc


def _listing(file: Path, content: bytes) -> Listing:
    try:
        return read_document(content)
    except DocumentError as exc:
        raise SettingsError(f"FILE ({file})", exc.expected, exc.got) from exc


def _show(found: list[Change], listing: Listing, *, as_json: bool) -> None:
    tables.emit(
        (asdict(each) | {"meaning": _MEANS.get((each.kind, each.change))} for each in found),
        ["kind", "name", "change", "meaning"],
        as_json=as_json,
        title="What would change",
    )
    for what, said in (("events", listing.events), ("operations", listing.operations)):
        if said is None:
            click.echo(f"the document says nothing of {what}: those stay as they are", err=True)


def _origin(file: Path, content: bytes, listing: Listing) -> str:
    """Where it is from, on one line of a comment."""
    digest = sha256(content).hexdigest()[:12]
    return display.escape_controls(f"{listing.title or file.name} (sha256 {digest}…)")
