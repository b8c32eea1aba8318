"""Facts about the writer of one of several partitions, over a queue that answers when told."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from redis.asyncio import Redis

from shared.errors import Unavailable
from shared.queue.job import Delivery
from shared.queue.partition import Partition
from shared.queue.writer import Accepted, PartitionedWriter, PartitionWriter, Queue, Waiting
from shared.redis.durability import Durability, Mode

FROZEN = Unavailable("redis_timeout", "a test")


class Told(Queue):
    """Answers a batch once somebody has said how.

    Attributes:
        sent: bodies of each batch.
        replies: what those wait for that haven't been answered, oldest first.
    """

    def __init__(self) -> None:
        partition = Partition.at(0, Redis())
        super().__init__(partition, Durability(Mode.MEMORY), lanes=1)
        self.sent: list[list[bytes]] = []
        self.replies: list[asyncio.Future[None]] = []

    async def enqueue(self, deliveries: Sequence[Delivery]) -> list[Accepted | Unavailable]:
        self.sent.append([each.body for each in deliveries])
        self.replies.append(asyncio.get_running_loop().create_future())
        await self.replies[-1]
        return [Accepted.NEW] * len(deliveries)

    def fail(self) -> None:
        """Say of the oldest batch that Redis didn't answer."""
        self.replies.pop(0).set_exception(FROZEN)

    def succeed(self) -> None:
        """Say of it that it is durable."""
        self.replies.pop(0).set_result(None)


def delivery(body: bytes, organization: str = "org_a") -> Delivery:
    return Delivery("acme", organization, 0, {}, body)


def begin(writer: PartitionWriter, body: bytes) -> "asyncio.Task[Accepted]":
    """Have it accepted, meanwhile."""
    return asyncio.create_task(writer.accept(delivery(body)))


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not fact():
            await asyncio.sleep(0)


async def refused(accepting: "asyncio.Task[Accepted]") -> str:
    """The code by which it was refused; not a batch was answered meanwhile."""
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable) as caught:
            await accepting
    return caught.value.code


def roomy() -> Callable[[], Waiting]:
    waiting = Waiting(most=100, most_bytes=100)
    return lambda: waiting


async def failing() -> tuple[Told, PartitionWriter]:
    """A writer whose first batch has just failed."""
    queue = Told()
    writer = PartitionWriter(queue, roomy())
    await writer.fit()
    first = begin(writer, b"first")
    await until(lambda: bool(queue.replies))
    queue.fail()
    assert await refused(first) == "redis_timeout"
    return queue, writer


async def test_nothing_is_accepted_before_its_redis_was_found_good() -> None:
    queue = Told()
    writer = PartitionWriter(queue, roomy())
    for _ in range(2):
        assert await refused(begin(writer, b"x")) == "redis_awaited"
    await writer.fit()
    accepting = begin(writer, b"x")
    await until(lambda: bool(queue.replies))
    queue.succeed()
    assert await accepting is Accepted.NEW


async def test_one_delivery_tries_what_has_failed_and_others_are_refused_at_once() -> None:
    queue, writer = await failing()
    for number in range(3):
        trying = begin(writer, b"%d" % number)
        await until(lambda: bool(queue.replies))
        assert await refused(begin(writer, b"x")) == "redis_timeout"
        queue.fail()
        assert await refused(trying) == "redis_timeout"
    assert queue.sent == [[b"first"], [b"0"], [b"1"], [b"2"]]


async def test_once_one_is_accepted_all_are_sent_again() -> None:
    queue, writer = await failing()
    trying = begin(writer, b"tries")
    await until(lambda: bool(queue.replies))
    queue.succeed()
    assert await trying is Accepted.NEW
    others = [begin(writer, b"%d" % number) for number in range(3)]
    await until(lambda: bool(queue.replies))
    queue.succeed()
    assert await asyncio.gather(*others) == [Accepted.NEW] * 3
    assert queue.sent[2:] == [[b"0", b"1", b"2"]]


async def test_one_whose_client_has_gone_leaves_the_try_to_the_next() -> None:
    queue, writer = await failing()
    gone = begin(writer, b"gone")
    await until(lambda: bool(queue.replies))
    gone.cancel()
    await asyncio.wait([gone])
    queue.fail()
    trying = begin(writer, b"tries")
    await until(lambda: bool(queue.replies))
    queue.succeed()
    assert await trying is Accepted.NEW


async def test_what_has_gathered_behind_a_batch_that_fails_is_not_sent() -> None:
    queue = Told()
    writer = PartitionWriter(queue, roomy())
    await writer.fit()
    first = begin(writer, b"first")
    await until(lambda: bool(queue.replies))
    gathered = [begin(writer, b"%d" % number) for number in range(3)]
    await until(lambda: writer.waiting().number == 4)
    queue.fail()
    assert {await refused(each) for each in (first, *gathered)} == {"redis_timeout"}
    assert queue.sent == [[b"first"]]
    assert (writer.waiting().number, writer.waiting().bytes) == (0, 0)


@pytest.mark.parametrize("waiting", [Waiting(2, 100), Waiting(100, 10)])
async def test_all_partitions_of_a_primary_share_what_may_wait_for_it(waiting: Waiting) -> None:
    queues = [Told(), Told()]
    first, second = (PartitionWriter(queue, lambda: waiting) for queue in queues)
    for writer in (first, second):
        await writer.fit()
    accepting = [begin(first, b"12345"), begin(second, b"67890")]
    await until(lambda: all(queue.replies for queue in queues))
    for writer in (first, second):
        assert await refused(begin(writer, b"x")) == "partition_full"
    for queue in queues:
        queue.succeed()
    assert await asyncio.gather(*accepting) == [Accepted.NEW] * 2
    assert (waiting.number, waiting.bytes) == (0, 0)


async def test_each_organization_has_the_writer_of_its_home() -> None:
    queues = [Told() for _ in range(16)]
    writers = [PartitionWriter(queue, roomy()) for queue in queues]
    for writer in writers:
        await writer.fit()
    accepting = asyncio.create_task(PartitionedWriter(writers).accept(delivery(b"x", "org_b")))
    await until(lambda: any(queue.replies for queue in queues))
    assert [number for number, queue in enumerate(queues) if queue.sent] == [12]
    queues[12].succeed()
    assert await accepting is Accepted.NEW
