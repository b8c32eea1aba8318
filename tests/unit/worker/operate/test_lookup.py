"""Facts about events of several partitions in one order."""

from redis.asyncio import Redis

from shared.queue.partition import Partition
from worker.operate.lookup import OLDEST, first_accepted


def test_the_oldest_are_the_first_of_all_of_them() -> None:
    first, second = (Partition.at(number, Redis()) for number in range(2))
    lists = [(first, [(1.0, b"a"), (4.0, b"d")]), (second, [(2.0, b"b"), (3.0, b"c")])]
    assert first_accepted(lists) == [(first, b"a"), (second, b"b"), (second, b"c"), (first, b"d")]
    assert first_accepted([]) == []


def test_no_more_of_them_are_looked_at_than_of_one() -> None:
    partitions = [Partition.at(number, Redis()) for number in range(4)]
    lists = [
        (each, [(float(moment), b"%d" % moment) for moment in range(OLDEST)]) for each in partitions
    ]
    assert len(first_accepted(lists)) == OLDEST
