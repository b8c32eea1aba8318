"""Facts about secret files that are away, or never answer, in processes."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.ingress_process import IngressProcess, ingress
from tests.acceptance.process import Program, environment, run
from tests.acceptance.worker_process import running
from tests.ingress_support import Reply
from tests.integration.workplace import body

ENDPOINTS = """
[[endpoint]]
id = "acme"
organization_id = "org_a"
secrets = ["whsec_a"]

[[endpoint]]
id = "bolt"
organization_id = "org_b"
secrets = [{ file = "bolt" }]
"""
OF_BOLT = "whsec_b"
QUICK = 5.0
"""Seconds within which a program that doesn't wait for a dead file has ended."""

Environ = Callable[..., dict[str, str]]


@pytest.fixture
def environ(redis_server: EmbeddedRedis, tmp_path: Path) -> Environ:
    (tmp_path / "endpoints.toml").write_text(ENDPOINTS)
    return lambda **changes: environment(redis_server.url, tmp_path, **changes)


async def to_bolt(program: IngressProcess, secret: str = OF_BOLT) -> Reply:
    return await program.deliver(body(organization="org_b"), endpoint="bolt", secret=secret)


async def ended_quickly(program: Program) -> int:
    program.send(signal.SIGTERM)
    started = time.monotonic()
    code = await program.ended()
    assert time.monotonic() - started < QUICK
    return code


async def test_an_endpoint_whose_secret_is_away_answers_503_alone_until_it_is_there(
    environ: Environ, tmp_path: Path
) -> None:
    async with ingress(environ()) as program:
        await program.logged("secret_missing", whose="endpoint bolt", cause="unreadable")
        assert (await program.deliver(body())).status == 202
        reply = await to_bolt(program)
        assert (reply.status, reply.code) == (503, "secret_unavailable")
        ready = await program.admin("/readyz")
        assert (ready.status, ready.json["ready"]) == (200, True)
        assert [note["code"] for note in ready.json["notes"]] == ["secret_missing"]
        shown = (await program.admin("/endpoints/bolt")).json
        assert "in a readable file, got 'bolt'" in shown["missing"][0]
        (tmp_path / "bolt").write_text("whsec_b\n")
        await program.logged("endpoints_reloaded")
        assert (await to_bolt(program)).status == 202
        assert (await to_bolt(program, "whsec_wrong")).status == 401
        (tmp_path / "bolt").unlink()
        await program.logged("endpoints_reloaded", times=2)
        assert (await to_bolt(program)).status == 202  # kept for a day
        assert (await to_bolt(program, "whsec_other")).status == 503


async def test_check_shows_what_is_away_and_calls_what_is_no_secret_an_error(
    environ: Environ, tmp_path: Path
) -> None:
    away = await run("ingress", "check", environ=environ())
    assert away.code == 0
    assert "warning endpoints  secret_unreadable: endpoint bolt answers 503" in away.stdout
    assert '{"' not in away.stdout  # nor is it logged in between
    (tmp_path / "bolt").write_text("BOLT_SECRET=whsec_b\n")
    wrong = await run("ingress", "check", environ=environ())
    assert wrong.code == 2
    assert "error   endpoints  secret_unusable: endpoint bolt answers 503" in wrong.stdout
    assert "got NAME=VALUE in the file 'bolt'" in wrong.stdout
    sent = await run("ingress", "send", "bolt", "order.updated", environ=environ())
    assert (sent.code, "got NAME=VALUE in the file 'bolt'" in sent.stderr) == (2, True)


async def test_a_secret_file_that_hangs_at_the_start_is_named_and_holds_up_nobody_for_long(
    environ: Environ, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "bolt")
    async with ingress(environ()) as program:
        assert program.events("file_awaited", path=str(tmp_path / "bolt"))
        assert program.events("file_hangs", path=str(tmp_path / "bolt"))
        assert (await program.deliver(body())).status == 202
        assert (await to_bolt(program)).code == "secret_unavailable"
        assert await ended_quickly(program) == 0


async def test_sigterm_ends_a_program_that_waits_for_a_file(
    environ: Environ, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "bolt")
    program = await Program.begin("ingress", environ())
    await program.logged("file_awaited")
    assert await ended_quickly(program) == 128 + signal.SIGTERM


async def test_a_secret_file_that_hangs_later_stops_no_revocation_and_no_end(
    environ: Environ, tmp_path: Path
) -> None:
    (tmp_path / "bolt").write_text("whsec_b\n")
    async with ingress(environ()) as program:
        (tmp_path / "bolt").unlink()
        os.mkfifo(tmp_path / "bolt")
        (tmp_path / "endpoints.toml").write_text(ENDPOINTS.replace("whsec_a", "whsec_next"))
        await program.logged("file_hangs", path=str(tmp_path / "bolt"))
        await program.logged("endpoints_reloaded")
        assert (await program.deliver(body(), secret="whsec_a")).status == 401
        assert (await program.deliver(body(), secret="whsec_next")).status == 202
        assert (await to_bolt(program)).status == 202
        metrics = (await program.admin("/metrics")).body.decode()
        assert "sellfern_files_hanging 1.0" in metrics
        assert 'sellfern_secrets_missing{cause="hangs"} 1.0' in metrics
        assert await ended_quickly(program) == 0


async def test_a_worker_tells_of_a_token_in_the_settings_that_it_can_not_read(
    environ: Environ, tmp_path: Path
) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text(ENDPOINTS + '[endpoint.settings]\ntoken = { file = "token" }\n')
    async with running(environ()) as (worker,):
        await worker.logged("secret_missing", whose="organization org_b", cause="unreadable")
        ready = (await worker.admin("/readyz")).json
        assert [note["code"] for note in ready["notes"]] == ["secret_missing"]
        (tmp_path / "token").write_text("tok")
        await worker.logged("endpoints_reloaded")
        assert "notes" not in (await worker.admin("/readyz")).json


async def test_check_of_a_worker_tells_of_a_token_in_the_settings_too(
    environ: Environ, tmp_path: Path
) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text(ENDPOINTS + '[endpoint.settings]\ntoken = { file = "token" }\n')
    away = await run("worker", "check", environ=environ())
    line = "warning endpoints  secret_unreadable: organization org_b fails what asks for its token"
    assert (away.code, line in away.stdout) == (0, True)
    (tmp_path / "token").write_text("${ERP_TOKEN}")
    wrong = await run("worker", "check", environ=environ())
    assert (wrong.code, "error   endpoints  secret_unusable: " in wrong.stdout) == (2, True)
