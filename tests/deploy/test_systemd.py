"""The systemd units: verified by systemd, confined, and true to the programs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from ingress.settings import IngressSettings
from tests.acceptance.process import ROOT, run_command
from tests.deploy.kubernetes_objects import DEPLOY
from tests.tools import tool
from worker.settings import WorkerSettings

UNITS: Final = sorted((DEPLOY / "systemd").glob("*.service"))
PYTHON: Final = "/opt/sellfern/.venv/bin/python"
MOST_EXPOSED: Final = 2.0
"""Of ten, as `systemd-analyze security` counts; a unit without any hardening has 9.6."""


@pytest.fixture(params=UNITS, ids=lambda path: str(path.name))
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit for an interpreter that is on this machine."""
    source: Path = request.param
    copy = tmp_path / source.name.replace("@.", "@9102.")
    copy.write_text(source.read_text().replace(PYTHON, sys.executable))
    return copy


def analyze(*words: str | Path) -> str:
    """What systemd-analyze says of something that has to be right."""
    ended = subprocess.run(
        [tool("systemd-analyze"), *map(str, words)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_systemd_has_nothing_to_say(unit: Path) -> None:
    assert analyze("verify", unit) == ""


def test_a_unit_is_confined(unit: Path) -> None:
    (exposure,) = re.findall(
        r"exposure level for \S+: (\d+\.\d)", analyze("security", "--offline=yes", unit)
    )
    assert float(exposure) <= MOST_EXPOSED


def test_no_unit_leaves_its_memory_on_the_disk(unit: Path) -> None:
    """Systemd takes the last value of a limit."""
    assert re.findall(r"^LimitCORE=(.*)$", unit.read_text(), re.MULTILINE) == ["0"]


DROP_IN: Final = DEPLOY / "systemd" / "sellfern-worker@.service.d"


def dropped_in(unit: Path) -> dict[str, list[str]]:
    """What stands in the drop-in for handlers of one's own, by setting, beside a worker's unit."""
    folder = shutil.copytree(DROP_IN, unit.parent / DROP_IN.name)
    found: dict[str, list[str]] = {}
    for line in (folder / "handlers.conf").read_text().splitlines():
        name, _, value = line.partition("=")
        if not line.startswith(("#", "[")) and value:
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", [DEPLOY / "systemd/sellfern-worker@.service"], indirect=True)
def test_systemd_reads_the_drop_in_for_handlers(unit: Path) -> None:
    told = dropped_in(unit)
    assert analyze("verify", unit) == ""
    with (unit.parent / DROP_IN.name / "handlers.conf").open("a") as file:
        file.write("Nothing=such\n")
    assert "Unknown key 'Nothing' in section [Service]" in analyze("verify", unit)
    # A file of the endpoints is found from anywhere.
    assert re.search(r"^Environment=ENDPOINTS_FILE=/", unit.read_text(), re.MULTILINE)
    assert told.keys() == {"WorkingDirectory", "Environment", "EnvironmentFile"}


@pytest.mark.parametrize("unit", [DEPLOY / "systemd/sellfern-worker@.service"], indirect=True)
async def test_a_worker_finds_its_handlers_from_there(unit: Path, tmp_path: Path) -> None:
    told = dropped_in(unit)
    project = ROOT / "tests" / "examples" / "shop"
    environ = {"ENDPOINTS_FILE": str(project / "endpoints.toml"), "PATH": os.environ["PATH"]}
    environ |= dict(each.split("=", 1) for each in told["Environment"][0].split())
    words = (sys.executable, "-m", "worker", "check")
    for folder, level in ((project, "ok"), (tmp_path, "error")):
        ended = await run_command(*words, environ=environ, folder=folder)
        assert re.search(rf"^{level} +handlers ", ended.stdout, re.MULTILINE), ended


def test_each_program_has_a_unit_that_outlasts_its_drain() -> None:
    text = {path.name: path.read_text() for path in UNITS}
    assert text.keys() == {
        "sellfern-ingress.service",
        "sellfern-worker@.service",
        "sellfern-console.service",
        "sellfern-redis.service",
    }
    ingress, worker = IngressSettings.from_environ({}), WorkerSettings.from_mapping({})
    for name, words, drain in (
        ("sellfern-ingress.service", "-m ingress", ingress.drain_delay + ingress.drain_seconds),
        ("sellfern-worker@.service", "-m worker", worker.drain),
    ):
        assert f"ExecStart={PYTHON} {words}\n" in text[name]
        assert "ExecStartPre" not in text[name]  # it would fail while the program would wait
        (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", text[name], re.MULTILINE)
        assert drain < int(stop) <= drain + 10
    (files,) = re.findall(r"^LimitNOFILE=(\d+)$", text["sellfern-ingress.service"], re.MULTILINE)
    assert int(files) > ingress.limits.connections
