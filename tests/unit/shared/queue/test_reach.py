"""Facts about asking all partitions, some of which don't answer."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from shared.errors import Unavailable
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.queue.reach import Missing, Reach, sentences

HERE, THERE = Redis(), Redis()
AWAY = RedisConnectionError("Error connecting")


def four() -> Partitions:
    """Those of even numbers are on one server, the others on another."""
    return Partitions(tuple(Partition.at(each, (HERE, THERE)[each % 2]) for each in range(4)))


async def number_of(partition: Partition) -> int:
    return partition.number


async def gathered(reach: Reach, **failing: Exception) -> list[int]:
    """The numbers of those that answer."""

    async def ask(partition: Partition) -> int:
        if error := failing.get(f"at_{partition.number}"):
            raise error
        return partition.number

    return [number for _, number in await reach.gather(ask)]


async def test_all_answer_in_order() -> None:
    reach = Reach(four())
    assert await gathered(reach) == [0, 1, 2, 3]
    assert reach.missing == []
    some = [reach.partitions.all[2], reach.partitions.all[1]]
    assert [number for _, number in await reach.gather(number_of, some)] == [2, 1]
    assert await reach.gather(number_of, []) == []


async def test_who_fails_is_left_out_and_told() -> None:
    reach = Reach(four())
    assert await gathered(reach, at_2=OutOfMemoryError("OOM")) == [0, 1, 3]
    assert [(each.partition, each.code) for each in reach.missing] == [(2, "redis_out_of_memory")]
    assert sentences(reach.missing) == [
        "partition 2 of 4 can't be read: Redis has reached its maxmemory"
    ]
    assert await gathered(reach) == [0, 1, 3]


async def test_a_server_that_is_away_is_waited_for_once() -> None:
    asked: list[int] = []

    async def ask(partition: Partition) -> int:
        asked.append(partition.number)
        if partition.redis is THERE:
            raise AWAY
        return partition.number

    reach = Reach(four())
    assert [number for _, number in await reach.gather(ask, doing="written")] == [0, 2]
    assert sorted(asked) == [0, 1, 2]
    assert sentences(reach.missing) == [
        "partitions 1, 3 of 4 can't be written: no connection to Redis"
    ]


def test_those_that_fail_alike_are_told_in_one_sentence() -> None:
    missing = [
        Missing(0, 4, "a", "why"),
        Missing(1, 4, "b", "why not"),
        Missing(2, 4, "a", "why"),
        Missing(3, 4, "a", "why", "written"),
    ]
    assert sentences(missing) == [
        "partitions 0, 2 of 4 can't be read: why",
        "partition 1 of 4 can't be read: why not",
        "partition 3 of 4 can't be written: why",
    ]


async def test_servers_are_asked_at_once() -> None:
    both = asyncio.Barrier(2)

    async def ask(partition: Partition) -> None:
        if partition.number < 2:
            await both.wait()

    async with asyncio.timeout(5):
        assert len(await Reach(four()).gather(ask)) == 4


async def test_the_error_of_the_last_one_is_raised() -> None:
    with pytest.raises(RedisConnectionError):
        await gathered(Reach(four()), at_0=AWAY, at_1=AWAY)
    single = Reach(Partitions.only(HERE))
    with pytest.raises(OutOfMemoryError):
        await gathered(single, at_0=OutOfMemoryError("OOM"))


async def test_that_all_of_those_have_failed_that_were_asked_is_raised() -> None:
    reach = Reach(four())
    await gathered(reach, at_1=AWAY)
    one, two, three = reach.partitions.all[1:]
    reach.check_some([one, two])
    reach.check_some([])
    with pytest.raises(Unavailable) as caught:
        reach.check_some([one, three])
    assert caught.value.code == "redis_unreachable"


async def test_what_is_no_error_of_redis_is_raised() -> None:
    with pytest.raises(ValueError, match="a bug"):
        await gathered(Reach(four()), at_1=ValueError("a bug"))


async def test_nobody_waits_for_those_that_are_known_to_fail() -> None:
    reach = Reach(four(), [Missing(1, 4, "redis_timeout", "why")])
    assert await gathered(reach, at_1=AssertionError("it was asked")) == [0, 2, 3]


def test_a_job_says_by_its_tag_where_it_is() -> None:
    partitions = four()
    for each in partitions:
        assert partitions.bearing(f"{each.names.job_prefix}org_a:12") is each
    for foreign in ("org_a:12", "{201}org_a:12", "{021org_a:12", "021}org_a:12", "{}", "", "{999}"):
        assert partitions.bearing(foreign) is None
    single = Partitions.only(HERE)
    assert single.bearing("org_a:12") is single.all[0]


async def test_what_belongs_to_no_organization_may_be_anywhere() -> None:
    partitions = four()
    assert await Reach(partitions).having(None) == partitions.all
    assert await Reach(partitions).having("?") == partitions.all
    single = Partitions.only(HERE)
    assert await Reach(single).having("org_a") == single.all  # nobody is asked
