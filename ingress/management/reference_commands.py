"""The commands that show and replace what is known of Sellfern's API Reference."""

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

import click

from ingress.management.context import confirm
from ingress.management.openapi import LARGEST, DocumentError, Listing, read_document
from ingress.management.reference_import import Change, changes, imported, write_reference
from shared import display
from shared.errors import SettingsError
from shared.program import tables
from shared.program.options import json_option, yes_option
from shared.sellfern.reference import Reference, load_default
from shared.sellfern.reference_file import (
    load_reference,
    read_reference,
    reference_path,
)
from shared.settings.config import CommonSettings

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
        if not found or dry_run:
            return
        confirm([f"{target} will say so; restart the workers then"], yes=yes)
        _write(target, after, _origin(file, content, listing))
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
        (
            {
                "kind": each.kind,
                "name": each.name,
                "change": each.change,
                "meaning": _MEANS.get((each.kind, each.change)),
            }
            for each in found
        ),
        ["kind", "name", "change", "meaning"],
        as_json=as_json,
        title="What would change",
    )
    for what, said in (("events", listing.events), ("operations", listing.operations)):
        if said is None:
            click.echo(f"the document says nothing of {what}: those stay as they are", err=True)


def _write(target: Path, after: Reference, origin: str) -> None:
    try:
        write_reference(target, after, origin)
    except OSError as exc:
        got = f"{target} ({exc.strerror})"
        raise SettingsError("REFERENCE_FILE", "a file that can be replaced", got) from exc


def _origin(file: Path, content: bytes, listing: Listing) -> str:
    """Where it is from, on one line of a comment."""
    digest = sha256(content).hexdigest()[:12]
    return display.escape_controls(f"{listing.title or file.name} (sha256 {digest}…)")
