"""Facts about who agrees on how many partitions there are, and on where they are."""

from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.errors import Problem
from shared.queue import keys
from shared.queue.partition import Partition, home
from shared.queue.partitions import Partitions, check_layout, check_place, opened, warn_of_undivided
from tests.conftest import StartRedis


async def test_a_single_queue_has_the_names_that_it_always_had(
    redis: Redis, redis_server: EmbeddedRedis
) -> None:
    async with opened([Redis.from_url(redis_server.url)], 1) as partitions:
        assert [each.names for each in partitions] == [keys.UNTAGGED]
        assert await check_layout(partitions) == []
        assert partitions.of("org_a") is partitions.all[0]
    assert await redis.keys() == []


async def test_partitions_are_dealt_between_primaries_in_turn(
    redis: Redis, redis_server: EmbeddedRedis, fresh_redis_server: StartRedis
) -> None:
    other = fresh_redis_server()
    openings = [Redis.from_url(redis_server.url), Redis.from_url(other.url)]
    async with opened(openings, 4) as partitions:
        for partition in partitions:
            await partition.redis.set(partition.names.queue, partition.number)
        assert await check_layout(partitions) == []
        assert partitions.of("org_a").number == home("org_a", 4)
    here = {Partition.at(number, redis).names.queue.encode() for number in (0, 2)}
    assert set(await redis.keys()) == here | {b"sellfern:{021}:layout"}
    async with Redis.from_url(other.url) as there:
        found = {name: await there.get(name) for name in await there.keys()}
        assert found.pop(b"sellfern:{021}:layout") == b"4:2/2"
        assert {int(number) for number in found.values()} == {1, 3}


async def test_whoever_says_another_number_is_told_which_one_it_is(redis: Redis) -> None:
    def several(number: int) -> Partitions:
        return Partitions(tuple(Partition.at(each, redis) for each in range(number)))

    single = Partitions((Partition.only(redis),))
    assert await check_layout(single) == await check_layout(several(4)) == []
    for other, number in ((several(8), 8), (single, 1)):
        message = f"PARTITIONS: expected 4, as many as this Redis was begun with, got {number}"
        assert await check_layout(other) == [Problem("redis_layout", message)]


async def test_whoever_has_the_primaries_in_another_order_is_told(
    redis: Redis, fresh_redis_server: StartRedis
) -> None:
    server = fresh_redis_server()
    async with Redis.from_url(server.url) as other:

        def dealt(*clients: Redis) -> Partitions:
            those = (Partition.at(each, clients[each % len(clients)]) for each in range(4))
            return Partitions(tuple(those))

        assert await check_layout(dealt(redis, other)) == []
        problems = await check_layout(dealt(other, redis))
        expected = "REDIS_URL: expected place {} in the list, as this Redis was begun with, got {}"
        assert [each.message for each in problems] == [
            expected.format("2/2", "1/2"),
            expected.format("1/2", "2/2"),
        ]
        (problem,) = await check_layout(dealt(other))
        assert problem.message == expected.format("2/2", "1/1")
        (problem,) = await check_layout(Partitions.only(redis))
        assert problem.message.startswith("PARTITIONS: expected 4, ")
        server.stop()
        assert await check_layout(dealt(redis, other)) == []
        (problem,) = await check_place(dealt(redis, other), 1)
        assert problem.code == "redis_unreachable"


async def test_what_waits_undivided_is_handled_before_there_are_partitions(redis: Redis) -> None:
    partitions = Partitions((Partition.at(0, redis), Partition.at(1, redis)))
    await redis.zadd(keys.ACCEPTED, {"org_a:0123": 1})
    message = (
        "PARTITIONS: expected 1 until the 1 events that wait here undivided are handled, got 2"
    )
    assert await check_layout(partitions) == [Problem("redis_layout", message)]
    await redis.delete(keys.ACCEPTED)
    assert await check_layout(partitions) == []


async def test_what_was_accepted_undivided_after_the_division_is_still_handled(
    redis: Redis,
) -> None:
    """By an ingress that was still there with the old setting."""
    single = Partitions.only(redis)
    assert await check_layout(Partitions((Partition.at(0, redis), Partition.at(1, redis)))) == []
    await redis.zadd(keys.ACCEPTED, {"org_a:ab": 1})
    assert await check_layout(single, drains=True) == []
    (problem,) = await check_layout(single)
    assert problem.code == "redis_layout"
    await redis.delete(keys.ACCEPTED)
    (problem,) = await check_layout(single, drains=True)
    assert problem.code == "redis_layout"


async def test_events_that_wait_beside_the_partitions_are_told_with_where(
    redis: Redis, redis_server: EmbeddedRedis
) -> None:
    async with opened([Redis.from_url(redis_server.url)], 2) as partitions:
        assert await warn_of_undivided(partitions) == []
        await redis.zadd(keys.ACCEPTED, {"org_a:ab": 1})
        (message,) = await warn_of_undivided(partitions)
    assert message.startswith(
        f"1 event waits undivided at 127.0.0.1:{redis_server.port}, accepted by an ingress "
    )
    assert await warn_of_undivided(Partitions.only(redis)) == []  # they are its own


async def test_users_of_a_single_queue_need_no_right_for_partitions(
    fresh_redis_server: StartRedis,
) -> None:
    server = fresh_redis_server()
    async with Redis.from_url(server.url) as admin:
        await admin.execute_command(
            "ACL", "SETUSER", "u", "on", "nopass", "~sellfern:queue", "+@all"
        )
    async with Redis.from_url(server.url, username="u", password="any") as redis:
        assert await check_layout(Partitions.only(redis)) == []
        (problem,) = await check_layout(
            Partitions((Partition.at(0, redis), Partition.at(1, redis)))
        )
    assert problem.code == "redis_permission"


async def test_who_only_looks_begins_nothing(redis: Redis) -> None:
    partitions = Partitions((Partition.at(0, redis), Partition.at(1, redis)))
    assert await check_layout(partitions, begins=False) == []
    assert await redis.keys() == []


async def test_a_redis_that_is_away_is_a_problem_of_its_own(
    fresh_redis_server: StartRedis,
) -> None:
    server = fresh_redis_server()
    async with opened([Redis.from_url(server.url)], 2) as partitions:
        server.stop()
        (problem,) = await check_layout(partitions)
    assert problem.code == "redis_unreachable"
