"""Clusters of other servers than the bundled Redis: Valkey with the users of deploy/redis, TLS."""

from collections.abc import Mapping
from pathlib import Path

from redis.asyncio import Redis

from deploy.local.embedded_cluster import EmbeddedCluster
from shared.redis.connection import server_of
from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import run, until
from tests.acceptance.test_partitions import ORGANIZATIONS, THERE, deliver_until, environ_of
from tests.acceptance.worker_process import running
from tests.conftest import StartCluster
from tests.deploy.as_users import let_users_in
from tests.deploy.deployed_redis import password
from tests.deploy.test_valkey import valkey_server
from tests.integration.certificates import make_certificates
from tests.integration.resharding import ask, name, resharding
from tests.integration.test_cluster import SLOT, code_of, first_of
from tests.ports import free_port
from tests.tools import tool

__all__ = ["valkey_server"]

ALL = len(ORGANIZATIONS)


async def test_users_of_deploy_redis_work_in_a_cluster_of_valkey(
    valkey_server: Path, fresh_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster = fresh_cluster(3, program=valkey_server)
    for node in cluster.nodes:
        let_users_in(node)
    urls = {
        user: cluster.url.replace("//", f"//{user}:{password(user)}@")
        for user in ("ingress", "worker", "operator")
    }
    await works(tmp_path, urls, WAIT_REPLICAS="0")
    await moves_a_slot_in_one_step(cluster)


async def moves_a_slot_in_one_step(cluster: EmbeddedCluster) -> None:
    """As Valkey does since 9.0: then a partition is elsewhere, and was never in between."""
    move = resharding(cluster, SLOT)
    async with first_of(cluster.url) as redis:
        assert await code_of(redis) == ""
        whole = ("SLOTSRANGE", SLOT, SLOT, "NODE", await name(move.target))
        await ask(move.source, "MIGRATESLOTS", *whole)
        codes = set()

        async def has_moved() -> bool:
            codes.add(await code_of(redis))
            return server_of(redis) == f"127.0.0.1:{move.target.port}"

        await until(has_moved)
        assert codes <= {"", "redis_partition_moving"}


async def test_both_programs_work_by_tls_in_a_cluster_of_the_oldest_redis(
    fresh_cluster: StartCluster, tmp_path: Path
) -> None:
    """It has no ``WAITAOF``, so its replicas are waited for in memory."""
    own = make_certificates(tmp_path)

    def by_tls() -> dict[str, str]:
        return {**own.server_settings(free_port()), "tls-cluster": "yes"}

    cluster = fresh_cluster(2, replicas=1, program=tool("redis-server"), arguments=by_tls)
    ports, versions = [], set()
    for node in cluster.nodes:
        async with Redis(port=node.port) as admin:
            ports.append((await admin.config_get("tls-port"))["tls-port"])
            versions.add((await admin.info("server"))["redis_version"][:4])
    assert versions == {"7.0."}
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    url = f"rediss+cluster://{hosts}?ssl_ca_certs={own.authority}"
    urls = dict.fromkeys(("ingress", "worker", "operator"), url)
    await works(tmp_path, urls, DURABILITY="replica", WAIT_REPLICAS="1")


async def works(folder: Path, urls: Mapping[str, str], **changes: str) -> None:
    """Accept, handle, show and discard, each as its user."""
    common = {**environ_of(folder), "PARTITIONS": "4", **changes}
    environ = {user: {**common, "REDIS_URL": url} for user, url in urls.items()}
    checked = await run("ingress", "check", environ=environ["ingress"])
    assert checked.code == 0, checked.stdout
    async with ingress(environ["ingress"]) as program, running(environ["worker"]) as (worker,):
        await deliver_until(THERE, program)
        await worker.logged("event_dead", ALL)
        discard = ("dead-letters", "discard", "--all", "--yes")
        assert (await run("worker", *discard, environ=environ["operator"])).code == 0
        (shown,) = (await run("worker", "status", "--json", environ=environ["operator"])).json
        assert (shown["dead"], shown["waiting"]) == (0, 0)
        for each in (program, worker):
            await until(each.is_ready)
            assert "redis_permission" not in each.text
