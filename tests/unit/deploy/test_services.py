"""Facts about which files concern a worker, and when there is a new one."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local import services
from deploy.local.services import LogView, ReloadedWorker, changes, watched
from deploy.local.supervisor import Program
from shared.errors import SettingsError

PATIENCE = 30.0
STARTED = 'print(\'{"event":"worker_started"}\', file=sys.stderr, flush=True); '


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with a package, one without an ``__init__``, and a module."""
    for name in ("whole/__init__.py", "whole/deep/hooks.py", "bare/hooks.py", "alone.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("(")  # nothing may import it
    return tmp_path


def test_a_package_is_watched_with_what_is_in_it_and_a_module_with_its_folder(
    project: Path,
) -> None:
    assert watched("whole.deep.hooks:handlers", project) == (project / "whole", True)
    assert watched("bare.hooks:handlers", project) == (project / "bare", True)
    assert watched("alone:handlers", project) == (project, False)
    assert watched("worker.handlers:handlers", project)[0].name == "worker"


@pytest.mark.parametrize("handlers", ["nowhere:x", "", ":", "..", "sys:x", "bare/hooks:x"])
def test_what_can_not_be_watched_is_refused(project: Path, handlers: str) -> None:
    with pytest.raises(SettingsError, match=r"--handlers: expected a module to import from /"):
        watched(handlers, project)


def first(found: Iterator[list[str]]) -> list[str]:
    return next(each for each in found if each)


def test_the_changed_files_are_named_however_they_are_written(project: Path) -> None:
    found = changes(project / "whole", below=True)
    assert next(found) == []
    (project / "whole" / "notes.txt").write_text("no Python")
    draft = project / "whole" / "deep" / "draft"
    draft.write_text("1")
    draft.rename(draft.with_name("hooks.py"))  # as editors do that write safely
    assert first(found) == ["whole/deep/hooks.py"]
    (project / "whole" / "deep" / "hooks.py").unlink()
    assert first(found) == ["whole/deep/hooks.py"]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[str], tuple[ReloadedWorker, list[Program]]]]:
    """Make workers that run some code."""
    made: list[ReloadedWorker] = []
    programs: list[Program] = []

    def worker(code: str) -> tuple[ReloadedWorker, list[Program]]:
        def start() -> Program:
            words = [sys.executable, "-c", f"import signal, sys, time; {code}"]
            programs.append(Program("worker", words, {}, tmp_path))
            return programs[-1]

        made.append(ReloadedWorker(start, LogView("worker")))
        return made[-1], programs

    yield worker
    for each in made:
        with each:
            pass


def look_until(worker: ReloadedWorker, fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline
        worker.look()
        time.sleep(0.01)


Begin = Callable[[str], tuple[ReloadedWorker, list[Program]]]


def test_one_that_has_not_begun_waits_for_a_change(
    begin: Begin, capsys: pytest.CaptureFixture[str]
) -> None:
    worker, programs = begin("sys.exit('error: wrong')")
    said = ""

    def has_said() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "anew" in said

    look_until(worker, has_said)
    assert said == (
        "worker | error: wrong\n"
        "worker | worker ended with code 1; the next change of a file starts it anew\n"
    )
    worker.look()
    assert len(programs) == 1
    worker.look(["hooks.py"])
    assert len(programs) == 2


def test_one_that_ends_later_is_there_again_by_itself(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_PAUSE_SECONDS", 0.05)
    worker, programs = begin(STARTED + "sys.exit(70)")
    look_until(worker, lambda: len(programs) >= 3)


def test_the_next_one_comes_when_the_one_before_has_gone_if_it_has_to_be_killed(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(services, "STOP_SECONDS", 0.2)
    worker, programs = begin(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    worker.look()
    look_until(worker, lambda: "ready" in programs[0].output())
    worker.look(["a.py", "b.py", "c.py"])
    assert len(programs) == 1
    look_until(worker, lambda: len(programs) == 2)
    assert not programs[0].is_running
    assert "worker | a.py and 2 more changed: a new worker takes over\n" in capsys.readouterr().out
    look_until(worker, lambda: "ready" in programs[1].output())
    worker.stop()
    assert not programs[1].is_running
