"""Files that never answer hold nothing up."""

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from shared.files import patient as patient_files
from shared.files.patient import MOST_STUCK, FileHangs, PatientFiles, toml_files

LIMIT = 0.1


def hanging(path: Path) -> Path:
    """A file that nobody writes to: to open it waits for ever, as on a dead mount."""
    os.mkfifo(path)
    return path


def written(path: Path, text: bytes = b"x") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    return path


def until(condition: Callable[[], bool]) -> None:
    end = monotonic() + 10
    while not condition():
        assert monotonic() < end
        sleep(0.01)


def test_every_path_gets_its_answer_or_its_error(tmp_path: Path) -> None:
    good, gone, odd = written(tmp_path / "good"), tmp_path / "gone", Path("a\0b")
    answers = PatientFiles().each(Path.read_bytes, [good, gone, odd, tmp_path])
    assert answers[good] == b"x"
    assert isinstance(answers[gone], FileNotFoundError)
    assert isinstance(answers[odd], ValueError)
    assert isinstance(answers[tmp_path], IsADirectoryError)


def test_one_that_hangs_holds_up_none_behind_it(tmp_path: Path) -> None:
    first, dead, last = written(tmp_path / "a"), hanging(tmp_path / "b"), written(tmp_path / "c")
    files = PatientFiles(LIMIT)
    answers = files.each(Path.read_bytes, [first, dead, last])
    assert (answers[first], answers[last]) == (b"x", b"x")
    assert str(answers[dead]).endswith("no answer from the file system within 0.1 s")
    assert files.stuck == {dead}


def test_it_is_not_asked_about_again_at_once(tmp_path: Path) -> None:
    dead = hanging(tmp_path / "b")
    files = PatientFiles(LIMIT)
    files.each(Path.read_bytes, [dead])
    started = monotonic()
    answers = files.each(Path.read_bytes, [dead])
    assert type(answers[dead]) is FileHangs
    assert monotonic() - started < LIMIT
    assert files.each(Path.is_fifo, [dead]) == {dead: True}  # of other things it may tell
    with dead.open("wb") as mount:  # it comes back
        mount.write(b"late")
    until(lambda: not files.stuck)


def test_what_is_mounted_in_its_place_is_seen_though_the_old_one_never_answers(
    tmp_path: Path,
) -> None:
    dead = hanging(tmp_path / "b")
    files = PatientFiles(LIMIT)
    files.each(Path.read_bytes, [dead])
    dead.rename(tmp_path / "still-dead")
    written(dead)
    until(lambda: files.each(Path.read_bytes, [dead])[dead] == b"x")
    assert not files.stuck


def test_it_is_asked_about_ever_more_rarely(tmp_path: Path) -> None:
    dead = hanging(tmp_path / "b")
    files = PatientFiles(LIMIT / 4)
    files.each(Path.read_bytes, [dead])
    asked = 0
    for _ in range(80):
        (before,) = files._stuck.values()
        files.each(Path.read_bytes, [dead])
        asked += before not in files._stuck.values()
        sleep(0.01)
    assert 2 <= asked <= 6


def test_what_is_waited_for_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_files, "AWAITED_AFTER", 0.02)
    told: list[Path] = []
    dead = hanging(tmp_path / "b")
    PatientFiles(LIMIT, told.append).each(Path.read_bytes, [written(tmp_path / "a"), dead])
    assert told == [dead]


def test_a_dead_folder_costs_few_threads_and_others_are_asked_about_first(tmp_path: Path) -> None:
    (tmp_path / "dead").mkdir()
    dead = [hanging(tmp_path / "dead" / f"{number}") for number in range(MOST_STUCK + 3)]
    alive = written(tmp_path / "alive" / "x")
    files = PatientFiles(LIMIT / 4)
    answers = files.each(Path.read_bytes, [*dead, alive])
    assert answers.pop(alive) == b"x"
    assert {type(answer) for answer in answers.values()} == {FileHangs}
    assert len(files.stuck) == MOST_STUCK
    started = monotonic()
    assert files.each(Path.read_bytes, [*dead, alive])[alive] == b"x"
    assert monotonic() - started < LIMIT  # nobody waits for the dead ones any more
    assert len(files.stuck) == MOST_STUCK


def test_what_is_beside_one_that_hangs_is_asked_about_last(tmp_path: Path) -> None:
    (tmp_path / "dead").mkdir()
    dead = [hanging(tmp_path / "dead" / name) for name in "12"]
    alive = written(tmp_path / "alive" / "x")
    asked: list[Path] = []

    def read(path: Path) -> bytes:
        asked.append(path)
        return path.read_bytes()

    PatientFiles(LIMIT).each(read, [*dead, alive])
    assert asked == [dead[0], alive, dead[1]]


def test_a_folder_stands_for_its_toml_files_but_not_for_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.toml", "a.toml", ".c.toml", "d.txt", "e.toml~", ".a.toml.swp"):
        written(tmp_path / name)
    (tmp_path / "..data").mkdir()
    assert toml_files(tmp_path) == [tmp_path / "a.toml", tmp_path / "b.toml"]
    assert toml_files(tmp_path / "d.txt") == [tmp_path / "d.txt"]
    with pytest.raises(FileNotFoundError):
        toml_files(tmp_path / "gone")
