"""Facts about what a run says when a peer can't be run."""

import sys
from pathlib import Path

import pytest

from tests.bench import contenders
from tests.bench.drain import prepared
from tests.bench.environments import CannotRunError, last_line, node_packages
from tests.bench.programs import Gate, Program
from tests.bench.progress import Progress


def test_bullmq_is_left_out_where_node_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotRunError, match="node is not installed"):
        node_packages("bullmq")
    peer = contenders.BULLMQ
    assert prepared({peer.name: peer}, Progress()) == {peer.name: "node is not installed"}


def test_what_a_program_said_last_is_the_reason() -> None:
    assert last_line("Traceback:\n  …\nModuleNotFoundError: no\n\n") == "ModuleNotFoundError: no"
    assert last_line("") == "no output"


def test_a_worker_that_ends_before_it_is_ready_is_told_at_once(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    command = [sys.executable, "-c", "raise SystemExit('no redis here')"]
    with (
        Program.started(command, {}, tmp_path / "log") as program,
        pytest.raises(CannotRunError, match="it ended: no redis here"),
    ):
        gate.await_ready([program])
