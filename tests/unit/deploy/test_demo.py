"""Facts about the demo that need none of its programs."""

import ast
import asyncio
import signal
import tempfile
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry, Counter, generate_latest
from rich.console import Console

from deploy.local import demo
from deploy.local.display import Figures, progress
from deploy.local.stage import run_until_interrupted
from deploy.local.system import parse

LOCAL = Path(demo.__file__).parent


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Put back what a demo makes of signals, which is for the rest of its process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder for temporary folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_without_a_redis_server_it_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(demo.main, ["--events", "50"])
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.startswith("error: no redis-server: install the development dependency")
    (folder,) = temporary.iterdir()
    assert second == f"  The logs are in {folder}"


def test_an_error_that_nobody_expected_is_one_line_too_and_its_traceback_is_kept(
    monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a \x1b[2J bug")

    monkeypatch.setattr(demo, "_play", fail)
    result = CliRunner().invoke(demo.main, ["--events", "50"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: unexpected KeyError: ")
    assert "\x1b" not in result.stderr
    (folder,) = temporary.iterdir()
    assert "in fail" in (folder / "demo.log").read_text()


@pytest.mark.parametrize(
    "arguments", [["--events", "49"], ["--workers", "0"], ["--seed", "-1"], ["--partitions", "257"]]
)
def test_an_option_out_of_its_range_is_refused(arguments: list[str], temporary: Path) -> None:
    result = CliRunner().invoke(demo.main, arguments)
    assert result.exit_code == 2
    assert "is not in the range" in result.stderr
    assert not list(temporary.iterdir())


def test_an_account_that_does_not_balance_is_exit_code_1_and_keeps_the_folder(
    monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.setattr(demo, "_play", lambda *_, **__: False)
    before = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(demo.main, ["--seed", "5"])
    assert result.exit_code == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert result.stderr.startswith("error: the account doesn't balance; --seed 5 makes")
    assert len(list(temporary.iterdir())) == 1


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("where", ["outside", "inside"])
def test_a_signal_ends_it_in_and_out_of_an_event_loop_and_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, number: signal.Signals, code: int, where: str
) -> None:
    left: list[str] = []

    async def wait() -> None:
        signal.raise_signal(number)
        try:
            await asyncio.sleep(60)
        finally:
            left.append("left")

    def end(*_: object, **__: object) -> bool:
        if where == "inside":
            run_until_interrupted(wait())
        signal.raise_signal(number)
        return True

    monkeypatch.setattr(demo, "_play", end)
    assert CliRunner().invoke(demo.main, []).exit_code == code
    assert left == (["left"] if where == "inside" else [])
    signal.raise_signal(number)  # somebody is impatient; everything is stopped already
    assert not list(temporary.iterdir())


def test_only_the_handlers_of_the_demos_import_a_program() -> None:
    importing = {
        path.stem
        for path in LOCAL.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in _names(node)
        if name.partition(".")[0] in {"ingress", "worker"}
    }
    assert importing == {"demo_handlers"}


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


GOALS = Figures(sent=2400, accepted=2352, handled=1860)
HALFWAY = Figures(sent=1200, accepted=1100, refused=20, handled=900, retried=60, dead=50)
DONE = Figures(sent=2400, accepted=2352, refused=48, handled=1860, retried=120, dead=115)


def test_progress_elsewhere_than_on_a_terminal_is_plain_lines_of_which_the_last_is_the_end() -> (
    None
):
    screen = StringIO()
    with progress(Console(file=screen), GOALS) as show:
        for figures in (HALFWAY, HALFWAY, DONE):
            show(figures)
    first, last = screen.getvalue().splitlines()
    assert first.startswith("sent 1,200 of 2,400, accepted 1,100, refused 20, handled 900 of 1,860")
    assert last.endswith("handled 1,860 of 1,860, retried 120, dead 115")


def test_progress_on_a_terminal_fits_80_columns() -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    with progress(console, GOALS) as show:
        show(HALFWAY)
        show(DONE)
    *_, sent, accepted, handled = (line for line in screen.getvalue().splitlines() if "/s" in line)
    assert "2,400/2,400" in sent
    assert "48 refused" in accepted
    assert "120 retried, 115 dead" in handled


def test_the_outcomes_of_several_programs_are_added_up() -> None:
    registry = CollectorRegistry()
    events = Counter("sellfern_events", "Events", ["outcome"], registry=registry)
    events.labels("handled").inc(3)
    events.labels("dead").inc()
    Counter("other", "Something else", registry=registry).inc()
    text = generate_latest(registry).decode()
    assert parse("sellfern_events", [text]) == {"handled": 3, "dead": 1}
    assert parse("sellfern_events", [text, text]) == {"handled": 6, "dead": 2}
    assert parse("sellfern_nothing", [text]) == {}
    assert parse("sellfern_events", []) == {}
