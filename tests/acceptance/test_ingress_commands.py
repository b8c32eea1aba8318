"""Facts about the ingress on the command line: check, send, installed scripts."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from ingress.cli import main
from shared.queue import job as jobs
from shared.queue import keys
from tests.acceptance.ingress_process import IngressProcess, ingress
from tests.acceptance.process import environment, run, run_command
from tests.conftest import StartRedis
from tests.ports import in_cluster_mode

pytestmark = pytest.mark.asyncio(loop_scope="module")

GONE = """
[[endpoint]]
id = "acme"
organization_id = "org_a"
secrets = ["whsec_a"]

[[endpoint]]
id = "gone"
organization_id = "org_b"
secrets = [{ value = "whsec_b", until = 2020-01-01T00:00:00Z }]
"""


@dataclass(frozen=True)
class Place:
    """An ingress, and a Redis that it couldn't work with."""

    redis: Redis
    program: IngressProcess
    environ: dict[str, str]
    forgetful: EmbeddedRedis

    @property
    def url(self) -> str:
        """Where the ingress takes deliveries."""
        return f"http://127.0.0.1:{self.program.port}/webhooks/acme"

    async def send(self, *arguments: str, **changes: str) -> Result:
        """Run ``send`` as it would run in a process, but in this one."""
        environ = {"INGRESS_PORT": str(self.program.port), **changes}
        words = ["send", *arguments]
        return await asyncio.to_thread(
            CliRunner().invoke, main, words, env={**self.environ, **environ}
        )

    async def last_event(self) -> dict[str, Any]:
        """The body of the event that was enqueued last."""
        (job,) = await self.redis.zrange(keys.QUEUE, 0, 0, desc=True)
        payload = await self.redis.get(keys.payload(job.decode()))
        found: dict[str, Any] = json.loads(jobs.decode(payload).body)
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("commands")
    (folder / "endpoints.toml").write_text(GONE)
    with (
        EmbeddedRedis(appendfsync="always") as server,
        EmbeddedRedis(appendfsync=None) as forgetful,
    ):
        environ = environment(server.url, folder)
        async with Redis.from_url(server.url) as redis, ingress(environ) as program:
            yield Place(redis, program, environ, forgetful)


async def test_check_tells_what_it_has_found_to_people_and_to_machines(place: Place) -> None:
    shown, as_json, wrong = await asyncio.gather(
        run("ingress", "check", environ=place.environ),
        run("ingress", "check", "--json", environ={**place.environ, "DURABILITY": "memory"}),
        run(
            "ingress",
            "check",
            environ={**place.environ, "REDIS_URL": place.forgetful.url, "ENDPOINTS_FILE": "no\x1b"},
        ),
    )
    assert (shown.code, shown.stderr) == (0, "")
    assert [line.split()[:2] for line in shown.stdout.splitlines()] == [
        ["ok", "settings"],
        ["ok", "endpoints"],
        ["warning", "endpoints"],
        ["warning", "endpoints"],
        ["ok", "redis"],
        ["warning", "redis"],
    ]
    assert "endpoint gone: the until of every secret has passed" in shown.stdout
    assert [(each["level"], each["code"]) for each in as_json.json] == [
        ("ok", "settings_valid"),
        ("ok", "endpoints_valid"),
        ("warning", "no_active_secret"),
        ("warning", "secret_tiny"),
        ("ok", "durable"),
        ("warning", "organization_bytes_unbounded"),
        ("warning", "memory_only"),
    ]
    assert (wrong.code, wrong.stderr) == (2, "")
    assert [line.split()[:2] for line in wrong.stdout.splitlines()] == [
        ["ok", "settings"],
        ["error", "endpoints"],
        ["error", "redis"],
    ]
    assert "got no\\x1b (No such file or directory)" in wrong.stdout


async def test_check_warns_of_whatever_gives_an_organization_all_of_redis(
    place: Place, tmp_path: Path
) -> None:
    (tmp_path / "endpoints.toml").write_text(GONE.replace('"org_a"', '"org_a"\nmax_bytes = 0'))
    changes = {"ENDPOINTS_FILE": str(tmp_path / "endpoints.toml"), "MAX_ORGANIZATION_BYTES": "0"}
    check = await run("ingress", "check", environ=place.environ | changes)
    told = [line for line in check.stdout.splitlines() if "can fill Redis" in line]
    assert [line.split()[:2] for line in told] == [
        ["warning", "settings"],
        ["warning", "endpoints"],
    ]
    assert "MAX_ORGANIZATION_BYTES=0:" in told[0]
    assert "max_bytes = 0 of endpoint acme:" in told[1]


async def test_check_says_that_a_redis_in_cluster_mode_is_none_to_use(
    place: Place, fresh_redis_server: StartRedis
) -> None:
    cluster = fresh_redis_server(arguments=in_cluster_mode())
    environ = {**place.environ, "REDIS_URL": cluster.url}
    checked = await run("ingress", "check", "--json", environ=environ)
    (finding,) = [json.loads(line) for line in checked.stdout.splitlines() if '"redis"' in line]
    assert (checked.code, finding["level"], finding["code"]) == (2, "error", "redis_cluster")
    where = cluster.url.partition("//")[2]  # it may be told who we are there, without the password
    assert f"{where}: cluster-enabled: expected no, got yes" in finding["message"]


async def test_a_secret_in_quotes_is_refused_and_an_odd_one_warned_of(
    place: Place, tmp_path: Path
) -> None:
    line = '[[endpoint]]\nid = "acme"\norganization_id = "org_a"\nsecrets = [{ file = "acme" }]\n'
    (tmp_path / "endpoints.toml").write_text(line)
    (tmp_path / "acme").write_text('"whsec_a"\n')
    changes = {"ENDPOINTS_FILE": str(tmp_path / "endpoints.toml")}
    check = await run("ingress", "check", environ=place.environ | changes)
    assert check.code == 2
    assert "line 4: expected secrets to be a secret without quotes around it" in check.stdout
    assert "whsec_" not in check.stdout
    (tmp_path / "acme").write_text("whsec_a!\n")
    sent = await place.send("acme", "order.updated", "--url", place.url, **changes)
    assert sent.stderr.startswith("warning: the secret of endpoint acme isn't whsec_ and letters")
    assert sent.exit_code == 1  # the ingress has another one


async def test_the_installed_programs_run_the_same_commands(place: Place) -> None:
    scripts = Path(sys.executable).parent
    environ = {**place.environ, "INGRESS_PORT": str(place.program.port)}
    sent, status = await asyncio.gather(
        run_command(
            str(scripts / "sellfern-ingress"), "send", "acme", "order.created", environ=environ
        ),
        run_command(str(scripts / "sellfern-worker"), "status", "--json", environ=environ),
    )
    assert (sent.code, sent.stderr) == (0, "")
    assert sent.stdout.startswith('202 {"success":true,')
    assert {"waiting", "oldest_seconds", "organizations"} <= status.json[0].keys()


async def test_send_makes_the_event_that_its_options_describe(place: Place) -> None:
    sent = await place.send("acme", "order.updated")
    assert (sent.exit_code, sent.stderr) == (0, "")
    plain = await place.last_event()
    assert plain["id"].startswith("evt_")
    assert plain["organization_id"] == "org_a"
    assert plain["data"] == {"order_id": "ord_1"}
    options = {
        "id": "evt_mine",
        "created_at": "2026-01-31T12:00:00.000+02:00",
        "organization": "org_other",
        "data": '{"note": "\u00fc"}',
        "url": place.url,
    }
    words = [
        word for name, text in options.items() for word in (f"--{name.replace('_', '-')}", text)
    ]
    sent = await place.send("acme", "ticket.created", *words, INGRESS_PORT="0")
    assert sent.exit_code == 0
    assert await place.last_event() == {
        "id": "evt_mine",
        "type": "ticket.created",
        "created_at": "2026-01-31T12:00:00.000+02:00",
        "organization_id": "org_other",
        "data": {"note": "\u00fc"},
    }
    again = await place.send("acme", "ticket.created", *words)
    assert '"status":"known"' in again.stdout


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["acm", "a.b"], {}, "ENDPOINT: expected one of the endpoints file, got 'acm'; did you"),
        (["\x1b", "a.b"], {}, "got '\\x1b'; known: acme, gone"),
        (["gone", "a.b"], {}, "ENDPOINT: expected one with an active secret, got 'gone'"),
        (["acme", "a.b", "--data", "[1]"], {}, "--data: expected a JSON object, got '[1]'"),
        (["acme", "a.b", "--data", "{"], {}, "--data: expected a JSON object, got '{'"),
        (["acme", "a.b", "--created-at", "now"], {}, "--created-at: expected a time with an"),
        (["acme", "a.b", "--created-at", "2026-01-31T12:00:00"], {}, "a time with an offset"),
        (["acme", "a.b"], {"INGRESS_PORT": "0"}, "--url: expected it, since INGRESS_PORT is 0"),
        (["acme", "a.b"], {"INGRESS_PORT": "1"}, "expected an answer from http://127.0.0.1:1/"),
        (["acme", "a.b", "--url", "ftp://\x1b"], {}, "expected an http:// or https:// URL, got"),
        (["acme", "a.b", "--url", "nowhere"], {}, "expected an http:// or https:// URL, got"),
        (["acme", "a.b"], {"ENDPOINTS_FILE": "none.toml"}, "ENDPOINTS_FILE: expected a readable"),
        (["acme", "a.b"], {"INGRESS_PORT": "x"}, "INGRESS_PORT: expected a port"),
    ],
)
async def test_send_says_in_one_line_what_it_can_not_do(
    place: Place, arguments: list[str], settings: dict[str, str], message: str
) -> None:
    sent = await place.send(*arguments, **settings)
    assert (sent.exit_code, sent.stdout) == (2, "")
    assert sent.stderr.startswith("error: ")
    assert message in sent.stderr
    assert sent.stderr.count("\n") == 1
    assert "\x1b" not in sent.stderr


async def test_send_shows_a_refusal_as_text_and_ends_with_1(place: Place, tmp_path: Path) -> None:
    refused = await place.send("acme", "a.b", "--url", place.url.replace("acme", "nowhere"))
    assert refused.exit_code == 1
    assert refused.stdout.startswith('404 {"success":false,"error":{"code":"unknown_endpoint"')
    async with answering(b"\x1b[2J\xe2\x80\xaenothing\n", status=b"500 Oops") as url:
        refused = await place.send("acme", "a.b", "--url", url)
    assert (refused.exit_code, refused.stdout) == (1, "500 \\x1b[2J\\u202enothing\n")


@contextlib.asynccontextmanager
async def answering(content: bytes, *, status: bytes) -> AsyncIterator[str]:
    """A server that answers anything so; its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(content), content)
        )
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
