"""Both programs over Redis with Sentinel: a fail-over under traffic."""

import os
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import environment, run, until
from tests.acceptance.worker_process import running
from tests.deploy.traffic import handled, settled, traffic
from tests.integration.sentinels import PATIENCE, Fleet, fleet

RUNS = int(os.environ.get("FAILOVERS", "1"))
"""How often the primary is killed while its replicas stand still."""


async def test_a_failover_under_traffic_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    with fleet() as servers:
        await servers.until_watched()
        environ = environment(servers.url, tmp_path, DURABILITY="replica", DURABILITY_TIMEOUT="1s")
        checked = await run("ingress", "check", environ=environ)
        assert checked.code == 0, checked.stdout
        async with (
            ingress(environ) as one,
            ingress(environ) as other,
            running(environ, 2) as workers,
            traffic(one, other) as sent,
        ):
            await sent.accepts(200)
            old = await servers.primary()
            old.kill()
            await until(lambda: _has_another_primary(servers, old.port))
            old.start()  # Sentinel makes it a replica of the new one
            await sent.accepts(200)
            for program in (one, other, *workers):
                assert program.is_alive
        async with running(environ):
            await settled(environ)
        found = await handled(environ)
        assert [each for each in sent.accepted if each not in found] == []
        assert set(found.values()) == {1}
        assert sent.refused


@pytest.mark.parametrize("run_number", range(RUNS))
async def test_what_frozen_replicas_did_not_get_was_not_accepted(
    tmp_path: Path, run_number: int
) -> None:
    """With DURABILITY=fsync, the default: the primary's disk is gone with the primary.

    Sentinel may take either replica, so both have to have what is accepted.
    """
    with fleet(replicas=2) as servers:
        await servers.until_watched()
        changes = {"WAIT_REPLICAS": "2", "DURABILITY_TIMEOUT": "1s"}
        environ = environment(servers.url, tmp_path, **changes)
        checked = await run("ingress", "check", environ=environ)
        assert checked.code == 0, checked.stdout
        # More than what the system keeps for a process that doesn't read.
        async with ingress(environ) as one, traffic(one, padding=30_000) as sent:
            await sent.accepts(100)
            old = await servers.primary()
            replicas = [server for server in servers.servers if server is not old]
            for replica in replicas:
                replica.freeze()
            before = len(sent.accepted)

            async def has_accepted_or_refused() -> bool:
                return len(sent.accepted) >= before + 500 or "not_replicated" in sent.refused

            await until(has_accepted_or_refused)
            old.kill()
            for replica in replicas:
                replica.thaw()
            await until(lambda: _has_another_primary(servers, old.port))
            old.start()
            await sent.accepts(50)
        async with running(environ):
            # Workers wait for no replica: what another fail-over undoes, they do again.
            await until(lambda: _are_handled(sent.accepted, environ), PATIENCE)


async def _are_handled(accepted: list[str], environ: dict[str, str]) -> bool:
    await settled(environ)
    found = await handled(environ)
    assert set(found.values()) <= {1}
    return found.keys() >= set(accepted)


async def _has_another_primary(servers: Fleet, port: int) -> bool:
    new = await servers.primary()
    if new.port == port:
        return False
    async with Redis(port=new.port) as redis:
        return bool((await redis.info("replication"))["role"] == "master")
