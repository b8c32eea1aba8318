"""Facts about pages of dead letters."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.integration.console.letters import bury
from tests.integration.console.site import Site, least
from tests.integration.jobs import reach
from worker.operate.console import paging
from worker.operate.console.paging import SIZE, Place, read_page
from worker.operate.dead_lists import Filter, number_of

MANY = 100_000


async def walked(redis: Redis, wanted: Filter) -> list[str]:
    """The jobs of all pages, in the order in which they are shown."""
    shown: list[str] = []
    after = None
    while True:
        page = await read_page(reach(redis), wanted, after)
        shown += [letter.job for letter in page.letters]
        assert len(set(shown)) == len(shown), "shown again"
        if page.after is None:
            return shown
        after = Place.read(page.after.written())
        assert after == page.after


async def expected(redis: Redis) -> list[str]:
    """All jobs, the newest first."""
    places = []
    for organization in await redis.hkeys(keys.BURIED):
        name = organization.decode()
        for job, died_at in await redis.zrange(keys.dead(name), 0, -1, withscores=True):
            places.append(Place(int(died_at), job))
    return [place.job.decode() for place in sorted(places, reverse=True)]


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    step=st.sampled_from([0, 0.05, 1, 1000]),
)
def test_pages_show_every_dead_letter_once_and_in_order(
    redis_server: EmbeddedRedis, sizes: list[int], step: float
) -> None:
    import asyncio  # noqa: PLC0415  # hypothesis runs plain functions only

    async def walk() -> None:
        async with Redis.from_url(redis_server.url) as redis:
            await redis.flushall()
            for number, size in enumerate(sizes):
                await bury(redis, f"org_{number}", size, step=step)
            assert await walked(redis, Filter()) == await expected(redis)

    asyncio.run(walk())


@pytest.mark.parametrize("step", [0, 1])
async def test_a_page_begins_where_the_last_one_ended_though_that_one_is_gone(
    redis: Redis, step: int
) -> None:
    jobs = await bury(redis, "org_a", 120, step=step)
    first = await read_page(reach(redis), Filter(organization="org_a"), None)
    assert [letter.job for letter in first.letters] == jobs[: -SIZE - 1 : -1]
    assert first.after is not None
    for job in (jobs[-SIZE], jobs[-SIZE + 1]):  # the last one shown, and one before
        await redis.zrem(keys.dead("org_a"), job)
        await redis.delete(keys.dead_letter(job))
    second = await read_page(reach(redis), Filter(organization="org_a"), first.after)
    assert [letter.job for letter in second.letters] == jobs[-SIZE - 1 : -2 * SIZE - 1 : -1]


async def test_a_page_begins_where_the_last_one_ended_though_that_one_has_died_again(
    redis: Redis,
) -> None:
    jobs = await bury(redis, "org_a", 120)
    first = await read_page(reach(redis), Filter(), None)
    await redis.zadd(keys.dead("org_a"), {jobs[-SIZE]: 1_800_000_000_000})
    second = await read_page(reach(redis), Filter(), first.after)
    assert [letter.job for letter in second.letters] == jobs[-SIZE - 1 : -2 * SIZE - 1 : -1]


async def test_what_dies_and_goes_while_a_page_is_read_neither_repeats_nor_hides_others(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an incident, where some die each moment, and somebody discards others."""
    jobs = await bury(redis, "org_a", 120)
    newer, shown = (f"org_a:{number:032x}" for number in itertools.count(1000)), jobs[-SIZE:]
    execute = Pipeline.execute

    async def meanwhile(pipe: Pipeline, *words: Any, **options: Any) -> Any:
        for _ in range(2):
            await redis.zadd(keys.dead("org_a"), {next(newer): 1_800_000_000_000})
        if shown:
            await redis.zrem(keys.dead("org_a"), shown.pop())
        return await execute(pipe, *words, **options)

    for only_deaths in (True, False):
        shown = [] if only_deaths else jobs[-SIZE:]
        first = await read_page(reach(redis), Filter(died_before=1_700_000_009_999), None)
        with monkeypatch.context() as patched:
            patched.setattr(Pipeline, "execute", meanwhile)
            second = await read_page(reach(redis), Filter(), first.after)
        assert [letter.job for letter in second.letters] == jobs[-SIZE - 1 : -2 * SIZE - 1 : -1]


async def test_those_that_died_in_a_time_are_shown(redis: Redis) -> None:
    jobs = await bury(redis, "org_a", 100)
    wanted = Filter(died_after=1_700_000_000_011, died_before=1_700_000_000_091)
    assert await walked(redis, wanted) == jobs[10:90][::-1]
    assert await number_of(reach(redis), wanted) == 80


async def test_who_goes_on_where_all_have_become_too_old_does_not_begin_anew(redis: Redis) -> None:
    """As by the link of a page of those that died within the last hour, a while later."""
    await bury(redis, "org_a", 100)
    wanted = Filter(died_after=1_700_000_000_050)
    first = await read_page(reach(redis), wanted, None)
    assert len(first.letters) == SIZE
    behind = await read_page(reach(redis), wanted, Place(1_700_000_000_049, b"org_a:0"))
    assert (behind.letters, behind.after) == ([], None)


async def test_few_that_match_are_found_a_page_at_a_time(redis: Redis) -> None:
    await bury(redis, "org_a", 3500)
    page = await read_page(reach(redis), Filter(reason="crashed"), None)
    assert 0 < page.looked_at <= paging.MOST_LOOKED_AT
    assert not page.is_full
    assert await walked(redis, Filter(reason="crashed")) == [
        f"org_a:{number:032x}" for number in (3001, 2001, 1001, 1)
    ]
    assert await number_of(reach(redis), Filter(reason="crashed")) == 4


async def test_no_payload_is_read_for_a_list(redis: Redis) -> None:
    await bury(redis, "org_a", 3, payload=b"x" * 1_000_000)
    page = await read_page(reach(redis), Filter(), None)
    assert [letter.payload for letter in page.letters] == [b""] * 3


@pytest.mark.parametrize("text", ["", "x", "1", "1~", "~org:job", "1" * 16 + "~o:j", "²~o:j"])
def test_a_place_that_is_none_is_the_beginning(text: str) -> None:
    assert Place.read(text) is None


async def test_dead_letters_of_many_organizations_come_a_page_at_a_time_as_well(
    redis: Redis,
) -> None:
    for number in range(300):
        await bury(redis, f"org_{number:03}", 2, step=number)
    assert await walked(redis, Filter()) == await expected(redis)


async def test_a_hundred_thousand_dead_letters_page_within_200_ms(redis: Redis, site: Site) -> None:
    for number in range(4):
        await bury(redis, f"org_{number}", MANY // 4)
    last_but_some = Place(1_700_000_000_040, f"org_0:{40:032x}".encode()).written()
    paths = [
        "/dead-letters",
        f"/dead-letters?after={last_but_some}",
        "/dead-letters?organization=org_2",
        "/dead-letters?reason=crashed",
        "/dead-letters?organization=org_1&reason=crashed&type=order.updated",
        "/dead-letters?older=1h",
        "/",
        "/organizations",
    ]
    (older,) = (await site.get("/dead-letters")).links("/dead-letters?after=")
    for path in [*paths, older]:
        assert await least(site, redis, path) < 0.2, path
    assert "org_0" in (await site.get(paths[1])).text
