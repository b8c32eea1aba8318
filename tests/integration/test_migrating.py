"""Facts about organizations that leave a single queue for partitions while events come in."""

from redis.asyncio import Redis

from shared.queue.keys import UNTAGGED
from shared.queue.partition import BEFORE, Partition
from shared.queue.writer import Accepted, Moved, Queue
from shared.redis.durability import Durability, Mode
from tests.conftest import StartRedis
from tests.integration.jobs import delivery
from tests.integration.moves import ORG, SHORT, Shop
from tests.integration.several import ORGANIZATIONS, over
from worker.operate import organizations
from worker.operate.moving import Progress
from worker.operate.partitions_command import migrate_all

OTHER = ORGANIZATIONS[1]


async def test_all_go_home_and_none_is_refused(
    redis: Redis, fresh_redis_server: StartRedis
) -> None:
    async with Redis.from_url(fresh_redis_server().url) as old:
        before = Partition(BEFORE, UNTAGGED, old)
        shop = Shop(over(redis), before)
        home = shop.partitions.all[0]
        for _ in range(50):
            await shop.deliver("done")
        await shop.deliver("bad", bad=True)
        await shop.work_off(-1)
        assert await organizations.pause(before, OTHER, "by hand")
        await old.set(UNTAGGED.state(OTHER, "kept"), "1")
        told: dict[str, Progress] = {}
        async with shop.busy():
            await migrate_all(shop.partitions, before, SHORT, told.__setitem__)
            await shop.deliver("after")
            # A count that somebody's hand has left keeps nobody there.
            await old.hset(UNTAGGED.bytes, f"{OTHER}:marks", "1")
            await migrate_all(shop.partitions, before, SHORT, told.__setitem__)
            await old.delete(UNTAGGED.bytes)
        assert told.keys() == {ORG, OTHER}
        bad = shop.sent.pop("bad")
        expected = {key: str(number).encode() for key, number in shop.sent.items()}
        assert await shop.state(home) == expected
        assert await redis.zcard(home.names.dead(ORG)) == bad
        there = shop.partitions.all[1]
        assert await redis.get(there.names.state(OTHER, "kept")) == b"1"
        assert await redis.hget(there.names.organizations, f"pause:{OTHER}") == b"by hand"
        # Nothing is left there, nor accepted: who has never been there goes home, too.
        kept = {each for each in await old.keys() if ORG.encode() in each or OTHER.encode() in each}
        assert kept == set()
        queue = Queue(before, Durability(Mode.MEMORY), is_left=True)
        (answer,) = await queue.enqueue([delivery(b"1", "org_new")])
        assert isinstance(answer, Moved)
        assert answer.partition is None
        assert await shop.writer.accept(delivery(b"1", "org_new")) is Accepted.NEW
        assert await old.zcard(UNTAGGED.accepted) == 0
