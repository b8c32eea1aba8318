"""Facts about failure groups in the console: one is found, sampled, replayed and discarded."""

from urllib.parse import urlencode

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.console.letters import bury
from tests.integration.console.site import TOKEN, Site, browsing, least
from tests.integration.console.test_dead_letters import CONFIRM, ended
from tests.integration.console.test_pages import looked
from tests.integration.jobs import reach
from tests.integration.workplace import Lines, Workplace, body
from worker.operate.console import runs
from worker.operate.console.pages import dead_letters
from worker.operate.dead_lists import Filter
from worker.operate.failure_groups import FailureGroup, largest
from worker.operate.relisting import relist

GROUPS = "/dead-letters/groups"
GROUP = "/dead-letters/group"
UNAVAILABLE = f"{keys.DEAD_GROUPS}unavailable_event"


async def several_dead(place: Workplace, number: int, **changes: str) -> str:
    """Letters of one cause, and one of another; the id of the first group."""
    for each in range(number):
        data = {"order_id": f"ord_{each}"}
        await place.handle(body(f"evt_{each}", type="order.exploded", data=data, **changes))
    await place.handle(body("evt_other", type="order.melted"))
    groups, _ = await largest(reach(place.redis), Filter(), 10)
    assert [group.number for group in groups] == [number, 1]
    return groups[0].id


async def test_the_largest_group_comes_first_and_says_how_many_of_what(
    site: Site, place: Workplace
) -> None:
    group = await several_dead(place, 7)
    listed = await site.get(GROUPS)
    assert "2</span>" in listed.text
    first, other = listed.links(f"{GROUP}?")
    assert first == f"{GROUP}?id={group.replace(':', '%3A')}"
    opened = await site.get(first)
    for text in ("7 dead letters of this", "order.exploded", "evt_6", "Replay all 7", "See all 7"):
        assert text in opened.text, text
    assert "1 dead letter of this" in (await site.get(other)).text
    (seen,) = opened.links("/dead-letters?")
    assert (await site.get(seen)).text.count('name="job"') == 7
    # And from one of them back to all of its cause.
    (event,) = opened.links("/event?")
    assert "one of 7 that died of this" in (await site.get(event)).text
    assert first in (await site.get(event)).links(GROUP)


async def test_a_sample_is_replayed_and_its_fate_is_shown_before_all_are(
    site: Site, place: Workplace, redis: Redis
) -> None:
    group = await several_dead(place, 8)
    opened = await site.get(f"{GROUP}?id={group}")
    everything, discard = opened.links(CONFIRM)
    assert "Died of" in (await site.get(everything)).text
    # A sample asks nothing more: its form is on the page. Pressed twice it is one.
    assert (opened.fields["limit"], opened.fields["group"]) == ("5", group)
    begun = await site.post(CONFIRM, opened.fields)
    assert (await site.post(CONFIRM, opened.fields)).path == begun.path
    run = await ended(site, begun)
    assert "5 replayed" in run.text
    assert run.links(GROUP) == [f"{GROUP}?{urlencode({'id': group})}"]
    shown = await looked(site, "waiting still", f"{GROUP}?id={group}")
    assert f'href="{run.path}"' in shown
    for claim, payload in await place.claim(10):
        await place.run(claim, payload)
    again = await site.get(f"{GROUP}?id={group}")
    assert "8 dead letters of this" in again.text
    assert "Replay 8 dead letters?" in (await site.get(everything)).text
    assert "Discard 8 dead letters?" in (await site.get(discard)).text
    await ended(site, await site.confirm(discard))
    gone = await site.get(f"{GROUP}?id={group}")
    assert gone.status == 404
    assert "None left" in gone.text
    assert await redis.zcard(UNAVAILABLE) == 1


async def test_an_old_page_s_button_means_what_is_there_now(
    site: Site, place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a tab that stays open while its form went into another one, and a bug is mended."""
    group = await several_dead(place, 20)
    opened = await site.get(f"{GROUP}?id={group}")
    begun = await ended(site, await site.post(CONFIRM, opened.fields))
    assert (await site.post(CONFIRM, opened.fields)).path == begun.path
    monkeypatch.setattr(dead_letters, "_PRESSED_TWICE", 0.0)
    another = await site.post(CONFIRM, opened.fields)
    assert another.path == f"{begun.path}-2"
    assert (await site.post(CONFIRM, opened.fields)).path == another.path
    await ended(site, another)
    assert (await site.post(CONFIRM, opened.fields)).path == f"{begun.path}-3"


async def test_a_second_press_leads_to_its_run_where_no_more_may_begin(
    site: Site, place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "AT_ONCE", 1)
    group = await several_dead(place, 8)
    fields = (await site.get(f"{GROUP}?id={group}")).fields | {"rate": "1"}
    begun = await site.post(CONFIRM, fields)
    assert (await site.post(CONFIRM, fields)).path == begun.path
    another = await site.post(CONFIRM, fields | {"run": "another_one"})
    assert (another.status, "runs go on already" in another.text) == (409, True)
    await site.post(f"{begun.path}/stop", begun.fields)


@pytest.mark.parametrize(
    ("error", "title"),
    [("TimeoutError:", "TimeoutError"), ("ValueError: no: ", "ValueError: no"), ("", "rejected")],
)
def test_a_group_of_an_error_that_says_nothing_is_named_by_its_class(
    error: str, title: str
) -> None:
    group = FailureGroup("org_a:0", "org_a", "rejected", "", error, "", 1, 0, 0, "org_a:x")
    assert group.title == title


async def test_filters_are_kept_from_page_to_page(site: Site, place: Workplace) -> None:
    group = await several_dead(place, 3)
    filters = "organization=org_a&reason=unavailable_event&type=order.exploded"
    listed = await site.get(f"{GROUPS}?{filters}")
    (opened,) = listed.links(f"{GROUP}?")
    assert opened.endswith(f"&{filters}")
    assert f"{GROUPS}?{filters}" in (await site.get(opened)).links(GROUPS)
    assert f"/dead-letters?{filters}" in listed.links("/dead-letters?")
    letters = await site.get(f"/dead-letters?{filters}&younger=2h&group={group}")
    assert f"{GROUPS}?{filters}" in letters.links(GROUPS)
    assert letters.fields["group"] == group
    kept = f"group={group.replace(':', '%3A')}&younger=2h"
    (everything,) = letters.links(f"{CONFIRM}?verb=replay")
    assert kept in everything
    assert f"/dead-letters?{filters}&{kept}" in letters.links("/dead-letters?")
    assert f"/dead-letters?{filters}&younger=2h" in letters.links("/dead-letters?")  # of anything
    assert "Replay 3 dead letters?" in (await site.get(letters.links(CONFIRM)[0])).text


async def test_the_number_of_all_that_match_is_named_whatever_the_filter_is(
    site: Site, place: Workplace, redis: Redis
) -> None:
    await several_dead(place, 4)
    await bury(redis, "org_b", 20, step=0)  # as an earlier version has
    for filters, number in (
        ("reason=unavailable_event", 5),
        ("type=order.exploded", 4),
        ("reason=exhausted&type=order.updated&organization=org_b", 19),
    ):
        for verb in ("Replay", "Discard"):
            asked = await site.get(f"{CONFIRM}?verb={verb.lower()}&all=1&{filters}")
            assert f"{verb} {number} dead letters?" in asked.text
    listed = await site.get(GROUPS)
    assert "20 dead letters of an earlier version are in no group yet" in listed.text
    await relist(Partition.only(redis), log=Lines().log)
    listed = await site.get(GROUPS)
    assert "in no group yet" not in listed.text
    assert "KeyError: *" in listed.text
    assert (
        '<span class="muted">5 match'
        in (await site.get("/dead-letters?reason=unavailable_event")).text
    )


@pytest.mark.parametrize("group", ["", "x", "org_a:", "org_a:0123456789ab", "../x:0123456789ab"])
async def test_a_group_that_is_none_is_not_found(site: Site, group: str) -> None:
    assert (await site.get(f"{GROUP}?id={group}")).status == 404
    if group and not group.startswith("org_a:0"):
        shown = await site.get(f"/dead-letters?group={group}")
        assert "Group: expected the id of one" in shown.text
        assert (await site.get(f"{CONFIRM}?verb=discard&all=1&group={group}")).status == 400


async def test_what_nobody_knows_is_doubted(site: Site) -> None:
    assert "Nobody knows org_x" in (await site.get(f"{GROUPS}?organization=org_x")).text
    assert "expected one of" in (await site.get(f"{GROUPS}?reason=x")).text
    assert "No failure groups" in (await site.get(GROUPS)).text
    assert "No group matches" in (await site.get(f"{GROUPS}?reason=stale")).text


async def test_who_may_only_look_sees_groups_and_is_offered_nothing(
    place: Workplace, redis: Redis
) -> None:
    group = await several_dead(place, 6)
    read_token = f"{TOKEN} to read"
    async with browsing(redis, CONSOLE_TOKEN=TOKEN, CONSOLE_READ_TOKEN=read_token) as site:
        assert (await site.get(GROUPS)).path.startswith("/login")
        assert (await site.get(f"{GROUP}?id={group}")).path.startswith("/login")
        opened = await site.post("/login", {"name": "Ada", "token": read_token})
        for path in (GROUPS, f"{GROUP}?id={group}"):
            shown = await site.get(path)
            assert shown.status == 200
            assert "/confirm" not in shown.text
        form = {**opened.fields, "verb": "discard", "all": "1", "group": group}
        assert (await site.post(CONFIRM, form)).status == 403
    assert await redis.zscore(UNAVAILABLE, group) == 6


async def test_a_discard_of_a_group_without_its_token_is_refused(
    site: Site, place: Workplace, redis: Redis
) -> None:
    group = await several_dead(place, 6)
    asked = await site.get(f"{CONFIRM}?verb=discard&all=1&group={group}")
    for changes, headers in (
        ({"form_token": ""}, {}),
        ({}, {"Origin": "http://evil.example"}),
        ({}, {"Sec-Fetch-Site": "cross-site"}),
    ):
        assert (await site.post(CONFIRM, {**asked.fields, **changes}, **headers)).status == 403
    assert (await site.get(GROUPS, Host=f"evil.example:{site.port}")).status == 403
    assert (await site.post(GROUPS, asked.fields)).status == 405
    headers_of = (await site.get(f"{GROUP}?id={group}")).headers
    assert "default-src 'none'" in headers_of["Content-Security-Policy"]
    assert headers_of["X-Frame-Options"] == "DENY"
    assert await redis.zscore(UNAVAILABLE, group) == 6


async def test_a_job_of_no_organization_is_in_a_group_as_well(site: Site, redis: Redis) -> None:
    record = {"organization": "?", "reason": "undecodable", "error": "no payload", "died_at": "7"}
    await redis.hset(keys.dead_letter("a-stock-producers"), mapping={**record, "event_id": ""})
    await redis.zadd(keys.dead("?"), {"a-stock-producers": 7})
    await redis.hset(keys.BURIED, "?", "1")
    await relist(Partition.only(redis), log=Lines().log)
    (link,) = (await site.get(f"{GROUPS}?organization=%3F")).links(f"{GROUP}?")
    assert "1 dead letter of this" in (await site.get(link)).text


async def test_of_a_hundred_thousand_letters_of_ten_thousand_organizations_each_page_is_quick(
    redis: Redis, site: Site
) -> None:
    for number in range(2_000):
        await bury(redis, f"org_{number:05}", 10)
    await bury(redis, "org_large", 20_000)
    await relist(Partition.only(redis), log=Lines().log)
    groups, _ = await largest(reach(redis), Filter(), 1)
    paths = [
        "/dead-letters",
        "/dead-letters?reason=crashed",
        "/dead-letters?type=order.updated&reason=exhausted",
        "/dead-letters?organization=org_large&reason=crashed",
        f"/dead-letters?group={groups[0].id}",
        GROUPS,
        f"{GROUPS}?reason=crashed",
        f"{GROUPS}?organization=org_large",
        f"{GROUP}?id={groups[0].id}",
    ]
    (older,) = (await site.get(paths[1])).links("/dead-letters?after=")
    for path in [*paths, older]:
        assert await least(site, redis, path) < 0.2, path
    assert "2,020 match" in (await site.get(paths[1])).text
