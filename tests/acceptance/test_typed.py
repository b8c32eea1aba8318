"""Facts about what people type, seen from outside: words, variables, files."""

import asyncio
import json
from pathlib import Path

import pytest

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import environment, get, run
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


DOUBTS = ["handler_for_unlisted_event", "pattern_without_event", "organization_without_endpoint"]


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
    assert levels == ["ok"] * 4 + ["warning"] * 3 + ["ok"]
    warnings = [each for each in as_json.json if each["level"] == "warning"]
    assert [each["code"] for each in warnings] == DOUBTS
    assert "on('order.paid'): the API Reference doesn't list this event" in shown.stdout
    async with running(environ) as (worker,):
        for each in warnings:
            (line,) = worker.events(each["code"])
            assert (line["level"], line["message"]) == ("warning", each["message"])


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
