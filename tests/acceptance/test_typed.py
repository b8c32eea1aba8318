"""Facts about what people type, seen from outside: words, variables, files."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from deploy.local.embedded_redis import EmbeddedRedis
from deploy.local.supervisor import bare_environment
from shared.program.setting_names import NAMES
from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import ROOT, environment, get, run, run_command
from tests.acceptance.worker_process import running

MISSED = {"WORKER_CONCURENCY": "hunter2", "INGRESS_PROT": "1"}
"""Two variables that nearly are settings."""


async def test_a_variable_that_nearly_is_a_setting_is_warned_of_once(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    environ = environment(redis_server.url, tmp_path, **MISSED)
    found = (await run("ingress", "check", "--json", environ=environ)).json
    named = [each["message"].split()[0] for each in found if each["code"] == "setting_unknown"]
    assert named == sorted(MISSED)
    async with running(environ) as (worker,), ingress(environ) as taking:
        for program in (worker, taking):
            lines = program.events("setting_unknown", level="warning")
            assert [line["message"].split()[0] for line in lines] == sorted(MISSED)
            assert lines[1]["message"].endswith("did you mean WORKER_CONCURRENCY?")
            assert "hunter2" not in program.text


@pytest.mark.usefixtures("usual_ports")
async def test_the_second_worker_on_a_host_takes_the_next_free_admin_port(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    environ = environment(redis_server.url, tmp_path, WORKER_ADMIN_PORT="")
    async with running(environ, 2) as workers:
        ports = [worker.events("admin_listening")[0]["port"] for worker in workers]
        assert len(set(ports)) == 2
        assert all(9102 <= port <= 9199 for port in ports)
        moved = [worker.events("admin_port_taken") for worker in workers]
        assert [line["instead"] for lines in moved for line in lines] == [
            p for p in ports if p != 9102
        ]
        for port in ports:
            assert (await get(port, "/livez")).status == 200


@pytest.mark.parametrize("hosts", ["127.0.0.1,::1", "localhost"])
async def test_the_ingress_takes_deliveries_on_every_host_of_its_list(
    redis_server: EmbeddedRedis, tmp_path: Path, hosts: str
) -> None:
    environ = environment(
        redis_server.url, tmp_path, INGRESS_HOST=hosts, INGRESS_ADMIN_HOST="127.0.0.1,127.0.0.2"
    )
    async with ingress(environ) as program:
        (line,) = program.events("ingress_listening")
        for host in line["host"].split(","):
            url = f"http://{f'[{host}]' if ':' in host else host}:{program.port}/webhooks/acme"
            sent = await run(
                "ingress", "send", "acme", "order.updated", "--url", url, environ=environ
            )
            assert (sent.code, sent.stdout[:3]) == (0, "202")
        (admin,) = program.events("admin_listening")
        assert admin["host"] == "127.0.0.1,127.0.0.2"
        assert (await program.admin("/livez")).status == 200


DOUBTS = [
    "handler_for_unlisted_event",
    "pattern_without_event",
    "organization_without_endpoint",
    "event_without_handler",
]


async def test_a_worker_says_what_would_not_go_as_it_is_meant_in_check_and_at_its_start(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    environ = environment(
        redis_server.url, tmp_path, WORKER_HANDLERS="tests.acceptance.doubtful:handlers"
    )
    shown, as_json = await asyncio.gather(
        run("worker", "check", environ=environ), run("worker", "check", "--json", environ=environ)
    )
    assert (shown.code, shown.stderr) == (0, "")
    levels = [line.split()[0] for line in shown.stdout.splitlines()]
    assert levels == ["ok"] * 4 + ["warning"] * 4 + ["ok"]
    warnings = [each for each in as_json.json if each["level"] == "warning"]
    assert [each["code"] for each in warnings] == DOUBTS
    assert "on('order.paid'): the API Reference doesn't list this event" in shown.stdout
    async with running(environ) as (worker,):
        for each in warnings:
            (line,) = worker.events(each["code"])
            assert (line["level"], line["message"]) == ("warning", each["message"])


async def test_what_runs_for_what_is_listed(tmp_path: Path) -> None:
    environ = bare_environment(os.environ, WORKER_HANDLERS="tests.acceptance.doubtful:handlers")
    listed, chosen, missing = await asyncio.gather(
        run("worker", "handlers", environ=environ),
        run("worker", "handlers", "order.updated", "--json", environ=environ),
        run("worker", "handlers", "order.status_changed", environ=environ),
    )
    assert (listed.code, listed.stderr) == (0, "")
    rows = [line.split() for line in listed.stdout.splitlines()[4:] if line.strip()]
    handle = "tests.acceptance.doubtful.handle"
    assert rows == [
        ["order.created", "(ignored)"],
        ["order.updated", handle, "Any"],
        ["order.updated", "org_c", handle, "Any"],
        ["orders.*", handle, "Any"],
        ["order.paid", handle, "Any"],
    ]
    assert [each["organization"] for each in chosen.json] == ["org_c", None]
    assert (missing.code, missing.stdout) == (1, "handlers for order.status_changed: none\n")
    one = await run(
        "worker", "handlers", "order.updated", "--organization", "org_a", "--json", environ=environ
    )
    assert [each["organization"] for each in one.json] == [None]


WRONG = """
from worker import Event, Handlers, Organization

handlers = Handlers()


@handlers.on("order.*")
def not_async(event: Event, organization: Organization) -> None: ...


@handlers.on("order.**")
async def no_pattern(event: Event, organization: Organization) -> None: ...


@handlers.on("order.created", quiet="soon")
async def no_latest(event: Event, organization: Organization) -> None: ...


@handlers.on("order.updated")
async def undecodable(event: Event[list[int]], organization: Organization) -> None: ...
"""
LENDS_NOTHING = """
from worker import Event, Handlers, Organization

handlers = Handlers()


@handlers.on("ticket.*")
async def nobody_gives(event: Event, organization: Organization, pool: object) -> None: ...
"""


async def test_all_that_is_wrong_with_handlers_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    environ = {"WORKER_HANDLERS": "wrong:handlers", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    ended = await run("worker", "handlers", environ=environ)
    assert (ended.code, ended.stdout) == (2, "")
    lines = ended.stderr.splitlines()
    named = ["not_async: ", "'order.**'", "no_latest: ", "undecodable: "]
    assert len(lines) == len(named)
    for line, name in zip(lines, named, strict=True):
        assert line.startswith("error: WORKER_HANDLERS: expected handlers in wrong, got ")
        assert name in line
    (tmp_path / "wrong.py").write_text(LENDS_NOTHING)
    ended = await run("worker", "handlers", environ=environ)
    assert "nobody_gives: expected a lifespan that gives its third argument" in ended.stderr


async def test_a_check_tells_of_all_that_a_start_would_refuse(tmp_path: Path) -> None:
    wrong = {
        "ENDPOINTS_FILE": "none.toml",
        "REFERENCE_FILE": "none.toml",
        "WORKER_HANDLERS": "nowhere:handlers",
        "WORKER_CONCURENCY": "1",
    }
    environ = environment("redis://:hidden@127.0.0.1:1", tmp_path, **wrong)
    checked = await run("worker", "check", environ=environ)
    assert (checked.code, checked.stderr) == (2, "")
    assert [line.split()[:2] for line in checked.stdout.splitlines()] == [
        ["warning", "settings"],
        ["ok", "settings"],
        ["error", "endpoints"],
        ["error", "reference"],
        ["error", "handlers"],
        ["error", "redis"],
    ]
    assert "hidden" not in checked.stdout
    environ |= {"LEASE_SECONDS": "x", "MAX_ATTEMPTS": "0"}
    checked = await run("worker", "check", "--json", environ=environ)
    assert checked.code == 2
    assert [json.loads(line)["code"] for line in checked.stdout.splitlines()] == [
        "setting_unknown",
        "settings_invalid",
        "settings_invalid",
    ]


async def test_send_warns_of_an_event_that_the_reference_does_not_list(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    environ = environment(redis_server.url, tmp_path)
    async with ingress(environ) as program:
        environ["INGRESS_PORT"] = str(program.port)
        sent = await run("ingress", "send", "acme", "order.update", environ=environ)
    assert (sent.code, sent.stdout[:3]) == (0, "202")
    assert sent.stderr == (
        "warning: TYPE: the API Reference doesn't list this event, so workers end it as "
        "unavailable_event; did you mean 'order.updated'?\n"
    )


ENV_FILE = """\
# for this test
export REDIS_URL="redis://:hidden@127.0.0.1:1/0"
LEASE_SECONDS=20
CONSOLE_TOKEN='hidden-hidden-hidden'
SELLFERN_API_KEY=hidden-hidden
INGRESS_PORT=1
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (
            "worker",
            {
                "REDIS_URL": ("redis://:***@127.0.0.1:1/0", "env file"),
                "LEASE_SECONDS": ("20s", "env file"),
                "MAX_ATTEMPTS": ("7", "environment"),
                "HANDLER_TIMEOUT": ("1m", "default"),
                "CONSOLE_TOKEN": ("***", "env file"),
                "WORKER_HANDLERS": ("worker.handlers:handlers", "default"),
            },
        ),
        (
            "ingress",
            {
                "REDIS_URL": ("redis://:***@127.0.0.1:1/0", "env file"),
                "INGRESS_PORT": ("8081", "environment"),
                "INGRESS_HOST": ("0.0.0.0,::", "environment"),
                "DURABILITY_ASSERTED": ("false", "default"),
                "SELLFERN_API_KEY": ("***", "env file"),
                "SELLFERN_API_KEY_FILE": ("", "default"),
                "INGRESS_PUBLIC_URL": ("", "default"),
            },
        ),
    ],
)
async def test_a_check_prints_each_setting_in_force_with_its_source(
    tmp_path: Path, program: str, expected: dict[str, tuple[str, str]]
) -> None:
    file = tmp_path / ".env"
    file.write_text(ENV_FILE)
    environ = {
        "MAX_ATTEMPTS": "7",
        "INGRESS_PORT": "8081",
        "INGRESS_HOST": "0.0.0.0, ::",
        "LEASE_SECONDS": "",  # unset, so the file's counts
    }
    from_file = ("--env-file", str(file))  # before the command or behind it
    as_json, shown = await asyncio.gather(
        run(program, *from_file, "check", "--settings", "--json", environ=environ),
        run(program, "check", "--settings", *from_file, environ=environ),
    )
    rows = {row["name"]: (row["value"], row["source"]) for row in as_json.json}
    files = {source for _, source in rows.values() if source not in {"default", "environment"}}
    assert files == {f"env file {file}"}
    found = {name: (rows[name][0], rows[name][1].split(f" {file}")[0]) for name in expected}
    assert found == expected
    assert (shown.code, shown.stderr) == (0, "")
    assert all(name in shown.stdout for name in rows)
    assert "hidden" not in as_json.stdout + shown.stdout
    ours = [name for name in NAMES if name in rows]
    assert len(ours) == len(rows) > 25


async def test_a_setting_that_is_wrong_is_in_no_force_and_told_of(tmp_path: Path) -> None:
    environ = {"MAX_ATTEMPTS": "none", "REDIS_URL": '"redis://:hidden@h"'}
    ended = await run("worker", "check", "--settings", "--json", environ=environ)
    assert ended.code == 2
    rows = {row["name"]: row["value"] for row in map(json.loads, ended.stdout.splitlines())}
    assert (rows["MAX_ATTEMPTS"], rows["REDIS_URL"]) == (None, None)
    assert len(ended.stderr.splitlines()) == 2
    assert "hidden" not in ended.stdout + ended.stderr


async def test_a_program_starts_with_what_a_file_says(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    environ = environment(redis_server.url, tmp_path)
    file = tmp_path / ".env"
    url = environ.pop("REDIS_URL")
    file.write_text(f"REDIS_URL={url}\nENDPOINTS_FILE=endpoints.toml\nS=whsec_a")
    environ.pop("ENDPOINTS_FILE")
    (tmp_path / "endpoints.toml").write_text(
        '[[endpoint]]\nid = "acme"\norganization_id = "org_a"\nsecrets = [{ env = "S" }]\n'
    )
    ended = await run_command(
        *(sys.executable, "-m", "ingress", "--env-file", ".env", "check"),
        environ={**environ, "PYTHONPATH": str(ROOT)},
        folder=tmp_path,
    )
    assert (ended.code, ended.stderr) == (0, "")
    assert "endpoints: 1" in ended.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "error: --env-file: expected a readable file, got none.env (No such file"),
        ("A=1\nhunter2\n", "error: --env-file (some.env) line 2: expected NAME=VALUE, got someth"),
    ],
)
async def test_a_file_that_can_not_be_read_is_one_line(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "some.env").write_text(text)
    name = "none.env" if text is None else "some.env"
    words = (sys.executable, "-m", "worker", "--env-file", name, "status")
    ended = await run_command(*words, environ={"PYTHONPATH": str(ROOT)}, folder=tmp_path)
    assert (ended.code, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith(message)
    assert "hunter2" not in ended.stderr


@pytest.mark.parametrize(
    ("program", "typed", "completed"),
    [
        ("worker", "dead-letters re", "plain,replay"),
        ("worker", "che", "plain,check"),
        ("ingress", "endpoints reg", "plain,register"),
    ],
)
async def test_a_shell_completes_commands_as_the_readme_says(
    program: str, typed: str, completed: str
) -> None:
    script = str(Path(sys.executable).parent / f"sellfern-{program}")
    variable = f"_SELLFERN_{program.upper()}_COMPLETE"
    readme = (ROOT / "deploy" / "README.md").read_text()
    assert f"{variable}=bash_source sellfern-{program}" in readme
    words = f"sellfern-{program} {typed}"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    ended = await run_command(script, environ={variable: "bash_complete", **asked})
    assert ended.stdout.splitlines() == [completed]
