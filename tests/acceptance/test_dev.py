"""`make dev`, `make redis` and `make cluster` as processes: what they print works as typed."""

import os
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from deploy.local.supervisor import ROOT, bare_environment
from tests.acceptance.demo_process import Demo, is_same

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
    pytest.mark.usefixtures("usual_ports"),
]

HOOKS = """
from worker import Event, Handlers, Organization

handlers = Handlers()


@handlers.on("order.*")
async def handler(event: Event, organization: Organization) -> None:
    print("printed", flush=False)
    organization.log.info("greeted", version={version})
    await organization.state.put("version", {version})
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start programs that end with the test, on data that stays between them."""
    running: list[Demo] = []

    def begin(*arguments: str, command: str = "dev") -> Demo:
        folder = tmp_path / f"run-{len(running)}"
        folder.mkdir()
        kept = () if command == "cluster" else ("--folder", str(tmp_path / "kept"))
        words = (*kept, *arguments)
        running.append(Demo(folder, *words, command=command))
        return running[-1]

    yield begin
    for each in running:
        each.end()


def write(project: Path, version: str) -> None:
    """Write the handlers, as an editor would."""
    (project / "shop").mkdir(parents=True, exist_ok=True)
    (project / "shop" / "hooks.py").write_text(HOOKS.format(version=version))


def on(project: Path) -> tuple[str, ...]:
    """The options that name the handlers."""
    return ("--project", str(project), "--handlers", "shop.hooks:handlers")


def typed(line: str) -> str:
    """What a line says that is typed in another terminal."""
    environ = bare_environment(os.environ)
    ended = subprocess.run(
        ["/bin/sh", "-c", line], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def printed(running: Demo) -> str:
    """The line that sends an event."""
    (line,) = (each for each in running.output.splitlines() if " ingress send " in each)
    return line.strip()


def table(running: Demo) -> dict[str, str]:
    """Where everything is."""
    return dict(re.findall(r"^  (\w+) +(\S+)", running.output, re.MULTILINE))


def test_an_event_reaches_the_handler_and_a_change_of_the_handler_the_next_event(
    start: Callable[..., Demo], tmp_path: Path
) -> None:
    project = tmp_path / "project"
    write(project, "1")
    running = start(*on(project))

    def lines(*words: str) -> int:
        return sum(all(w in each for w in words) for each in running.output.splitlines())

    running.until(lambda: lines("worker   | ", "worker_started"))
    assert typed(printed(running)).startswith("202 ")
    running.until(lambda: lines("worker   | ", "greeted", "version=1"))
    running.until(lambda: lines("worker   | printed"))
    # A form as the page's button sends it, of an event that only the simulator's Reference lists.
    form = urllib.parse.urlencode({"type": "order.fulfillment.shipped", "organization": "org_123"})
    where = f"{table(running)['Sellfern']}/send"
    with urllib.request.urlopen(where, form.encode()) as page:  # noqa: S310  # our own program's
        assert b"order.fulfillment.shipped" in page.read()
    running.until(lambda: lines("worker   | ", "greeted", "version=1") == 2)

    write(project, "2")
    running.until(lambda: lines("worker_started") == 2)
    assert lines("worker   | shop/hooks.py changed: a new worker takes over") == 1
    typed(printed(running))
    running.until(lambda: lines("worker   | ", "greeted", "version=2"))

    write(project, "(")
    running.until(lambda: lines("the next change of a file starts it anew"))
    assert lines("worker   | error: WORKER_HANDLERS: ", "SyntaxError", "hooks.py, line 11") == 1
    typed(printed(running))  # it waits
    write(project, "3")
    running.until(lambda: lines("worker   | ", "greeted", "version=3"))

    started = running.started()
    assert len(started) == 5
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 0, running.errors
    assert not any(is_same(*each) for each in started.items())
    stopped = re.findall(
        r"^(\w+) +\| .*(?:simulator|ingress|worker)_stopped", running.output, re.MULTILINE
    )
    assert stopped[-3:] == ["sellfern", "ingress", "worker"]
    assert running.output.endswith(
        "Everything is stopped; what Redis has kept will be there again.\n"
    )
    assert "Traceback" not in running.output + running.errors
    assert running.folders == []


def test_what_redis_keeps_is_there_again_until_it_is_forgotten(
    start: Callable[..., Demo], tmp_path: Path
) -> None:
    def run(*arguments: str) -> int:
        """Start Redis; what it knows, once it knows one thing more."""
        running = start(*arguments, command="redis")
        running.until(lambda: "\n" in running.output)
        (url,) = running.output.split()
        with Redis.from_url(url) as redis:
            known = int(redis.dbsize())
            redis.incr(f"key-{known}")
        refused = start(command="redis")
        assert refused.ended() == 2
        assert "--folder: expected a folder that nobody uses, got" in refused.errors
        started = running.started()
        running.process.send_signal(signal.SIGINT)
        assert running.ended() == 0, running.errors
        assert started
        assert not any(is_same(*each) for each in started.items())
        return known

    assert [run(), run(), run("--fresh"), run()] == [0, 1, 0, 1]


def test_a_cluster_is_there_until_ctrl_c(start: Callable[..., Demo]) -> None:
    running = start("--primaries", "2", "--replicas", "1", command="cluster")
    running.until(lambda: "Ctrl-C stops" in running.errors)
    (url,) = running.output.split()
    hosts = url.removeprefix("redis+cluster://").split(",")
    assert len(hosts) == 2
    assert f"  REDIS_URL={url} WAIT_REPLICAS=1 " in running.errors
    with Redis.from_url(f"redis://{hosts[0]}") as redis:
        known = redis.execute_command("CLUSTER", "SLOTS")
    assert [len(where) for _, _, *where in known] == [2, 2]
    started = running.started()
    assert len(started) == 4
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 0, running.errors
    assert not any(is_same(*each) for each in started.items())
    assert running.folders == []


def test_ctrl_c_while_it_starts_ends_all_with_exit_code_130(start: Callable[..., Demo]) -> None:
    running = start()
    running.until(lambda: len(running.started()) >= 2)
    started = running.started()
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 130, running.errors
    assert not any(is_same(*each) for each in started.items())
    assert running.errors == "interrupted; everything is stopped\n"


def test_a_program_that_dies_is_one_line_and_ends_all_with_exit_code_2(
    start: Callable[..., Demo],
) -> None:
    running = start()
    running.until(lambda: "worker_started" in running.output)
    started = running.started()
    victim = next(pid for pid, each in started.items() if each.endswith("-m ingress"))
    os.kill(victim, signal.SIGKILL)
    assert running.ended() == 2
    assert running.errors.startswith("error: ingress was ended by SIGKILL\n")
    assert not any(is_same(*each) for each in started.items())


def test_a_worker_that_dies_is_there_again(start: Callable[..., Demo]) -> None:
    running = start()
    running.until(lambda: "worker_started" in running.output)
    victim = next(pid for pid, each in running.started().items() if each.endswith("-m worker"))
    os.kill(victim, signal.SIGKILL)
    running.until(lambda: running.output.count("worker_started") == 2)
    assert "worker   | worker was ended by SIGKILL; it starts anew" in running.output


def test_two_at_once_are_at_different_places(start: Callable[..., Demo], tmp_path: Path) -> None:
    first = start()
    first.until(lambda: "worker_started" in first.output)
    second = start("--folder", str(tmp_path / "other"))
    second.until(lambda: "worker_started" in second.output)
    places = [url for each in (first, second) for url in table(each).values() if "://" in url]
    assert len(set(places)) == len(places) == 10
    assert typed(printed(second)).startswith("202 ")
    second.until(lambda: "event_handled" in second.output)
    assert "event_handled" not in first.output


def test_when_it_is_killed_everything_goes_and_it_can_be_started_again(
    start: Callable[..., Demo],
) -> None:
    running = start()
    running.until(lambda: "worker_started" in running.output)
    started = running.started()
    running.end()
    again = start()
    again.until(lambda: "worker_started" in again.output)
    assert len(started) == 5
    assert not any(is_same(*each) for each in started.items())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--handlers", "nowhere.hooks:handlers"), "--handlers: expected a module to import from"),
        (("--env-file", "nowhere.env"), "--env-file: expected a readable file, got nowhere.env"),
        (("--endpoints", "nowhere.toml"), "ENDPOINTS_FILE: expected "),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(
    start: Callable[..., Demo], arguments: tuple[str, ...], error: str
) -> None:
    running = start(*arguments)
    assert running.ended() == 2
    first, *rest = running.errors.splitlines()
    assert first.startswith(f"error: {error}")
    assert all(each.startswith("  ") for each in rest)
    assert running.started() == {}
