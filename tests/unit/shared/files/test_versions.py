"""Whether a file has another version by now, and when that can be told without reading it."""

from pathlib import Path
from time import time_ns

import pytest

from shared.files import versions as file_versions
from shared.files.patient import PatientFiles
from shared.files.versions import Failure, FileVersions, Version

SECOND = 10**9


@pytest.fixture
def versions() -> FileVersions:
    return FileVersions(PatientFiles())


def stamped(monkeypatch: pytest.MonkeyPatch, changed_at: int) -> None:
    """Let every file bear one stamp, as two writes within one tick of a clock do."""
    monkeypatch.setattr(file_versions, "stamp_of", lambda _: (1, 2, 3, 0, changed_at))


def test_a_file_is_read_again_where_its_stamp_differs(
    versions: FileVersions, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    assert versions.refresh(versions.stamps([path])) == {path}
    assert versions.content(path) == b"one"
    path.write_bytes(b"other")
    stamps = versions.stamps([path])
    assert versions.differ(stamps)
    assert versions.refresh(stamps) == {path}
    path.unlink()
    assert versions.refresh(versions.stamps([path])) == {path}
    assert versions.content(path) == Failure("No such file or directory")


def test_a_stamp_that_is_young_is_no_proof(
    versions: FileVersions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    stamped(monkeypatch, time_ns() - SECOND)
    stamps = versions.stamps([path])
    versions.refresh(stamps)
    path.write_bytes(b"two")
    assert versions.differ(stamps)
    assert versions.refresh(stamps) == {path}


def test_an_old_one_is(
    versions: FileVersions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    stamped(monkeypatch, time_ns() - 3 * SECOND)
    stamps = versions.stamps([path])
    versions.refresh(stamps)
    path.write_bytes(b"two")
    assert not versions.differ(stamps)
    assert versions.refresh(stamps) == set()
    assert versions.content(path) == b"one"


def test_of_a_file_that_did_not_answer_no_stamp_says_anything() -> None:
    hanging = Failure("no answer", hangs=True)
    assert not Version((1, 2, 3, 4, 5), time_ns(), hanging, hanging).is_certain
    denied = Failure("Permission denied")
    assert Version((1, 2, 3, 4, 5), time_ns(), denied, denied).is_certain


def test_a_file_that_nobody_asks_for_any_more_is_forgotten(
    versions: FileVersions, tmp_path: Path
) -> None:
    paths = [tmp_path / "x", tmp_path / "y"]
    versions.refresh(versions.stamps(paths))
    versions.keep_only(paths[:1])
    with pytest.raises(KeyError):
        versions.content(paths[1])


def test_of_a_file_without_an_end_no_more_is_read_than_memory_can_take(
    versions: FileVersions, tmp_path: Path
) -> None:
    endless = Path("/dev/zero")
    versions.refresh(versions.stamps([endless]))
    assert versions.content(endless) == Failure("more than 16 MiB")
    largest = tmp_path / "x"
    largest.write_bytes(b"x" * file_versions.MOST_BYTES)
    versions.refresh(versions.stamps([largest]))
    assert versions.content(largest) == largest.read_bytes()
