"""Facts about what an import does to the reference data, and about the file it is kept in."""

import stat
from pathlib import Path

import pytest

from ingress.management.openapi import Listing
from ingress.management.reference_commands import Change, changes, imported, write_reference
from shared.errors import SettingsError
from shared.sellfern.reference import Reference, load_default
from shared.sellfern.reference_file import load_reference, reference_path
from shared.settings.config import CommonSettings
from shared.settings.reader import Reader

KNOWN = load_default()
LISTING = Listing(
    "Sellfern 1",
    {"POST /webhooks": "/webhooks", "GET /webhooks": "/api/v2/webhooks"},
    ("order.updated", "ticket.created", "item.created"),
)


def settings(folder: Path, **environ: str) -> CommonSettings:
    return CommonSettings.from_reader(
        Reader({"ENDPOINTS_FILE": str(folder / "endpoints.toml"), **environ})
    )


def available(reference: Reference) -> set[str]:
    return {
        name
        for entries in (reference.events, reference.operations)
        for name, entry in entries.items()
        if entry.available
    }


def test_what_is_listed_is_available_and_nothing_else() -> None:
    after = imported(KNOWN, KNOWN, LISTING)
    assert available(after) == {
        "order.updated",
        "ticket.created",
        "item.created",
        "POST /webhooks",
        "GET /webhooks",
    }
    assert after.events["order.created"].source == "v1"
    assert after.events["item.created"].source == "openapi"
    assert after.path("GET /webhooks") == "/api/v2/webhooks"
    assert after.path("POST /webhooks") == "/webhooks"
    assert not after.has_operation("DELETE /webhooks/{id}")
    assert not after.has_operation("BREW /coffee")
    assert after.available_events() == ["order.updated", "ticket.created", "item.created"]


def test_the_changes_are_told_one_by_one() -> None:
    after = imported(KNOWN, KNOWN, LISTING)
    assert changes(KNOWN, after) == [
        Change("event", "order.created", "unavailable"),
        Change("event", "order.status_changed", "unavailable"),
        Change("event", "order.updated", "provenance"),
        Change("event", "ticket.created", "available"),
        Change("event", "item.created", "added"),
        Change("operation", "POST /webhooks", "provenance"),
        Change("operation", "GET /webhooks", "available"),
    ]


def test_a_later_import_removes_what_only_an_earlier_one_listed() -> None:
    before = imported(KNOWN, KNOWN, LISTING)
    listing = Listing("", {"GET /webhooks": "/webhooks"}, ("order.updated",))
    after = imported(before, KNOWN, listing)
    assert changes(before, after) == [
        Change("event", "ticket.created", "unavailable"),
        Change("event", "item.created", "removed"),
        Change("operation", "POST /webhooks", "unavailable"),
        Change("operation", "GET /webhooks", "moved"),
    ]


def test_the_same_import_again_changes_nothing() -> None:
    once = imported(KNOWN, KNOWN, LISTING)
    assert changes(once, imported(once, KNOWN, LISTING)) == []


def test_what_a_document_is_silent_about_stays_as_it_is() -> None:
    before = imported(KNOWN, KNOWN, LISTING)
    after = imported(before, KNOWN, Listing("", None, None))
    assert after == before


def test_the_file_is_beside_the_endpoints_file_and_without_it_the_projects_own_data_hold(
    tmp_path: Path,
) -> None:
    common = settings(tmp_path)
    assert reference_path(common) == tmp_path / "reference.toml"
    assert load_reference(common) is KNOWN
    after = imported(KNOWN, KNOWN, LISTING)
    write_reference(reference_path(common), after, "a document")
    assert load_reference(common) == after
    text = reference_path(common).read_text()
    assert text.startswith("# Written by `python -m ingress reference import` from a document.\n")
    # No secrets in it, and workers may run as another user.
    assert stat.S_IMODE(reference_path(common).stat().st_mode) == 0o644


def test_a_setting_names_another_file(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    common = settings(tmp_path, REFERENCE_FILE=str(other))
    with pytest.raises(SettingsError, match="REFERENCE_FILE: expected a file of reference data"):
        load_reference(common)  # rather than silently another catalogue
    write_reference(other, imported(KNOWN, KNOWN, LISTING), "a document")
    assert load_reference(common).is_available("item.created")


@pytest.mark.parametrize("content", [b"event = 1", b"\xff", b"[[event]]\nname = 1"])
def test_a_file_that_is_no_reference_data_is_a_settings_error(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "reference.toml").write_bytes(content)
    with pytest.raises(SettingsError, match="REFERENCE_FILE"):
        load_reference(settings(tmp_path))


def test_data_that_couldn_t_be_read_again_isn_t_written(tmp_path: Path) -> None:
    entry = KNOWN.events["order.updated"]
    twice = Reference({"a": entry, "b": entry}, {})
    with pytest.raises(ValueError, match=r"order\.updated again"):
        write_reference(tmp_path / "reference.toml", twice, "nowhere")
    assert list(tmp_path.iterdir()) == []
