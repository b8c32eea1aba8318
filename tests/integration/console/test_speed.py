"""Facts about how much slower a page is where there is much of everything."""

import os
from statistics import median
from time import perf_counter, process_time
from typing import TypeAlias

from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from tests.conftest import StartRedis
from tests.integration.console.letters import bury, bury_of_many
from tests.integration.console.site import Site, browsing
from tests.integration.console.test_pages import looked
from tests.integration.jobs import processor_time, reach
from tests.integration.test_searching import crowd
from tests.integration.workplace import Lines
from worker.operate.console.sampling import INTERVAL
from worker.operate.dead_lists import Filter
from worker.operate.failure_groups import largest
from worker.operate.relisting import relist

# `LARGE_CONSOLE=1`: 100,000 dead letters, 10,000 organizations, 500,000 events that wait.
SCALE = 10 if "LARGE_CONSOLE" in os.environ else 1
ORGANIZATIONS, LETTERS_OF_EACH, LETTERS_OF_ONE, WAITING = 1000, 5, 5000, 50_000
LOOKS = 20
AGAIN = 3
Seen: TypeAlias = tuple[Site, Redis]
AT_MOST = 5.0


async def much(redis: Redis) -> None:
    """Let there be much of everything."""
    await crowd(redis, WAITING * SCALE, organizations=ORGANIZATIONS * SCALE)
    await bury_of_many(redis, ORGANIZATIONS * SCALE, LETTERS_OF_EACH)
    await bury(redis, "org_7", LETTERS_OF_ONE * SCALE)
    await relist(Partition.only(redis), log=Lines().log)


async def pages(redis: Redis) -> list[str]:
    """All pages, and some as somebody has filtered them."""
    (group, *_), _ = await largest(reach(redis), Filter(), 1)
    waits = (await redis.zrange(keys.ACCEPTED, 0, 0))[0].decode()
    (dead,) = (job.decode() for job in await redis.zrange(keys.dead("org_7"), 0, 0))
    confirm = "/dead-letters/confirm?verb=replay&all=1"
    return [
        *("/", "/?minutes=60", "/running", "/workers", "/actions", "/runs/12345678"),
        *("/organizations", "/organizations?sort=name&page=3", "/organizations?show=held"),
        *("/organizations?q=g_77", "/organizations/org_7", "/organizations/org_77"),
        *("/organizations/org_nobody", "/organizations/org_7/pause"),
        *("/events", f"/event?job={waits}", f"/event?job={dead}", "/dead-letters"),
        *("/dead-letters?organization=org_7", "/dead-letters?organization=org_7&reason=crashed"),
        *("/dead-letters?reason=crashed", "/dead-letters?type=order.updated&reason=exhausted"),
        f"/dead-letters?group={group.id}",
        *("/dead-letters/groups", "/dead-letters/groups?reason=crashed"),
        *("/dead-letters/groups?organization=org_7", f"/dead-letters/group?id={group.id}"),
        *(confirm, f"{confirm}&organization=org_7", f"{confirm}&group={group.id}&limit=5"),
    ]


async def clock(redis: Redis) -> float:
    """Seconds: of a processor, ours and Redis's, unless somebody wants to wait for them.

    On a busy machine whoever works for longer is interrupted for longer than that.
    """
    if SCALE > 1:
        return perf_counter()
    return process_time() + await processor_time(redis)


async def took(site: Site, redis: Redis, path: str) -> float:
    """How long an answer takes."""
    started = await clock(redis)
    assert (await site.get(path)).status in {200, 404}, path
    return await clock(redis) - started


async def both_took(full: Seen, empty: Seen, path: str) -> tuple[float, float]:
    """The medians of many looks, in turn."""
    both = [(await took(*full, path), await took(*empty, path)) for _ in range(LOOKS)]
    slow, quick = (median(each) for each in zip(*both, strict=True))
    return slow, quick


async def test_no_page_is_five_times_as_slow_where_there_is_much_of_everything(
    redis: Redis, fresh_redis_server: StartRedis
) -> None:
    await much(redis)
    paths = await pages(redis)
    over = {}
    async with (
        Redis.from_url(fresh_redis_server(appendfsync="no").url) as nothing,
        browsing(redis, interval=INTERVAL) as full,
        browsing(nothing, interval=INTERVAL) as empty,
    ):
        await looked(full, "org_77<", "/organizations?q=org_77")
        await looked(empty, "All is well.")
        for path in paths:
            told = ((full, redis), (empty, nothing), path)
            slow, quick = await both_took(*told)
            for _ in range(AGAIN):  # others use this machine, too
                if slow > AT_MOST * quick:
                    slow, quick = await both_took(*told)
            times = slow / quick
            print(f"{times:5.1f}  {slow * 1000:7.1f} {quick * 1000:6.1f}  {path}")  # noqa: T201  # the table that somebody asks for
            if slow > AT_MOST * quick:
                over[path] = round(times, 1)
    assert over == {}
