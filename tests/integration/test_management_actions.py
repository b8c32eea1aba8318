"""Facts about what is told of commands that change an endpoint, or what is known of Sellfern."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from deploy.sellfern import Fault
from ingress.management.acting import telling
from tests.integration.jobs import reach
from tests.management_support import Desk, desk
from worker.operate.actions import last

URL = "https://hooks.example.com"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as opened:
        opened.learn()
        yield opened


def logged(stderr: str, event: str = "operator_action") -> list[dict[str, Any]]:
    """The log lines of an event among what a command says."""
    lines = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def kept(server: EmbeddedRedis) -> list[tuple[str, str, str, str]]:
    """What the last actions say, the oldest first."""

    async def read() -> list[tuple[str, str, str, str]]:
        async with Redis.from_url(server.url) as redis:
            found = await last(reach(redis))
        return [(each.action, each.organization, each.about, each.outcome) for each in found][::-1]

    return asyncio.run(read())


def test_what_changes_an_endpoint_is_logged_and_kept_and_what_nobody_agrees_to_is_not(
    here: Desk, redis_server: EmbeddedRedis
) -> None:
    asyncio.run(emptied(redis_server))
    told = {"REDIS_URL": redis_server.url, "LOGNAME": "ada"}
    here.register(URL, name="bolt")
    here.ok("register", "acme", "--yes", **told)
    done = here.ok("disable", "acme", "--yes", **told)
    (line,) = logged(done.stderr)
    assert (line["by"], line["who"], line["address"]) == ("command", "ada", socket.gethostname())
    assert (line["about"], line["organization"], line["outcome"]) == ("acme", "org_a", "done")
    assert "secret" not in done.stderr
    assert here.endpoints("enable", "acme", text="n\n", **told).exit_code == 1
    assert here.endpoints("enable", "axme", "--yes", **told).exit_code == 2
    here.ok("list", **told)
    refused = here.endpoints("enable", "acme", "--yes", **{**told, "SELLFERN_API_KEY": "sk_wrong_"})
    assert refused.exit_code == 1
    here.ok("remove", "acme", "--yes", **told)
    known = here.file.with_name("openapi.json")
    imported = here.run("reference", "import", str(known), "--yes", **told)
    assert imported.exit_code == 0
    *first, failed, removed = kept(redis_server)
    assert first == [
        ("register endpoint", "org_a", "acme", "done"),
        ("disable endpoint", "org_a", "acme", "done"),
    ]
    assert failed[:3] == ("enable endpoint", "org_a", "acme")
    assert failed[3].startswith("failed: ")
    assert removed == ("remove endpoint", "org_a", "acme", "done")


def test_what_has_perhaps_taken_effect_has_not_failed(here: Desk) -> None:
    here.vendor.faults.add(Fault("cut", when="after", operation="POST /webhooks", times=0))
    words = ("register", "acme", "--organization", "org_a", "--yes")
    ended = here.endpoints(*words, SELLFERN_DEADLINE="200ms")
    assert ended.exit_code == 4
    (line,) = logged(ended.stderr)
    assert line["outcome"].startswith("unfinished: POST /webhooks")


def test_a_ctrl_c_ends_the_question_and_who_has_not_answered_has_done_nothing(here: Desk) -> None:
    here.register(URL)
    with subprocess.Popen(
        [sys.executable, "-m", "ingress", "endpoints", "disable", "acme"],
        env=without_redis() | here.environ,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as asking:
        assert asking.stderr is not None
        said = b""
        while not said.endswith(b"go on? [y/N]: "):
            said += (got := asking.stderr.read(1))
            assert got, said
        # Python hears of a signal that comes just before it waits only once it waits no more.
        while Path(f"/proc/{asking.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            pass
        asking.send_signal(signal.SIGINT)
        assert asking.wait(timeout=60) == 1
        said += asking.stderr.read()
    assert said.endswith(b"Aborted!\n")
    assert logged(said.decode()) == []


@pytest.mark.parametrize(
    ("asked", "told"), [(None, []), (["remove it"], ["interrupted"]), ([], ["interrupted"])]
)
async def test_what_is_interrupted_is_told_of_once_somebody_has_agreed(
    asked: list[str] | None,
    told: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where that was another time, and the command goes on with it."""
    for name in ("REDIS_URL", "REDIS_URL_FILE"):
        monkeypatch.delenv(name, raising=False)
    questions = list[Any]()

    async def interrupted() -> None:
        async with telling("remove endpoint", questions.append) as ask:
            if asked is not None:
                ask(asked)
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await interrupted()
    assert questions == ([asked] if asked else [])
    assert [line["outcome"] for line in logged(capsys.readouterr().err)] == told


def without_redis() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith("REDIS_URL")}


async def emptied(server: EmbeddedRedis) -> None:
    async with Redis.from_url(server.url) as redis:
        await redis.flushall()


def test_a_redis_that_is_away_takes_nothing_back_and_is_not_waited_for(here: Desk) -> None:
    here.register(URL)
    assert logged(here.ok("disable", "acme", "--yes").stderr, "operator_action_not_kept") == []
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        refused = here.ok("enable", "acme", "--yes", REDIS_URL=f"redis://127.0.0.1:{port}")
        assert len(logged(refused.stderr)) == 1
        assert len(logged(refused.stderr, "operator_action_not_kept")) == 1
        silent.listen()
        began = monotonic()
        mute = here.ok("disable", "acme", "--yes", REDIS_URL=f"redis://127.0.0.1:{port}")
        took = monotonic() - began
        assert len(logged(mute.stderr)) == 1
        (line,) = logged(mute.stderr, "operator_action_not_kept")
        assert line["action"] == "disable endpoint"
        before = monotonic()
        here.ok("enable", "acme", "--yes")
        assert took < 1.5 + 3 * (monotonic() - before)


@pytest.mark.parametrize(
    ("url", "names", "why"),
    [
        ("redis://far.example", "lambda *_, **__: sleep(600)", "Redis did not answer in time"),
        # Of Sentinels one that is known will do: a pod that is down has no name.
        (
            *("redis+sentinel://gone.invalid,127.0.0.1:1/main", "socket.getaddrinfo"),
            "no Sentinel in reach names a primary",
        ),
    ],
)
def test_nor_is_a_name_server_that_is_away(tmp_path: Path, url: str, names: str, why: str) -> None:
    """The process doesn't end before a look-up that asyncio has begun."""
    environ = {**os.environ, "REDIS_URL": url, "ENDPOINTS_FILE": str(tmp_path), "NAMES": names}
    ended = subprocess.run(
        [sys.executable, "-c", _TELL], env=environ, capture_output=True, timeout=6, check=True
    )
    assert len(logged(ended.stderr.decode())) == 1
    (line,) = logged(ended.stderr.decode(), "operator_action_not_kept")
    assert line["why"] == why


_TELL = """
import asyncio, os, socket
from time import sleep
from ingress.management.acting import tell_action
socket.getaddrinfo = eval(os.environ["NAMES"])
asyncio.run(tell_action("import reference"))
"""
