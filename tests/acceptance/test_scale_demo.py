"""Facts about the scale demo as a process: workers come and go, and nothing is lost."""

import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.acceptance.demo_process import Demo, is_same

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

ROW = re.compile(r"^ *\d+ s +\d+ +[\d,]+ +[\d.]+ s +\d+ +(\d+) *([+-]\d+)?", re.MULTILINE)


@pytest.fixture
def scale_demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start scale demos that end with the test."""
    running: list[Demo] = []

    def start(*arguments: str) -> Demo:
        running.append(Demo(tmp_path, *arguments, command="scale-demo"))
        return running[-1]

    yield start
    for each in running:
        each.end()


def test_workers_follow_the_load_up_and_down_and_nothing_that_was_accepted_is_lost(
    scale_demo: Callable[..., Demo], tmp_path: Path
) -> None:
    plot = tmp_path / "plot.svg"
    running = scale_demo("--seconds", "10", "--peak", "80", "--most", "4", "--plot", str(plot))
    running.until(lambda: "workers" in running.errors)
    started = running.started()
    assert running.ended() == 0, running.output + running.errors
    rows = ROW.findall(running.output)
    workers = [int(number) for number, _ in rows]
    assert workers[-1] == 2
    assert max(workers) > 2
    changes = [int(change) for _, change in rows if change]
    assert sum(changes) == 0
    found = re.search(r"✓ ([\d,]+) accepted = ([\d,]+) handled, each once", running.output)
    assert found
    assert found[1] == found[2]
    assert int(found[1].replace(",", "")) > 200
    assert f"The plot is in {plot}" in running.output
    drawn = ET.fromstring(plot.read_text())  # noqa: S314  # by the program under test
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}path"))) == 4
    assert not any(is_same(*each) for each in started.items())
    assert running.folders == []


def test_ctrl_c_in_the_middle_stops_everything(scale_demo: Callable[..., Demo]) -> None:
    running = scale_demo("--seconds", "60")
    running.until(lambda: "workers" in running.errors)
    started = running.started()
    assert len([each for each in started.values() if each.endswith("-m worker")]) == 2
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 130, running.errors
    assert not any(is_same(*each) for each in started.items())
    assert running.folders == []
    assert "Traceback" not in running.errors
    assert "accepted =" not in running.output
