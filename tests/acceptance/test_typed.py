"""Facts about what people type, seen from outside: words, variables, files."""

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
