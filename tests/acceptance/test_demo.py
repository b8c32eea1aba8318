"""Facts about the demo as a process: its account, its exit codes, and that it stops everything."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from deploy.local import plan
from deploy.local.supervisor import ROOT, bare_environment
from shared.queue import keys
from tests.acceptance.demo_process import PATIENCE, Demo, is_same

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start demos that end with the test."""
    running: list[Demo] = []

    def start(*arguments: str) -> Demo:
        running.append(Demo(tmp_path, *arguments))
        return running[-1]

    yield start
    for each in running:
        each.end()


def look_around(running: Demo) -> None:
    """Type the commands that it shows, as they stand."""
    settings = dict(re.findall(r"^  export (\w+)=(.*)$", running.output, re.MULTILINE))
    commands = re.findall(r"^  \S*python\S* -m (.*)$", running.output, re.MULTILINE)
    assert len(commands) == 4
    environ = bare_environment(os.environ, **settings)
    looking = [
        subprocess.Popen(
            [sys.executable, "-m", *each.split()],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        for each in commands
    ]
    outputs = [each.communicate(timeout=PATIENCE)[0] for each in looking]
    assert [each.returncode for each in looking] == [0, 0, 0, 0]
    status, letters, state, sent = outputs
    assert "handled" in status
    # The first five of seven died last, which is a matter of timing.
    reasons = re.compile("|".join(plan.DEAD.values()))
    assert len([line for line in letters.splitlines() if reasons.search(line)]) == 5
    assert "timeline" in state
    assert "202" in sent


def test_it_balances_to_the_last_event_stays_on_demand_and_leaves_nothing_behind(
    demo: Callable[..., Demo],
) -> None:
    """Over several partitions, too: a single queue's is the one that `test_pages.py` types."""
    running = demo("--events", "200", "--seed", "11", "--partitions", "4", "--stay")
    running.until(lambda: "ingress send" in running.output)
    started = running.started()
    assert len([each for each in started.values() if each.endswith("-m worker")]) == 2
    assert "200 events of 3 organizations, seed 11" in running.output
    row = re.compile(r"^ +(\w+) +([\d,]+) +([\d,]+)  ([✓✗])", re.MULTILINE)
    rows = {
        name: (expected, got, mark) for name, expected, got, mark in row.findall(running.output)
    }
    assert rows["sent"] == ("240", "240", "✓")
    assert rows.keys() > {"refused", "accepted", "handled", "duplicates", "retried", "dead"}
    assert rows.keys() > {"stale", "malformed", "rejected", "organization_mismatch"}
    assert all(expected == got and mark == "✓" for expected, got, mark in rows.values())
    assert re.search(r"ord_\w+ of org_\w+, as worker state knows it: ", running.output)
    assert "✓ 240 sent = " in running.output
    assert "appendfsync always, 4 partitions" in running.output
    living = re.findall(r"^ ?(\d) +(\S+) +\d+ +\d+ *$", running.output, re.MULTILINE)
    assert living == [("0", "org_amber"), ("1", "org_cedar"), ("2", "none"), ("3", "org_birch")]
    assert "sent 240 of 240" in running.errors
    look_around(running)
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 0, running.errors
    assert running.output.endswith("Everything is stopped.\n")
    assert not any(is_same(*each) for each in started.items())
    assert running.folders == []


@pytest.mark.parametrize(
    ("number", "code", "moment"),
    [
        (signal.SIGINT, 130, "starting"),
        (signal.SIGTERM, 143, "sending"),
    ],
)
def test_a_signal_in_the_middle_stops_everything(
    demo: Callable[..., Demo], number: signal.Signals, code: int, moment: str
) -> None:
    running = demo("--events", "5000")
    if moment == "starting":
        running.until(lambda: len(running.started()) >= 2)
    else:
        running.until(lambda: "sent" in running.errors)
    started = running.started()
    assert started
    running.process.send_signal(number)
    assert running.ended() == code, running.errors
    assert not any(is_same(*each) for each in started.items())
    assert running.folders == []
    assert "Traceback" not in running.errors
    assert "error" not in running.errors
    assert "account" not in running.output


def test_a_killed_demo_takes_everything_with_it(demo: Callable[..., Demo]) -> None:
    running = demo("--events", "5000")
    running.until(lambda: "sent" in running.errors)
    started = running.started()
    assert len(started) >= 4
    running.end()
    deadline = time.monotonic() + PATIENCE
    while any(is_same(*each) for each in started.items()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_worker_that_dies_is_one_line_with_its_log_and_exit_code_2(
    demo: Callable[..., Demo],
) -> None:
    running = demo("--events", "5000")
    running.until(lambda: "sent" in running.errors)
    started = running.started()
    victim = next(pid for pid, each in started.items() if each.endswith("-m worker"))
    os.kill(victim, signal.SIGKILL)
    assert running.ended() == 2
    (error,) = (line for line in running.errors.splitlines() if line.startswith("error: "))
    assert re.fullmatch(r"error: worker [12] was ended by SIGKILL", error)
    assert re.search(
        r"^  The last lines of worker-[12]\.log:\n    \{", running.errors, re.MULTILINE
    )
    (folder,) = running.folders
    assert running.errors.endswith(f"  The logs are in {folder}\n")
    assert (folder / "ingress.log").stat().st_size
    assert not any(is_same(*each) for each in started.items())


def test_an_event_that_was_applied_twice_is_told_by_its_id_and_exit_code_1(
    demo: Callable[..., Demo],
) -> None:
    """Another process plays the fault: it counts one event again, behind everybody's back."""
    running = demo("--events", "1000")
    running.until(lambda: "sent" in running.errors)
    found = re.search(r"redis://\S+", running.output)
    assert found
    applied: list[bytes] = []
    with Redis.from_url(found[0]) as redis:
        pattern = keys.state("org_amber", "applied/*")

        def one_is_applied() -> bool:
            applied.extend(redis.scan_iter(pattern, count=1000))
            return bool(applied)

        running.until(one_is_applied)
        assert redis.incr(applied[0]) == 2
    started = running.started()
    assert running.ended() == 1, running.errors
    assert not any(is_same(*each) for each in started.items())
    event_id = applied[0].decode().rpartition("/")[2]
    assert f"applied 2 times: {event_id} of org_amber" in running.output
    assert "✗ The account doesn't balance" in running.output
    assert "error: the account doesn't balance" in running.errors
    assert len(running.folders) == 1
