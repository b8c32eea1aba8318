"""The embedded cluster: what other tests rely on when they end, freeze and reshard it."""

import os
import time
from itertools import count

import pytest
import redis
from redis.crc import key_slot

from deploy.local.embedded_cluster import SLOTS, embedded_cluster
from deploy.local.embedded_redis import RedisServerError

PATIENCE = 60.0


def test_its_primaries_have_all_slots_and_nothing_of_it_is_left() -> None:
    with embedded_cluster(2) as cluster:
        assert [cluster.owner(slot) for slot in (0, SLOTS // 2, SLOTS - 1)] == [
            cluster.nodes[0],
            *([cluster.nodes[1]] * 2),
        ]
        assert cluster.url == f"redis+cluster://{cluster.hosts}"
        with redis.RedisCluster("127.0.0.1", cluster.nodes[1].port) as client:
            assert all(client.set(f"k{number}", "v") for number in range(20))
        cluster.check()
        folders, pids = (
            [each.folder for each in cluster.nodes],
            [each.pid for each in cluster.nodes],
        )
        cluster.nodes[1].kill()
        with pytest.raises(RedisServerError):
            cluster.check()
    assert not any(folder.exists() for folder in folders)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_replica_takes_the_place_of_a_primary_that_is_gone() -> None:
    with embedded_cluster(3, replicas=1, node_timeout=0.5) as cluster:
        primary, replica = cluster.shards[0]
        name = next(name for name in map(str, count()) if key_slot(name.encode()) < SLOTS // 3)
        with redis.Redis(port=primary.port) as client:
            client.set(name, "v")
            assert client.wait(1, 10_000) == 1
        primary.kill()
        deadline = time.monotonic() + PATIENCE
        while cluster.owner(0) is not replica:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with redis.Redis(port=replica.port) as client:
            assert client.get(name) == b"v"
        # The others have gone on meanwhile.
        assert cluster.owner(SLOTS - 1) is cluster.shards[2][0]
