"""Facts about a start that can't succeed, of either program."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import Group
from click.testing import CliRunner

import ingress.cli
import worker.cli
from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.process import Ended, environment, run
from tests.ports import in_cluster_mode

UNKNOWN_KEY = '[[endpoint]]\nid = "acme"\norganization_id = "org_a"\nsecret = "whsec_a"\n'

PROGRAMS: dict[str, Group] = {"ingress": ingress.cli.main, "worker": worker.cli.main}

READ = {
    (
        "ingress",
        "MAX_BYTES_IN_FLIGHT",
        "2048",
    ): "expected at least 4 times MAX_BODY_BYTES (",
    ("ingress", "ENDPOINTS_FILE", "{folder}/none.toml"): "none.toml (No such file or directory)",
    ("ingress", "ENDPOINTS_FILE", "{folder}/unknown.toml"): "unknown.toml) line 4: expected one of",
    ("ingress", "ENDPOINTS_FILE", "{folder}/latin.toml"): "latin.toml (not UTF-8)",
    ("worker", "WORKER_HANDLERS", "nowhere:handlers"): "expected a module to import",
    ("worker", "WORKER_HANDLERS", "json:dumps"): "expected a worker.Handlers object",
    ("worker", "ENDPOINTS_FILE", "{folder}/unknown.toml"): "unknown.toml) line 4: expected one of",
    ("worker", "REDIS_URL", "http://x"): "expected redis://",
}
"""What is said of one wrong setting that is found before anything is begun.

These starts need no process of their own, which would take most of their time to begin.
"""

BEGUN = {
    ("ingress", "INGRESS_PORT", "http"): "expected a port from 0 to 65535, got 'http'",
    ("ingress", "REDIS_URL", "{locked}"): "redis://:***@127.0.0.1",
    ("ingress", "REDIS_URL", "{forgetful}"): "DURABILITY=fsync: expected appendonly yes, got no",
    ("ingress", "REDIS_URL", "{cluster}"): "cluster-enabled: expected no, got yes",
    ("ingress", "INGRESS_PORT", "{taken}"): "expected a port free to listen on, got",
    ("ingress", "INGRESS_ADMIN_PORT", "{taken}"): "expected a port free to listen on, got",
    ("worker", "WORKER_CONCURRENCY", "many"): "expected a whole number",
    ("worker", "REDIS_URL", "{locked}"): "refuses the user name or password",
    ("worker", "REDIS_URL", "{cluster}"): "cluster-enabled: expected no, got yes",
    ("worker", "WORKER_ADMIN_PORT", "{taken}"): "expected a port free to listen on, got",
}
"""The same where a process may have begun something by then."""

SEVERAL: dict[str, dict[str, str]] = {
    "ingress": {
        "REDIS_URL": '"redis://:hidden@127.0.0.1:1/0"',
        "INGRESS_PORT": "http",
        "MAX_BYTES_IN_FLIGHT": "2048",
        "ENDPOINTS_FILE": "none.toml",
    },
    "worker": {
        "REDIS_URL": "redis://:hidden@127.0.0.1:1/0 ",
        "WORKER_CONCURRENCY": "many",
        "BACKOFF_BASE": "2h",
        "ENDPOINTS_FILE": "none.toml",
        "WORKER_HANDLERS": "nowhere:handlers",
    },
    "worker console": {"CONSOLE_PORT": "-1", "CONSOLE_TOKEN": "hidden", "MAX_ATTEMPTS": "0"},
}
"""Several wrong settings of one start."""

STARTS = READ | BEGUN

Start = tuple[str, str, str]


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Start, Ended]]:
    """How each start ended; the processes two at a time, since they would take long one by one."""
    folder = tmp_path_factory.mktemp("starts")
    (folder / "unknown.toml").write_text(UNKNOWN_KEY)
    (folder / "latin.toml").write_bytes(b"# caf\xe9\n")
    with (
        EmbeddedRedis(appendfsync="always") as server,
        EmbeddedRedis(appendfsync=None) as forgetful,
        EmbeddedRedis(arguments=in_cluster_mode()) as cluster,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        places = {
            "folder": folder,
            "forgetful": forgetful.url,
            "cluster": cluster.url,
            "locked": server.url.replace("//", "//:hidden@"),
            "taken": taken.getsockname()[1],
        }
        begun = asyncio.run(_start_all(server.url, folder, places))
        yield begun | _read_all(server.url, folder, places)


async def _start_all(url: str, folder: Path, places: dict[str, object]) -> dict[Start, Ended]:
    few = asyncio.Semaphore(2)

    async def end(program: str, setting: str, value: str) -> Ended:
        async with few:
            changes = {setting: value.format(**places)}
            return await run(program, environ=environment(url, folder, **changes))

    ended = await asyncio.gather(*(end(*start) for start in BEGUN))
    return dict(zip(BEGUN, ended, strict=True))


def _read_all(url: str, folder: Path, places: dict[str, object]) -> dict[Start, Ended]:
    ends = {}
    for program, setting, value in READ:
        environ = environment(url, folder, **{setting: value.format(**places)})
        result = CliRunner().invoke(PROGRAMS[program], env=environ)
        ends[program, setting, value] = Ended(result.exit_code, result.stdout, result.stderr)
    return ends


@pytest.mark.parametrize("start", STARTS, ids=" ".join)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    ends: dict[Start, Ended], start: Start
) -> None:
    _, setting, _ = start
    ended = ends[start]
    assert (ended.code, ended.stdout) == (2, ""), ended.stderr
    (error,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert error.startswith(f"error: {setting}")
    assert STARTS[start] in error
    for hidden in ("hidden", "whsec_"):
        assert hidden not in ended.stderr


@pytest.mark.parametrize("words", SEVERAL)
def test_all_wrong_settings_are_told_at_once_each_on_a_line(words: str, tmp_path: Path) -> None:
    environ = environment("redis://127.0.0.1:1/0", tmp_path, **SEVERAL[words])
    ended = asyncio.run(run(*words.split(), environ=environ))
    assert (ended.code, ended.stdout) == (2, "")
    lines = ended.stderr.splitlines()
    assert {line.split(":")[1].strip() for line in lines} == SEVERAL[words].keys()
    assert len(lines) == len(SEVERAL[words])
    assert all(line.startswith("error: ") for line in lines)
    assert "hidden" not in ended.stderr
    if "REDIS_URL" in SEVERAL[words]:
        (line,) = [line for line in lines if "REDIS_URL" in line]
        shown = repr(SEVERAL[words]["REDIS_URL"].replace("hidden", "***"))
        assert line == f"error: REDIS_URL: expected no quotes or blanks around it, got {shown}"
