"""Facts about replacing a file as a whole."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shared.files import atomic as atomic_file
from shared.files.atomic import replace_file

DIE_BEFORE_THE_RENAME = """
import os, signal, sys
from pathlib import Path
from shared.files import atomic as atomic_file

write = atomic_file._write

def write_and_die(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

atomic_file._write = write_and_die
atomic_file.replace_file(Path(sys.argv[1]), b"new")
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o644, 0o400])
def test_the_mode_of_a_file_is_kept(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(kept)
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode(path) == kept
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_is_for_its_owner_alone_unless_it_is_said(tmp_path: Path) -> None:
    replace_file(tmp_path / "secret", b"x")
    replace_file(tmp_path / "open", b"x", new_mode=0o644)
    assert mode(tmp_path / "secret") == 0o600
    assert mode(tmp_path / "open") == 0o644


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("old")
    link = tmp_path / "link"
    link.symlink_to("folder/file")
    replace_file(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "folder" / "file").read_bytes() == b"new"


def test_a_kill_between_write_and_rename_loses_neither_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    died = subprocess.run([sys.executable, "-c", DIE_BEFORE_THE_RENAME, path], check=False)
    assert died.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (draft,) = (each for each in tmp_path.iterdir() if each != path)
    assert draft.read_bytes() == b"new"
    assert mode(draft) & 0o077 == 0o044  # as the file's, which is readable here

    replace_file(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def test_what_can_t_be_written_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_file, "_take_after", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nobody_can_lay_a_link_in_the_way(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    (tmp_path / ".file.new").symlink_to(other)
    replace_file(tmp_path / "file", b"new")
    assert other.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_of_a_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    os.chown(path, 1234, 1235)
    replace_file(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)
