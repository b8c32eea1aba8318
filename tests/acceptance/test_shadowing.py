"""Facts about packages of somebody else's that have the names of ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.process import ENDPOINTS, ROOT

SCRIPTS = Path(sys.executable).parent
HANDLERS = 'from worker import Handlers\nhandlers = Handlers()\nhandlers.ignore("*")\n'


def put(folder: Path, name: str, text: str = "") -> None:
    """Write a file, and an endpoints file beside it."""
    (folder / "endpoints.toml").write_text(ENDPOINTS)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


def typed(folder: Path, *words: str | Path, **environ: str) -> tuple[int, str, str]:
    """Run a command in a folder; its exit code, and what it says on stdout and stderr."""
    environ = {"PATH": "/bin", "REDIS_URL": "redis://127.0.0.1:1", **environ}
    ended = subprocess.run(
        words, cwd=folder, env=environ, check=False, capture_output=True, text=True
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("program", ["ingress", "worker"])
@pytest.mark.parametrize("stranger", ["shared/__init__.py", "shared.py", "shared/db.py"])
def test_another_shared_is_told_of_on_one_line_with_the_way_out(
    tmp_path: Path, program: str, stranger: str
) -> None:
    put(tmp_path, stranger)
    code, stdout, stderr = typed(tmp_path, sys.executable, "-m", program)
    assert (code, stdout) == (2, "")
    assert stderr == (
        f"error: expected {ROOT}/shared as the package shared, got "
        f"{tmp_path / stranger.partition('/')[0]}: start it as sellfern-{program}, "
        "which doesn't look here first, or rename that\n"
    )


@pytest.mark.parametrize("program", ["ingress", "worker"])
def test_the_way_out_leads_out(tmp_path: Path, program: str) -> None:
    for name in ("shared", "ingress", "worker"):
        put(tmp_path, f"{name}/__init__.py", "raise SystemExit('not ours')")
    put(tmp_path, "hooks.py", HANDLERS)
    script = SCRIPTS / f"sellfern-{program}"
    code, stdout, stderr = typed(tmp_path, script, "check", WORKER_HANDLERS="hooks:handlers")
    assert (code, stderr) == (2, "")  # there is no Redis
    assert "redis_unreachable" in stdout.splitlines()[-1]
    assert [line for line in stdout.splitlines() if line.startswith("error")] == [
        stdout.splitlines()[-1]
    ]


def test_a_path_that_leads_to_another_shared_is_told_of(tmp_path: Path) -> None:
    put(tmp_path, "shared/__init__.py")
    words = (SCRIPTS / "sellfern-worker", "check")
    code, stdout, stderr = typed(Path("/"), *words, PYTHONPATH=str(tmp_path))
    assert (code, stdout) == (2, "")
    assert stderr == (
        f"error: expected {ROOT}/shared as the package shared, got {tmp_path}/shared: "
        "rename that, or take it off PYTHONPATH\n"
    )


def test_a_test_of_somebodys_handlers_gets_an_error_that_it_can_show(tmp_path: Path) -> None:
    put(tmp_path, "shared/__init__.py")
    code, _, stderr = typed(tmp_path, sys.executable, "-c", "import worker")
    assert code == 1
    assert f"ImportError: expected {ROOT}/shared as the package shared, got" in stderr


def test_each_program_warns_of_the_one_that_would_not_start_here(tmp_path: Path) -> None:
    """`python -m worker` runs another's before any line of ours could."""
    put(tmp_path, "worker/__init__.py")
    _, stdout, _ = typed(tmp_path, sys.executable, "-m", "ingress", "check")
    assert stdout.splitlines()[0] == (
        f"warning packages   package_shadowed: `python -m worker` would run {tmp_path}/worker, "
        "not this project's: use sellfern-worker, or rename that"
    )


@pytest.mark.parametrize(
    ("name", "handlers", "got"),
    [
        ("worker/hooks.py", "worker.hooks:handlers", "No module named 'worker.hooks'"),
        ("worker/handlers.py", "worker.handlers:mine", "no 'mine' in it"),
        ("shared/db.py", "hooks:handlers", "No module named 'shared.db'"),
    ],
)
def test_handlers_that_a_package_of_ours_hides_are_told_what_to_do(
    tmp_path: Path, name: str, handlers: str, got: str
) -> None:
    put(tmp_path, name, HANDLERS)
    put(tmp_path, "hooks.py", "import shared.db\n" + HANDLERS)
    code, stdout, stderr = typed(tmp_path, SCRIPTS / "sellfern-worker", WORKER_HANDLERS=handlers)
    assert (code, stdout) == (2, "")
    assert got in stderr
    (line,) = [each for each in stderr.splitlines() if each.startswith("error: ")]
    assert line.endswith(
        f"; this project's package of that name hides {tmp_path / name.partition('/')[0]}: "
        "rename it"
    )
