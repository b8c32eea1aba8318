"""Nine servers as Kubernetes and Compose start them in deploy/, made a cluster, and resharded."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
import yaml
from redis.crc import key_slot

from shared.queue.partition import TAGS
from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import Ended, run, run_command, until
from tests.acceptance.test_partitions import ORGANIZATIONS, THERE, deliver_until, environ_of
from tests.acceptance.worker_process import running
from tests.deploy.deployed_redis import DeployedRedis, password
from tests.deploy.kubernetes_objects import DEPLOY
from tests.in_memory import folder_in_memory
from tests.ports import free_port
from tests.tools import tool

ALL: Final = len(ORGANIZATIONS)
SLOT: Final = key_slot(TAGS[0].encode())


def in_kubernetes() -> tuple[str, ...]:
    """What stands behind start.sh there."""
    text = (DEPLOY / "kubernetes" / "cluster" / "redis.yaml").read_text()
    text = text.replace("$(POD_IP)", "127.0.0.1")
    (container,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    assert container["command"][:2] == ["sh", "/etc/redis/start.sh"]
    return tuple(container["command"][2:])


def in_compose() -> tuple[str, ...]:
    """The same; what is behind all nodes' names is another test's."""
    services = yaml.safe_load((DEPLOY / "compose.cluster.yaml").read_text())["services"]
    assert services["cluster"]["entrypoint"] == ["sh", "/etc/redis/create-cluster.sh"]
    return tuple(services["redis"]["command"])


@pytest.fixture
def nodes() -> Iterator[list[DeployedRedis]]:
    """Nine that know nothing of each other; some are told what their pods tell them."""
    with ExitStack() as stack:

        def start(number: int) -> DeployedRedis:
            words = in_compose() if number % 3 else in_kubernetes()
            own = (*words, "--cluster-port", str(free_port()))
            return stack.enter_context(DeployedRedis(folder_in_memory(stack), words=own))

        yield list(map(start, range(9)))


async def create(nodes: list[DeployedRedis]) -> Ended:
    """Make them a cluster, as in a container of one of them."""
    folder = nodes[0].folder.with_name("secrets")
    hosts = [f"127.0.0.1:{node.port}" for node in nodes]
    environ = {**os.environ, "SECRETS_DIR": str(folder)}
    script = DEPLOY / "redis" / "create-cluster.sh"
    return await run_command("sh", str(script), *hosts, environ=environ)


async def redis_cli(node: DeployedRedis, command: str, *words: str) -> Ended:
    """Type it as the user who may."""
    environ = {**os.environ, "REDISCLI_AUTH": password("cluster")}
    typed = (str(tool("redis-cli")), "--user", "cluster", "--cluster", command)
    return await run_command(*typed, f"127.0.0.1:{node.port}", *words, environ=environ)


async def test_it_is_made_and_resharded_and_both_programs_go_on(
    nodes: list[DeployedRedis], tmp_path: Path
) -> None:
    made = await create(nodes)
    assert made.code == 0, made.stdout + made.stderr

    async def is_whole() -> bool:
        checked = await redis_cli(nodes[0], "check")
        return checked.code == 0 and "All 16384 slots covered" in checked.stdout

    await until(is_whole)
    again = await create(nodes)
    assert (again.code, again.stdout) == (0, "they are a cluster already\n")
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes[:3])
    common = {**environ_of(tmp_path), "PARTITIONS": "6", "WAIT_REPLICAS": "1"}
    environ = {
        user: {**common, "REDIS_URL": f"redis+cluster://{user}:{password(user)}@{hosts}"}
        for user in ("ingress", "worker")
    }

    async def is_durable() -> bool:
        return (await run("ingress", "check", environ=environ["ingress"])).code == 0

    await until(is_durable)  # replicas have taken their primaries' data over
    async with ingress(environ["ingress"]) as program, running(environ["worker"]) as (worker,):
        await deliver_until(THERE, program)
        await worker.logged("event_dead", ALL)
        before = await owner(nodes)
        primaries = [await name_of(node) for node in (before, await owner(nodes, SLOT + 8192))]
        moved = await redis_cli(
            *(nodes[0], "reshard", "--cluster-from", primaries[0]),
            *("--cluster-to", primaries[1], "--cluster-slots", str(SLOT + 1), "--cluster-yes"),
        )
        assert moved.code == 0, moved.stdout[-1000:] + moved.stderr
        assert await owner(nodes) is not before
        await deliver_until(THERE, program)
        for each in (program, worker):
            await until(each.is_ready)


async def owner(nodes: list[DeployedRedis], slot: int = SLOT) -> DeployedRedis:
    """The node that has a slot."""
    async with nodes[0].client_of() as admin:
        for first, last, (_, port, *_), *_ in await admin.execute_command("CLUSTER", "SLOTS"):
            if first <= slot % 16_384 <= last:
                return next(node for node in nodes if node.port == port)
    raise AssertionError(slot)


async def name_of(node: DeployedRedis) -> str:
    """What the others call it."""
    async with node.client_of() as admin:
        return str((await admin.execute_command("CLUSTER", "MYID")).decode())
