"""Facts about accepting deliveries, on a real Redis."""

import asyncio

import pytest
from redis.asyncio import Redis

from shared.errors import Unavailable
from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.partition import Partition
from shared.queue.writer import Accepted, Queue
from shared.redis.durability import Durability, Mode
from tests.integration.by_hand import Hand
from tests.integration.jobs import (
    RECEIVED_AT,
    account,
    bodies,
    counters,
    delivery,
    enqueue,
    enqueued,
    open_queue,
    organization_of,
)

pytestmark = pytest.mark.usefixtures("also_in_a_partition")


async def test_a_new_delivery_is_a_queued_job_with_its_payload(redis: Redis) -> None:
    sent = delivery(b"\x00 not even text \xff", headers={"user-agent": "Sellfern"})
    (job,) = await enqueued(redis, sent)

    now = await account(redis)
    assert now.payloads == now.queued == now.accepted == {job}
    assert now.waiting == {"org_a": 1}
    raw = await redis.get(keys.payload(job))
    assert jobs.decode(raw) == sent
    assert await redis.ttl(keys.payload(job)) == -1
    assert await redis.zscore(keys.ACCEPTED, job) == RECEIVED_AT


async def test_the_same_bytes_are_one_job_however_often(redis: Redis) -> None:
    answers = await enqueue(redis, *[delivery(b"same")] * 50)

    assert answers == [Accepted.NEW] + [Accepted.KNOWN] * 49
    assert await redis.zcard(keys.QUEUE) == 1
    assert await counters(redis) == {"accepted": 1, "known": 49}


async def test_the_same_bytes_for_two_organizations_are_two_jobs(redis: Redis) -> None:
    answers = await enqueue(redis, delivery(b"x", "org_a"), delivery(b"x", "org_b"))
    assert answers == [Accepted.NEW, Accepted.NEW]


async def test_virtual_time_stands_an_organizations_events_behind_its_own_only(
    redis: Redis,
) -> None:
    await enqueued(redis, *(delivery(body, "org_a") for body in bodies(100)))
    await enqueued(redis, delivery(b"b", "org_b"))

    first_two = await redis.zrange(keys.QUEUE, 0, 1, withscores=True)
    assert {organization_of(name.decode()) for name, _ in first_two} == {"org_a", "org_b"}
    assert {score for _, score in first_two} == {1.0}


async def test_a_heavier_organization_gets_more_turns(redis: Redis) -> None:
    await enqueued(redis, *(delivery(body, "org_a", weight=4.0) for body in bodies(8)))
    await enqueued(redis, *(delivery(body, "org_b") for body in bodies(8)))

    first_five = await redis.zrange(keys.QUEUE, 0, 4)
    assert [organization_of(name.decode()) for name in first_five].count("org_a") == 4


async def test_a_payload_without_its_place_in_the_queue_is_queued_again(redis: Redis) -> None:
    (job,) = await enqueued(redis, delivery(b"x"))
    await redis.zrem(keys.QUEUE, job)

    assert await enqueue(redis, delivery(b"x")) == [Accepted.NEW]
    await Hand(redis).promote()
    now = await account(redis)
    assert now.queued == {job}
    assert now.waiting == {"org_a": 1}


async def test_a_backlog_over_the_limit_is_refused_and_a_known_one_is_not(redis: Redis) -> None:
    first, second, third = (delivery(body) for body in bodies(3))
    answers = await enqueue(redis, first, second, third, total=2)

    assert answers[:2] == [Accepted.NEW, Accepted.NEW]
    assert isinstance(answers[2], Unavailable)
    assert answers[2].code == "backlog_full"
    assert await enqueue(redis, second, total=2) == [Accepted.KNOWN]


async def test_one_organizations_backlog_leaves_the_others_room(redis: Redis) -> None:
    mine = [delivery(body, "org_a") for body in bodies(2)]
    answers = await enqueue(redis, *mine, delivery(b"b", "org_b"), organization=1)

    assert answers[0] is Accepted.NEW
    assert isinstance(answers[1], Unavailable)
    assert answers[1].code == "organization_backlog_full"
    assert answers[2] is Accepted.NEW


async def test_there_is_at_most_one_wake_token(redis: Redis) -> None:
    await enqueued(redis, *map(delivery, bodies(3)))
    await enqueued(redis, delivery(b"later"))
    assert await redis.llen(keys.WAKE) == 1


async def test_a_batch_is_durable_on_disk_before_it_is_answered(redis: Redis) -> None:
    queue = Queue(Partition.only(redis), Durability(Mode.FSYNC))
    assert await queue.enqueue([delivery(b"x")]) == [Accepted.NEW]
    info = await redis.info("persistence")
    assert info["aof_pending_bio_fsync"] == 0
    assert info["aof_last_write_status"] == "ok"


async def test_without_a_replica_nothing_is_accepted_at_replica_durability(redis: Redis) -> None:
    queue = Queue(Partition.only(redis), Durability(Mode.REPLICA, replicas=1, timeout=0.05))
    for _ in range(2):  # a known one is as much in doubt as a new one
        with pytest.raises(Unavailable) as caught:
            await queue.enqueue([delivery(b"x")])
        assert caught.value.code == "not_replicated"


async def test_a_script_that_redis_has_forgotten_is_sent_again(redis: Redis) -> None:
    for durability in (Durability(Mode.FSYNC), Durability(Mode.MEMORY)):
        await redis.script_flush()
        queue = Queue(Partition.only(redis), durability)
        assert len(await queue.enqueue([delivery(b"x")])) == 1


async def test_requests_that_arrive_together_share_a_batch(redis: Redis) -> None:
    async with open_queue(Partition.only(redis), Durability(Mode.FSYNC)) as writer:
        before = (await redis.info("commandstats")).get("cmdstat_evalsha", {}).get("calls", 0)
        answers = await asyncio.gather(*(writer.accept(delivery(body)) for body in bodies(100)))
        after = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]

    assert answers == [Accepted.NEW] * 100
    assert after - before <= 2
