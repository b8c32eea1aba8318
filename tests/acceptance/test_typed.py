"""Facts about what people type, seen from outside: words, variables, files."""

from pathlib import Path

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import environment, run
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
