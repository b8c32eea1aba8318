"""Facts about the local runner: what it starts ends with it, and what goes wrong is told."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local.supervisor import (
    ROOT,
    Program,
    ProgramError,
    Supervisor,
    bare_environment,
    last_lines,
)

PATIENCE = 20.0
LISTENING = 'print(\'{"event":"listening","port":7}\', file=sys.stderr, flush=True)\n'
SLEEP = "time.sleep(60)\n"

Start = Callable[..., Program]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int) -> bool:
    """Whether a process ends; one that nobody has waited for is there until somebody has."""
    deadline = time.monotonic() + PATIENCE
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a program of a test's own under a supervisor."""

    def started(supervisor: Supervisor, text: str, name: str = "program") -> Program:
        (tmp_path / f"{name}_module.py").write_text(f"import os, signal, sys, time\n{text}")
        environ = bare_environment(os.environ, PYTHONPATH=str(tmp_path))
        return supervisor.start(name, f"{name}_module", environ=environ)

    return started


def test_a_program_runs_until_the_block_ends(tmp_path: Path, start: Start) -> None:
    with Supervisor(tmp_path) as supervisor:
        program = start(
            supervisor, "signal.signal(15, lambda *_: sys.exit(0))\n" + LISTENING + SLEEP
        )
        assert program.wait_for("listening")["port"] == 7
        supervisor.check()
        assert alive(program.pid)
    assert not alive(program.pid)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_programs_end_whatever_ends_the_block(
    tmp_path: Path, start: Start, error: type[BaseException]
) -> None:
    pids: list[int] = []

    def fail() -> None:
        with Supervisor(tmp_path) as supervisor:
            pids.extend(start(supervisor, SLEEP, f"program{n}").pid for n in range(2))
            raise error

    with pytest.raises(error):
        fail()
    assert not any(map(alive, pids))


def test_a_program_that_does_not_stop_is_killed_and_told(tmp_path: Path, start: Start) -> None:
    supervisor = Supervisor(tmp_path, stop_seconds=0.1)
    program = start(supervisor, "signal.signal(15, signal.SIG_IGN)\n" + LISTENING + SLEEP)
    program.wait_for("listening")
    with pytest.raises(ProgramError, match="program didn't stop when asked, and was killed"):
        supervisor.stop()
    assert not alive(program.pid)


def test_a_dismissed_program_leaves_in_its_own_time_and_is_not_missed(
    tmp_path: Path, start: Start
) -> None:
    asked_once = "signal.signal(15, lambda *_: (time.sleep(0.3), sys.exit(0)))\n"
    with Supervisor(tmp_path) as supervisor:
        program = start(supervisor, asked_once + LISTENING + SLEEP)
        program.wait_for("listening")
        supervisor.dismiss(program)
        assert supervisor.leaving == 1
        supervisor.check()
        deadline = time.monotonic() + PATIENCE
        while supervisor.leaving and time.monotonic() < deadline:
            supervisor.check()
        assert not program.is_running
        assert supervisor.leaving == 0


@pytest.mark.parametrize(
    ("when_asked", "stop_seconds", "told"),
    [
        ("lambda *_: sys.exit(3)", PATIENCE, "program ended with code 3"),
        ("signal.SIG_IGN", 0.3, "program didn't stop when asked"),
    ],
)
def test_a_dismissed_program_that_fails_or_stays_is_told(
    tmp_path: Path, start: Start, when_asked: str, stop_seconds: float, told: str
) -> None:
    supervisor = Supervisor(tmp_path, stop_seconds=stop_seconds)
    program = start(supervisor, f"signal.signal(15, {when_asked})\n" + LISTENING + SLEEP)
    program.wait_for("listening")
    supervisor.dismiss(program)
    deadline = time.monotonic() + PATIENCE

    def watch() -> None:
        while time.monotonic() < deadline:
            supervisor.check()

    with pytest.raises(ProgramError, match=told):
        watch()
    with pytest.raises(ProgramError, match=told):
        supervisor.stop()
    assert not alive(program.pid)


def test_a_frozen_program_is_stopped(tmp_path: Path, start: Start) -> None:
    with Supervisor(tmp_path) as supervisor:
        program = start(
            supervisor, "signal.signal(15, lambda *_: sys.exit(0))\n" + LISTENING + SLEEP
        )
        program.wait_for("listening")
        program.signal(signal.SIGSTOP)
    assert not alive(program.pid)


def test_a_program_that_ends_by_itself_is_told_with_its_error(tmp_path: Path, start: Start) -> None:
    supervisor = Supervisor(tmp_path)
    program = start(supervisor, "print('error: PORT: expected one', file=sys.stderr)\nsys.exit(2)")
    with pytest.raises(ProgramError, match=r"^program ended with code 2: PORT: expected one$"):
        program.wait_for("listening")
    with pytest.raises(ProgramError, match="ended with code 2"):
        supervisor.check()
    with pytest.raises(ProgramError, match="ended with code 2") as caught:
        supervisor.stop()
    assert last_lines(caught.value.log) == ["error: PORT: expected one"]


def test_a_program_that_was_killed_is_told_with_the_signal(tmp_path: Path, start: Start) -> None:
    supervisor = Supervisor(tmp_path)
    program = start(supervisor, SLEEP)
    program.kill()
    with pytest.raises(ProgramError, match="program was ended by SIGKILL"):
        supervisor.check()


def test_what_went_wrong_first_is_what_is_told(tmp_path: Path, start: Start) -> None:
    def fail() -> None:
        with Supervisor(tmp_path) as supervisor:
            start(supervisor, SLEEP).kill()
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        fail()


def test_an_event_that_is_not_logged_in_time_is_told(tmp_path: Path, start: Start) -> None:
    supervisor = Supervisor(tmp_path)
    program = start(supervisor, "print('[1]', 'x', sep='\\n', file=sys.stderr)\n" + SLEEP)
    with pytest.raises(ProgramError, match=r"program logged no listening in 0\.1 s"):
        program.wait_for("listening", 0.1)
    program.kill()


def test_a_command_is_asked_for_its_output(tmp_path: Path) -> None:
    environ = bare_environment(os.environ)
    with Supervisor(tmp_path) as supervisor:
        (tmp_path / "echo.py").write_text("import sys\nprint(sys.argv[1:])")
        asked = supervisor.ask(
            "echo", [["a", "1"], ["b", "2"]], environ={**environ, "PYTHONPATH": str(tmp_path)}
        )
        assert asked == ["['a', '1']\n", "['b', '2']\n"]
        supervisor.check()  # what has answered isn't missed
        with pytest.raises(ProgramError, match=r"^nothing_module x ended with code 1"):
            supervisor.ask("nothing_module", [["x"]], environ=environ)


def test_settings_of_the_shell_are_no_part_of_a_bare_environment() -> None:
    shell = {"PATH": "/bin", "REDIS_URL": "redis://precious", "DURABILITY": "memory", "LC_ALL": "C"}
    assert bare_environment(shell, REDIS_URL="redis://own") == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "REDIS_URL": "redis://own",
    }


def test_the_last_lines_of_a_long_log_are_few_and_short(tmp_path: Path) -> None:
    log = tmp_path / "program.log"
    log.write_text("".join(f"{n} {'x' * 1000}\n" for n in range(200)))
    lines = last_lines(log)
    assert [line.split()[0] for line in lines] == ["195", "196", "197", "198", "199"]
    assert max(map(len, lines)) <= 300
    assert last_lines(tmp_path / "nothing") == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent")
def test_programs_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    text = textwrap.dedent(f"""
        import os, time
        from pathlib import Path
        from deploy.local.supervisor import Supervisor
        with Supervisor(Path({str(tmp_path)!r})) as supervisor:
            program = supervisor.start("server", "http.server", "0", environ=os.environ)
            print(program.pid, flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as supervising:
        assert supervising.stdout
        pid = int(supervising.stdout.readline())
        supervising.kill()
    assert gone(pid)
