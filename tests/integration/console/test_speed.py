"""Facts about how much slower a page is where there is much of everything."""

import os
from statistics import median
from time import perf_counter, process_time
from typing import TypeAlias, cast

from aiohttp.test_utils import make_mocked_request
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
from tests.measuring import unmeasured
from worker.operate.console.app import application
from worker.operate.console.context import Console
from worker.operate.console.sampling import INTERVAL
from worker.operate.dead_letters import Selection
from worker.operate.dead_lists import Filter
from worker.operate.failure_groups import largest
from worker.operate.relisting import relist
from worker.operate.runs import Going, Run

# `LARGE_CONSOLE=1`: 100,000 dead letters, 10,000 organizations, 500,000 events that wait.
SCALE = 10 if "LARGE_CONSOLE" in os.environ else 1
ORGANIZATIONS, LETTERS_OF_EACH, LETTERS_OF_ONE, WAITING = 1000, 5, 5000, 50_000
LOOKS = 20
AGAIN = 3
Seen: TypeAlias = tuple[Site, Redis]
AT_MOST = 5.0
SEARCHED_WITHIN = 10.0
"""Seconds: 5 of them for what waits, beside others who use this machine."""
DONE = f"org_7:{7:032x}"
NO_PAGES = {"/livez", "/readyz", "/static/{name}"}


async def much(redis: Redis) -> None:
    """Let there be much of everything."""
    await crowd(redis, WAITING * SCALE, organizations=ORGANIZATIONS * SCALE)
    await bury_of_many(redis, ORGANIZATIONS * SCALE, LETTERS_OF_EACH)
    await bury(redis, "org_7", LETTERS_OF_ONE * SCALE)
    await redis.set(keys.event("org_7", "evt_done"), f"done:{DONE}")
    await relist(Partition.only(redis), log=Lines().log)


async def pages(redis: Redis) -> list[str]:
    """All pages, and some as somebody has filtered them."""
    (group, *_), _ = await largest(reach(redis), Filter(), 1)
    waits = (await redis.zrange(keys.ACCEPTED, 0, 0))[0].decode()
    late = (await redis.zrange(keys.ACCEPTED, -1, -1))[0].decode()
    run = await one_run(redis, Filter(group=group.id))
    (dead,) = (job.decode() for job in await redis.zrange(keys.dead("org_7"), 0, 0))
    confirm = "/dead-letters/confirm?verb=replay&all=1"
    return [
        *(
            "/",
            "/?minutes=60",
            "/running",
            "/workers",
            "/actions",
            f"/runs/{run}",
            "/runs/12345678",
        ),
        "/login",
        *("/organizations", "/organizations?sort=name&page=3", "/organizations?show=held"),
        *("/organizations?q=g_77", "/organizations/org_7", "/organizations/org_77"),
        *("/organizations/org_nobody", "/organizations/org_7/pause"),
        *("/events", f"/event?job={waits}", f"/event?job={dead}", "/dead-letters"),
        *(f"/event?job={late}", f"/event?job={DONE}&id=evt_done", "/event?job=org_7:nothing"),
        *(f"/events?q={job}" for job in (waits, late, dead)),
        *("/events?q=evt_done&organization=org_7", "/events?organization=org_7"),
        "/events?organization=b%3Ad",
        "/dead-letters?organization=org_7&older=1h",
        *("/dead-letters?organization=org_7", "/dead-letters?organization=org_7&reason=crashed"),
        *("/dead-letters?reason=crashed", "/dead-letters?type=order.updated&reason=exhausted"),
        f"/dead-letters?group={group.id}",
        *("/dead-letters/groups", "/dead-letters/groups?reason=crashed"),
        *("/dead-letters/groups?organization=org_7", f"/dead-letters/group?id={group.id}"),
        *(confirm, f"{confirm}&organization=org_7", f"{confirm}&group={group.id}&limit=5"),
    ]


def searches() -> list[str]:
    """What an id leads to that no index knows: as far as the time of a search goes."""
    ids = ("evt_done", "evt_000003", f"evt_{WAITING * SCALE - 5:06}", "evt_nobody_knows")
    everywhere = [f"/events?q={each}" for each in ids]
    return [*everywhere, *(f"{each}&organization=org_7" for each in everywhere[2:])]


async def one_run(redis: Redis, chosen: Filter) -> str:
    """The id of a run that has ended, of which an action is kept."""
    run = Run("replay", "group", "Ada", limit=1, selection=Selection(filter=chosen))
    going = Going(run, reach(redis), lambda _event, _fields: None, patience=0.0)
    assert await going.begin() == "begun"
    await going.to_its_end(going.work())
    return run.id


async def unseen(paths: list[str]) -> set[str]:
    """The pages of the console that none of these leads to."""
    router = application(cast("Console", None)).router
    found = [await router.resolve(make_mocked_request("GET", path)) for path in paths]
    seen = {str(match.route.resource and match.route.resource.canonical) for match in found}
    every = {
        str(each.resource and each.resource.canonical)
        for each in router.routes()
        if each.method == "GET"
    }
    return every - seen - NO_PAGES


async def clock(redis: Redis) -> float:
    """Seconds: of a processor, ours and Redis's, unless somebody wants to wait for them.

    On a busy machine whoever works for longer is interrupted for longer than that.
    """
    if SCALE > 1:
        return perf_counter()
    return process_time() + await processor_time(redis)


async def took(site: Site, redis: Redis, path: str) -> float:
    """How long an answer takes, untraced: of a long page more would be traced."""
    with unmeasured():
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
    paths, over = await pages(redis), {}
    assert await unseen([*paths, *searches()]) == set()
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
        for path in searches():
            seconds = median([await took(full, redis, path) for _ in range(AGAIN)])
            print(f"       {seconds * 1000:7.1f}         {path}")  # noqa: T201  # the same
            if seconds > SEARCHED_WITHIN:
                over[path] = round(seconds, 1)
    assert over == {}
