"""Both programs over Redis with Sentinel: a fail-over under traffic."""

from pathlib import Path

from redis.asyncio import Redis

from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import environment, run, until
from tests.acceptance.worker_process import running
from tests.deploy.traffic import handled, settled, traffic
from tests.integration.sentinels import Fleet, fleet


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


async def _has_another_primary(servers: Fleet, port: int) -> bool:
    new = await servers.primary()
    if new.port == port:
        return False
    async with Redis(port=new.port) as redis:
        return bool((await redis.info("replication"))["role"] == "master")
