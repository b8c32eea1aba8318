"""Facts about a console of four partitions on two primaries."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import monotonic

import pytest
from click.testing import CliRunner
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue.partitions import check_layout
from shared.queue.reach import Reach
from tests.conftest import StartRedis
from tests.integration.console.site import Site, browsing
from tests.integration.console.test_pages import looked
from tests.integration.several import FOUR, ORGANIZATIONS, Shop, over
from worker.cli import main
from worker.operate.console import paging
from worker.operate.console.paging import Place, read_page
from worker.operate.dead_lists import Filter
from worker.operate.moving import Move

CONFIRM = "/dead-letters/confirm"

TIMEOUT = 1.0
"""Seconds until a primary that stands still counts as away."""


@dataclass(frozen=True, slots=True)
class House:
    """Two primaries with a shop in each of their partitions, and a console that shows them."""

    servers: tuple[EmbeddedRedis, EmbeddedRedis]
    shop: Shop
    site: Site


@pytest.fixture
async def house(fresh_redis_server: StartRedis) -> AsyncIterator[House]:
    """Give one with nothing in it."""
    servers = (fresh_redis_server(), fresh_redis_server())
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Redis.from_url(each.url, socket_timeout=TIMEOUT))
            for each in servers
        ]
        partitions = over(*clients)
        site = await stack.enter_async_context(browsing(clients[0], partitions))
        yield House(servers, Shop(partitions), site)


async def test_pages_show_what_is_in_all_of_them(house: House) -> None:
    for number in range(FOUR):
        await house.shop.bury(number, f"dead_{number}")
        await house.shop.wait(number, f"evt_{number}")
    for path in ("/organizations", "/dead-letters", "/events"):
        await looked(house.site, ORGANIZATIONS[-1], path)
        shown = (await house.site.get(path)).text
        assert all(name in shown for name in ORGANIZATIONS), path
        assert "can't be read" not in shown.replace("&#39;", "'")


async def test_one_that_is_on_its_way_is_told_so_and_a_command_names_what_ends_that(
    redis: Redis, redis_server: EmbeddedRedis
) -> None:
    partitions = over(redis)
    for each in partitions:  # from each to the next, and round again
        await redis.hset(each.names.moved, ORGANIZATIONS[0], str((each.number + 1) % FOUR))
    async with browsing(redis, partitions) as site:
        answer = await site.confirm(f"/organizations/{ORGANIZATIONS[0]}/pause", anyway="1")
    assert answer.status == 409
    assert "it is on its way to another partition.<" in answer.text
    env = {"REDIS_URL": redis_server.url, "PARTITIONS": str(FOUR)}
    words = ["pause", ORGANIZATIONS[0], "--yes"]
    paused = await asyncio.to_thread(CliRunner().invoke, main, words, env=env)
    assert paused.exit_code == 2
    assert "it is on its way to another partition (see: partitions move)\n" in paused.stderr


async def test_an_event_is_found_in_whichever_it_is(house: House) -> None:
    await house.shop.bury(2, "dead_2")
    jobs = [(await house.shop.wait(number, f"evt_{number}"))[0] for number in range(FOUR)]
    for number, job in enumerate(jobs):
        for text in (job, job.partition("}")[2]):
            found = await house.site.get(f"/events?q={text}")
            assert job in found.text, (number, text)
    assert "no such order" in (await house.site.get("/events?q=dead_2")).text
    assert "Nothing is known" in (await house.site.get("/events?q=evt_9")).text


async def test_a_primary_that_is_away_is_told_on_every_page(house: House) -> None:
    for number in range(FOUR):
        await house.shop.bury(number, f"dead_{number}")
    await looked(house.site, "dead_1", "/dead-letters")
    house.servers[1].stop()
    said = "Partitions 1, 3 of 4 can&#39;t be read: no connection to Redis: connection refused."
    for path in ("/", "/dead-letters", "/events", "/organizations", "/events?q=dead_0"):
        assert said in await looked(house.site, said, path)
    shown = (await house.site.get("/dead-letters")).text
    assert [name in shown for name in ("dead_0", "dead_1", "dead_2", "dead_3")] == [
        *(True, False, True, False)
    ]
    assert (await house.site.get("/readyz")).status == 200
    house.servers[1].start()


async def took(site: Site, path: str) -> float:
    """Seconds until a page is there that shows what is in the other primary."""
    began = monotonic()
    assert ORGANIZATIONS[0] in (await site.get(path)).text
    return monotonic() - began


async def test_what_may_be_in_a_partition_that_is_away_is_not_called_gone(house: House) -> None:
    await house.shop.wait(0, "evt_0")
    house.servers[1].kill()
    untagged = f"org_a:{'0' * 32}"  # as a stock producer's: it may be in any of them
    page = "/dead-letters/confirm"
    asked = await house.site.get(f"{page}?verb=discard&all=1")
    one = {"verb": "discard", "job": untagged, "form_token": asked.fields["form_token"]}
    for found in (
        await house.site.get(f"{page}?verb=discard&job={untagged}"),
        await house.site.post(page, one),
    ):
        assert (found.status, "Nothing was changed" in found.text) == (503, True)
    assert (
        "It may be where Redis can&#39;t be read just now"
        in (await house.site.get(f"/event?job={untagged}")).text
    )
    searched = (await house.site.get("/events?q=evt_9")).text
    assert "Where Redis can be read, looked at the only waiting event in" in searched


async def test_nobody_waits_for_a_primary_that_is_frozen(house: House) -> None:
    await house.shop.bury(0, "dead_0")
    await house.shop.wait(0, "evt_0")
    os.kill(house.servers[1].pid, signal.SIGSTOP)
    await looked(house.site, "can&#39;t be read: Redis did not answer in time")
    for path in ("/dead-letters", "/events", "/organizations"):
        async with asyncio.timeout(60):
            # Whoever waited for it would never take less; on a busy machine one may take more.
            while await took(house.site, path) >= TIMEOUT:
                pass
    os.kill(house.servers[1].pid, signal.SIGCONT)


async def test_one_dead_letter_is_replayed_where_it_is(house: House) -> None:
    await house.shop.bury(3, "dead_3")
    (link,) = re.findall(r"/event\?job=[^\"]+", (await house.site.get("/dead-letters")).text)
    job = link.partition("job=")[2]
    done = await house.site.confirm(f"/dead-letters/confirm?verb=replay&job={job}")
    assert "did=queued" in done.path
    await house.shop.work(3)


@pytest.mark.parametrize("verb", ["replay", "discard"])
async def test_what_a_page_from_before_a_move_names_is_acted_on_where_it_lives_now(
    house: House, verb: str
) -> None:
    for number in range(4):
        await house.shop.bury(0, f"dead_{number}")
    listed = (await house.site.get("/dead-letters")).text
    one, two, three, _ = re.findall(r'name="job" value="([^"]+)"', listed)
    asked = await house.site.get(f"{CONFIRM}?verb={verb}&job={one}")
    partitions = house.shop.partitions
    await Move(partitions, ORGANIZATIONS[0], partitions.all[2]).run()
    done = await house.site.post(CONFIRM, asked.fields)
    assert f"did={'queued' if verb == 'replay' else 'discarded'}" in done.path
    chosen = f"job={two}&job={three}"
    asked = await house.site.get(f"{CONFIRM}?verb={verb}&{chosen}")
    assert f"{verb.capitalize()} 2 dead letters?" in asked.text
    fields = [*asked.fields.items(), ("job", two), ("job", three)]
    url, headers = f"{house.site.origin}{CONFIRM}", {"Origin": house.site.origin}
    async with house.site.session.post(url, data=fields, headers=headers) as response:
        shown = await looked(house.site, "finished", response.url.path)
    assert "2 of 2 looked at" in shown


async def test_an_organization_is_paused_where_it_lives(house: House) -> None:
    name = ORGANIZATIONS[2]
    await house.shop.wait(2, "evt_1")
    done = await house.site.confirm(f"/organizations/{name}/pause")
    assert done.status == 200
    partition = house.shop.partitions.all[2]
    assert await partition.redis.hexists(partition.names.organizations, f"pause:{name}")


async def test_a_run_replays_what_is_in_all_of_them(house: House) -> None:
    for number in range(FOUR):
        await house.shop.bury(number, f"dead_{number}")
    done = await house.site.confirm("/dead-letters/confirm?verb=replay&all=1")
    assert "4" in await looked(house.site, "finished", done.path)
    for number in range(FOUR):
        assert len(await house.shop.places[number].claim(5)) == 1


async def test_a_run_tells_which_partitions_it_has_left_out(house: House) -> None:
    for number in range(FOUR):
        await house.shop.bury(number, f"dead_{number}")
    house.servers[0].stop()
    done = await house.site.confirm("/dead-letters/confirm?verb=discard&all=1")
    shown = await looked(house.site, ">Go on<", done.path)
    assert "partitions 0, 2 of 4 can&#39;t be" in shown


async def test_pages_go_over_all_of_them_by_the_time_of_death(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "SIZE", 3)
    partitions = house.shop.partitions
    for which, number in enumerate((3, 1, 0, 2, 3, 1, 0)):
        await house.shop.bury(number, f"dead_{which}")
    seen: list[str] = []
    after: Place | None = None
    while True:
        page = await read_page(Reach(partitions), Filter(), after)
        seen += [each.event_id for each in page.letters]
        if page.after is None:
            break
        after = Place.read(page.after.written())
        if len(seen) == 3:  # who dies meanwhile is before all of that
            await house.shop.bury(2, "late")
    assert seen == [f"dead_{which}" for which in reversed(range(7))]


async def test_a_console_of_another_number_of_partitions_says_so(redis: Redis) -> None:
    assert await check_layout(over(redis)) == []
    async with browsing(redis) as site:
        shown = await looked(site, "Redis has another number of partitions")
        assert "expected 4, as many as this Redis was begun with, got 1" in shown
        assert (await site.get("/readyz")).status == 503
