"""Both programs over a cluster: what is accepted is handled, and what is wrong is said."""

import json
from collections.abc import Callable
from inspect import isasyncgen
from pathlib import Path
from typing import Any

from redis.crc import key_slot

from deploy.local.embedded_cluster import EmbeddedCluster
from ingress import check as ingress_check
from shared.program.findings import Finding
from shared.queue.partition import TAGS, home
from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import Ended, run, until
from tests.acceptance.test_partitions import (
    ORGANIZATIONS,
    THERE,
    deliver,
    deliver_until,
    environ_of,
)
from tests.acceptance.worker_process import running
from tests.conftest import StartCluster, StartRedis
from worker import check as worker_check

NUMBER = 6
ALL = len(ORGANIZATIONS)


def slot_of(partition: int) -> int:
    """The slot of a partition's names."""
    return key_slot(TAGS[partition].encode())


def environ_in(folder: Path, url: str, **changes: str) -> dict[str, str]:
    """An environment of organizations in six partitions, on primaries without replicas."""
    environ = environ_of(folder, partitions=NUMBER)
    return {**environ, "REDIS_URL": url, "WAIT_REPLICAS": "0", **changes}


async def test_what_all_partitions_accept_is_handled_and_shown(
    redis_cluster: EmbeddedCluster, tmp_path: Path
) -> None:
    environ = environ_in(tmp_path, redis_cluster.url)

    async def ask(*words: str) -> Ended:
        return await run("worker", *words, environ=environ)

    async with ingress(environ) as program:
        await deliver_until(THERE, program)
        await deliver_until({"known"}, program)
        metrics = (await program.admin("/metrics")).body.decode()
        for number in range(NUMBER):
            assert f'sellfern_partition_up{{partition="{number}"}} 1.0' in metrics
        assert f'sellfern_queue_depth{{state="queued"}} {ALL}.0' in metrics
        assert (await program.admin("/readyz")).json["problems"] == []
    nodes = {each["node"] for each in (await ask("partitions", "--json")).json}
    assert nodes == {f"127.0.0.1:{node.port}" for node in redis_cluster.nodes}
    async with running(environ) as (worker,):
        await worker.logged("event_dead", ALL)  # they are no JSON
        await until(worker.is_ready)
        letters = (await ask("dead-letters", "list", "--json")).json
        assert len(letters) == ALL
        replayed = await ask("dead-letters", "replay", letters[0]["job"], "--yes", "--wait", "0")
        assert replayed.code == 0, replayed.stderr
        await worker.logged("event_dead", ALL + 1)
    assert worker.process.returncode == 0
    assert {line["event"] for line in worker.lines if line["level"] == "error"} == {"event_dead"}


async def test_check_says_whether_a_cluster_will_do(
    redis_cluster: EmbeddedCluster, tmp_path: Path, fresh_redis_server: StartRedis
) -> None:
    async def found(look: Callable[..., Any], url: str, **changes: str) -> list[str]:
        looked = look(environ_in(tmp_path, url, **changes))
        findings: list[Finding] = (
            [each async for each in looked] if isasyncgen(looked) else await looked
        )
        return [
            f"{each.level}: {each.message}"
            for each in findings
            if each.subject == "redis" and "maxmemory" not in each.message
        ]

    url, node = redis_cluster.url, redis_cluster.nodes[0].url
    all_of = "(partitions 0, 1, 2, 3, 4, 5 of 6)"
    assert await found(ingress_check.findings, url) == [
        f"ok: {url} {all_of}: DURABILITY=fsync holds"
    ]
    (message,) = await found(ingress_check.findings, url, WAIT_REPLICAS="1")
    assert message.startswith(f"error: {url} {all_of}: DURABILITY=fsync with a cluster: ")
    assert message.endswith("expected 1 connected replicas, got 0")
    assert await found(worker_check.findings, url) == [f"ok: {url}: can be worked with"]
    for look in (ingress_check.findings, worker_check.findings):
        (message,) = await found(look, node, WAIT_REPLICAS="1")
        assert f"error: {node}: cluster-enabled: expected no, got yes" in message
        (message,) = await found(look, f"redis+cluster://127.0.0.1:{fresh_redis_server().port}")
        assert "Redis is no node of a cluster: expected redis://… in REDIS_URL" in message


async def test_one_primary_that_is_away_is_told_and_the_rest_goes_on(
    fresh_cluster: StartCluster, tmp_path: Path
) -> None:
    """From the start of both programs; its events are accepted once it is back."""
    cluster = fresh_cluster(replicas=0)
    environ = environ_in(tmp_path, cluster.url)
    async with ingress(environ):
        pass  # the first start of all has told each partition how many there are
    away = cluster.owner(slot_of(0))
    its = [number for number in range(NUMBER) if cluster.owner(slot_of(number)) is away]
    there = [name for name in ORGANIZATIONS if home(name, NUMBER) not in its]
    away.kill()
    async with ingress(environ) as program, running(environ) as (worker,):
        await deliver_until(THERE, program, there)
        theirs = {await deliver(program, name, b"x") for name in set(ORGANIZATIONS) - set(there)}
        assert theirs == {"redis_awaited"}
        await worker.logged("event_dead", len(there))
        named = f"(partitions {', '.join(map(str, its))} of {NUMBER}): no connection to Redis"

        async def is_noted() -> bool:
            notes = (await program.admin("/readyz")).json["notes"]
            return any(named in each["message"] for each in notes)

        await until(is_noted)
        assert await program.is_ready()

        async def is_shown() -> bool:
            status = await run("worker", "status", "--json", environ=environ)
            (shown,) = [json.loads(line) for line in status.stdout.splitlines()]
            assert shown["dead"] <= len(there)
            missing = [each["partition"] for each in shown["missing"]]
            return (missing, shown["dead"]) == (its, len(there))

        await until(is_shown)  # one that is slow is missing as well
        away.start()
        await deliver_until(THERE, program)
        await worker.logged("event_dead", ALL)
