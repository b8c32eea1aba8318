"""Facts about a partition whose slot a node of a cluster has: it is found, and found again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from deploy.local.embedded_cluster import EmbeddedCluster
from ingress.check import findings
from ingress.primaries import Primaries
from ingress.settings import IngressSettings
from shared.endpoints.endpoint import Endpoints
from shared.errors import Problem
from shared.queue.gauges import Gauges
from shared.queue.keys import Names
from shared.queue.marker import Marker
from shared.queue.partition import TAGS
from shared.queue.partitions import check_layout, open_partitions, warn_of_undivided
from shared.queue.reach import Reach
from shared.queue.writer import Accepted, PartitionWriter, Queue
from shared.redis.cluster import SlotConnection
from shared.redis.connection import (
    REDIS_ERRORS,
    end,
    open_redis,
    server_of,
    slot_of,
    slots_of,
    translate,
)
from shared.redis.durability import Durability, Mode, check_server
from shared.redis.wire import Wire
from shared.settings.config import CommonSettings
from shared.settings.reader import Reader
from shared.settings.redis_url import RedisUrl
from tests.acceptance.process import environment
from tests.conftest import StartCluster, StartRedis
from tests.integration.jobs import delivery
from tests.integration.resharding import ask, resharding
from tests.integration.test_partitions import use
from tests.integration.workplace import Lines
from worker.operate.merged import look

PATIENCE = 60.0
TAG = TAGS[0]
SLOT = key_slot(TAG.encode())
KEY = f"{{{TAG}}}"
NAME_IN_FIRST_SLOT = next(name for name in map(str, count()) if not key_slot(name.encode()))
MEMORY = Durability(Mode.MEMORY)
AWAY = "redis_unreachable: no connection to Redis"


def in_cluster(url: str, number: int = 6) -> CommonSettings:
    return CommonSettings.from_reader(Reader({"REDIS_URL": url, "PARTITIONS": str(number)}))


@asynccontextmanager
async def first_of(url: str, **options: Any) -> AsyncIterator[Redis]:
    """A client of the first partition."""
    parsed = RedisUrl(url)
    async with open_redis(parsed, slot=slot_of(slots_of(parsed), TAG), **options) as redis:
        yield redis


async def code_of(redis: Redis | Wire) -> str:
    """The code with which a command is refused; none where it isn't."""
    try:
        await redis.execute_command("SET", KEY, "v")
    except REDIS_ERRORS as exc:
        return translate(exc).code
    return ""


async def until_it_works(redis: Redis | Wire) -> list[str]:
    """The codes of what went wrong before a command did."""
    codes: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while code := await code_of(redis):
            codes.append(code)
            await asyncio.sleep(0.02)
    return codes


async def admit(cluster: EmbeddedCluster, *rights: str) -> None:
    """Let a user ``u`` in."""
    for node in cluster.nodes:
        async with Redis(port=node.port) as admin:
            await admin.execute_command("ACL", "SETUSER", "u", "reset", "on", ">p", *rights)


async def test_each_partition_is_asked_where_it_is(redis_cluster: EmbeddedCluster) -> None:
    async with open_partitions(in_cluster(redis_cluster.url)) as partitions:
        assert partitions.in_cluster
        assert len(partitions.by_primary()) == 6
        for each in partitions:
            await each.redis.set(each.names.queue, each.number)
            owner = redis_cluster.owner(key_slot(each.names.tag.encode()))
            assert server_of(each.redis) == f"127.0.0.1:{owner.port}"
        assert len({server_of(each.redis) for each in partitions}) == 3
        found = [await each.redis.get(each.names.queue) for each in partitions]
        assert found == [b"%d" % number for number in range(6)]


async def test_who_looks_at_partitions_puts_in_doubt_where_none_of_them_is(
    redis_cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, doubts = Lines(), list[SlotConnection]()

    def note(connection: SlotConnection) -> None:
        doubts.append(connection)

    monkeypatch.setattr(SlotConnection, "_refuse", note)
    async with open_partitions(in_cluster(redis_cluster.url)) as partitions:
        shown = Gauges(partitions, organizations=3, bytes_limit_of=lambda _: 0, log=lines.log)
        await shown.refresh()
        assert await warn_of_undivided(partitions) == []
        assert (await look(Reach(partitions))).overview.undivided == 0
        for partition in partitions:
            await Marker(partition, lines.log).look()
            assert await partition.redis.hget(partition.names.marker, "beats") == b"1"
    assert lines.events() == []
    assert doubts == []


async def test_a_single_partition_bears_its_tag_there(redis_cluster: EmbeddedCluster) -> None:
    async with open_partitions(in_cluster(redis_cluster.url, 1)) as partitions:
        (only,) = partitions
        assert only.names == Names(TAG)
        assert await check_layout(partitions) == []
        queue = Queue(only, MEMORY)
        assert await queue.enqueue([delivery(b"x")]) == [Accepted.NEW]


async def test_whatever_is_done_in_a_partition_stays_in_its_slot(
    redis_cluster: EmbeddedCluster,
) -> None:
    """Commands and scripts that name another slot's keys are refused there."""
    async with Redis(host="127.0.0.1", port=redis_cluster.owner(SLOT).port) as owner:
        await use(owner, Names(TAG))


async def test_all_agree_on_the_number_of_partitions_though_the_first_is_away(
    redis_cluster: EmbeddedCluster,
) -> None:
    async with (
        open_partitions(in_cluster(redis_cluster.url, 4)) as four,
        open_partitions(in_cluster(redis_cluster.url, 8)) as eight,
    ):
        assert await check_layout(eight, begins=False) == []
        assert await check_layout(four) == await check_layout(four) == []
        message = "PARTITIONS: expected 4, as many as this Redis was begun with, got 8"
        assert await check_layout(eight) == [Problem("redis_layout", message)]
        # Nothing is begun where nobody would find it.
        assert await eight.all[7].redis.exists(eight.all[7].names.layout) == 0
        assert [await each.redis.get(each.names.layout) for each in four] == [b"4"] * 4
        await four.all[0].redis.delete(four.all[0].names.layout)
        assert await check_layout(eight) == [Problem("redis_layout", message)]


async def test_seeds_that_are_away_or_no_nodes_are_passed_over(
    redis_cluster: EmbeddedCluster, fresh_redis_server: StartRedis
) -> None:
    plain = fresh_redis_server()
    seeds = f"127.0.0.1:1,127.0.0.1:{plain.port}"
    async with first_of(f"redis+cluster://{seeds},{redis_cluster.hosts}") as redis:
        assert await code_of(redis) == ""
    async with first_of("redis+cluster://127.0.0.1:1") as redis:
        with pytest.raises(REDIS_ERRORS) as caught:
            await redis.ping()
        assert str(translate(caught.value)) == f"{AWAY}: connection refused"
    async with first_of(f"redis+cluster://127.0.0.1:{plain.port}") as redis:
        assert await code_of(redis) == "redis_cluster"


async def test_nodes_stay_known_though_whoever_asks_them_is_cancelled(
    fresh_cluster: StartCluster,
) -> None:
    """As a handler is whose time is over, or a look that another one makes needless."""
    cluster = fresh_cluster(1)
    async with first_of(cluster.url) as redis:
        cluster.nodes[0].freeze()
        for _ in range(2):
            asking = asyncio.create_task(code_of(redis))
            await asyncio.sleep(0.05)
            await end([asking])
        cluster.nodes[0].thaw()
        assert await until_it_works(redis) == []


async def test_a_slot_that_has_gone_is_refused_once_and_then_found(
    redis_cluster: EmbeddedCluster,
) -> None:
    move = resharding(redis_cluster, SLOT)
    async with first_of(redis_cluster.url, connections=4) as redis:
        wire = Wire(redis, width=2)
        await asyncio.gather(*(code_of(wire) for _ in range(2)))
        async with move.begun():
            assert await code_of(wire) == ""  # the source has it still
        assert await code_of(wire) == "redis_partition_moving"
        assert [await code_of(each) for each in (wire, wire, redis)] == [""] * 3
        assert server_of(redis) == f"127.0.0.1:{move.target.port}"


async def test_a_key_that_has_gone_ahead_is_not_followed(redis_cluster: EmbeddedCluster) -> None:
    move = resharding(redis_cluster, SLOT)
    async with first_of(redis_cluster.url) as redis:
        await redis.mset({KEY: "v", KEY + "2": "v"})
        async with move.begun():
            await move.take(KEY.encode())
            assert await code_of(redis) == "redis_partition_moving"
            for _ in range(2):
                with pytest.raises(REDIS_ERRORS) as caught:
                    await redis.mget(KEY, KEY + "2")
                assert translate(caught.value).code == "redis_partition_moving"
        await until_it_works(redis)
        assert await redis.mget(KEY, KEY + "2") == [b"v", b"v"]


async def test_a_slot_that_nobody_has_is_down_and_the_others_are_not(
    fresh_cluster: StartCluster,
) -> None:
    cluster = fresh_cluster(2)
    owner = cluster.owner(SLOT)
    async with first_of(cluster.url) as redis, open_redis(RedisUrl(cluster.url)) as other:
        assert await code_of(redis) == ""
        for node in cluster.nodes:
            await ask(node, "DELSLOTS", SLOT)
        # By who had it, and then by all that are asked.
        assert {await code_of(redis) for _ in range(3)} == {"redis_cluster_down"}
        assert await other.set(NAME_IN_FIRST_SLOT, "v")
        await ask(owner, "ADDSLOTS", SLOT)
        assert set(await until_it_works(redis)) <= {"redis_cluster_down"}


async def test_who_may_not_ask_the_nodes_is_told_so(redis_cluster: EmbeddedCluster) -> None:
    host = redis_cluster.hosts
    await admit(redis_cluster, "+@all", "-cluster")
    async with first_of(f"redis+cluster://u:p@{host}") as redis:
        assert await code_of(redis) == "redis_permission"
    async with first_of(f"redis+cluster://u:other@{host}") as redis:
        assert await code_of(redis) == "redis_refused_login"


async def test_a_cluster_that_stops_as_a_whole_is_refused(redis_cluster: EmbeddedCluster) -> None:
    owner = redis_cluster.owner(SLOT)
    async with Redis(port=owner.port) as admin, first_of(redis_cluster.url) as redis:
        assert await check_server(redis) == []
        await admin.config_set("cluster-require-full-coverage", "yes")
        try:
            (problem,) = await check_server(redis)
        finally:
            await admin.config_set("cluster-require-full-coverage", "no")
    assert problem == Problem(
        "redis_full_coverage",
        "cluster-require-full-coverage: expected no, got yes: one primary that is away would stop "
        "all the others",
    )


async def test_what_waits_for_partitions_of_one_node_is_bounded_together(
    redis_cluster: EmbeddedCluster,
) -> None:
    """Those of a node that hangs leave room for the others'."""
    settings = IngressSettings.from_environ({"REDIS_URL": redis_cluster.url, "WAIT_REPLICAS": "0"})
    async with open_partitions(settings.common) as partitions:
        endpoints = SimpleNamespace(current=Endpoints({}, {}))
        primaries = Primaries(settings, partitions, endpoints)
        assert await primaries.first_look() == []
        waiting: dict[str, set[int]] = {}
        for primary in primaries.all:
            (writer,) = primary.writers
            assert isinstance(writer, PartitionWriter)
            waiting.setdefault(server_of(primary.redis), set()).add(id(writer.waiting()))
        assert [len(each) for each in waiting.values()] == [1, 1, 1]
        assert len(set.union(*waiting.values())) == 3


async def test_check_warns_where_no_replica_is_to_spare_and_where_slots_are_nobodys(
    fresh_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster = fresh_cluster(1, replicas=1)
    await ask(cluster.nodes[0], "DELSLOTS", key_slot(b"{of somebody else's}"))
    environ = environment(cluster.url, tmp_path, PARTITIONS="2")
    codes = [each.code async for each in findings(environ) if each.subject == "redis"]
    expected = ["durable", "no_replica_to_spare", "organization_bytes_unbounded"]
    assert codes == [*expected, "redis_slots_unserved"]


@pytest.mark.parametrize("kind", ["unknown-endpoint", "hostname"])
async def test_nodes_that_have_no_name_are_found_by_their_address(
    kind: str, redis_cluster: EmbeddedCluster
) -> None:
    async def prefer(kind: str) -> None:
        for node in redis_cluster.nodes:
            async with Redis(port=node.port) as admin:
                await admin.config_set("cluster-preferred-endpoint-type", kind)

    await prefer(kind)
    try:
        async with first_of(redis_cluster.url) as redis:
            assert await code_of(redis) == ""
            assert server_of(redis) == f"127.0.0.1:{redis_cluster.owner(SLOT).port}"
    finally:
        await prefer("ip")


@pytest.mark.parametrize("way", ["kill", "freeze"])
async def test_after_a_failover_the_same_pools_go_on_with_the_new_primary(
    way: str, fresh_cluster: StartCluster
) -> None:
    """A frozen one takes connections still, and answers no login."""
    cluster = fresh_cluster(replicas=1, node_timeout=1.0)
    await admit(cluster, "~*", "+@all")
    old = cluster.owner(SLOT)
    url = f"redis+cluster://u:p@{cluster.hosts}"
    async with first_of(url, connections=8, socket_timeout=0.5) as redis:
        wire = Wire(redis, width=4)
        await asyncio.gather(*(code_of(wire) for _ in range(4)), redis.ping())
        getattr(old, way)()
        codes = set(await until_it_works(wire))
        assert codes
        away = {"redis_unreachable", "redis_timeout", "redis_cluster_down"}
        # On a busy machine one that nothing has happened to may be taken for failed before.
        assert codes <= {*away, "redis_partition_moving", "redis_readonly"}
        # Those that were idle know the old one.
        assert [await code_of(each) for each in (wire, redis, wire, redis)] == [""] * 4
        assert server_of(redis) != f"127.0.0.1:{old.port}"
