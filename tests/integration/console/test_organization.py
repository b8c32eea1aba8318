"""Facts about the page of one organization."""

import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.console.site import Site
from tests.integration.console.test_pages import looked
from tests.integration.workplace import DAY, POLICY, Workplace, body
from worker import Event, Handlers, Organization
from worker.at_work import AtWork, Doing
from worker.operate import organizations, waiting
from worker.pipeline.policy import Backoff
from worker.pipeline.transitions import Profile

ORG_A = "/organizations/org_a"


async def back_date(redis: Redis, seconds: float, *jobs: bytes) -> None:
    """Have these accepted so many seconds ago."""
    at = (time.time() - seconds) * 1000
    await redis.zadd(keys.ACCEPTED, {job: at + number for number, job in enumerate(jobs)})


async def test_what_waits_of_one_is_told_by_type_and_age(
    site: Site, place: Workplace, redis: Redis
) -> None:
    await place.accept(*(body(f"evt_{number}") for number in range(3)))
    old, *_ = await redis.zrange(keys.ACCEPTED, 0, -1)
    await back_date(redis, 2 * 3600, old)
    await place.accept(body("evt_paid", type="order.paid"), body("evt_large", data="x" * 9000))
    await place.accept(b"no event")
    await place.accept(body("evt_b", "org_b", type="order.of_b"), organization="org_b")
    text = await looked(site, "all 6", ORG_A)
    row = text.partition("order.updated</td>")[2].partition("</tr>")[0]
    for shown in ('"Events">3<', '"&lt; 1 min">2<', '"&lt; 1 day">1<', "2h ago"):
        assert shown in row, shown
    assert quote(old.decode(), safe="") in row
    assert "order.paid" in text
    assert "order.of_b" not in text
    assert '"Events">2<' in text.partition("not known: larger than 8 KiB, or no event")[2]


async def test_a_slot_that_is_kept_for_a_retry_in_order_is_told_so(
    site: Site, redis: Redis
) -> None:
    handlers = Handlers()

    @handlers.on("order.*")
    async def act(event: Event[Any], organization: Organization) -> None:
        raise KeyError("as told")

    later = replace(POLICY, backoff=Backoff(base=DAY, cap=DAY))
    place = Workplace(redis, handlers, later)
    await place.transitions.publish([Profile("org_a", 1, 1.0)])
    await place.handle(body("evt_1"))
    text = await looked(site, "failing", ORG_A)
    running = text.partition("<dt>Running</dt>")[2].partition("</dd>")[0]
    assert "1 <span" in running
    assert "no handler: an event keeps the only slot until its next attempt" in running
    await place.transitions.publish([Profile("org_a", 2, 1.0)])
    assert "no handler" not in await looked(site, "2 at once", ORG_A)


async def test_of_very_many_that_wait_some_are_looked_at_and_the_page_says_of_how_many(
    redis: Redis, place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, number in (("org_a", 40), ("org_b", 200)):
        bodies = (body(f"evt_{each}", name) for each in range(number))
        await place.accept(*bodies, organization=name)
    partition = Partition.only(redis)
    for name, most in (("MOST", 30), ("_FIRST", 5), ("_AT_ONCE", 50)):
        monkeypatch.setattr(waiting, name, most)
    found = await waiting.look(partition, "org_a", time.time())
    assert (found.number, found.looked_at) == (40, 30)
    assert found.sentence == "30 of 40 were looked at, the oldest among them"
    assert [each.number for each in found.types] == [30]
    # However many wait of others, there is an end.
    monkeypatch.setattr(waiting, "_SCANS", 1)
    found = await waiting.look(partition, "org_b", time.time())
    assert found.number == 200
    assert 0 < found.looked_at <= 30
    monkeypatch.setattr(waiting, "_SCANS", 0)
    found = await waiting.look(partition, "org_b", time.time())
    assert (found.number, found.looked_at) == (200, 0)
    assert (await waiting.look(partition, "org_c", time.time())).number == 0
    # Behind a crowd of others there may be an older one, among what isn't looked at.
    monkeypatch.setattr(waiting, "_SCANS", 4)
    first, *every = await redis.zrange(keys.ACCEPTED, 0, -1)
    await back_date(redis, 60, *(job for job in every if job.startswith(b"org_b:")))
    found = await waiting.look(partition, "org_a", time.time())
    assert found.sentence == "30 of 40 were looked at, and an older one may wait"
    await back_date(redis, 120, first)
    assert (await waiting.look(partition, "org_a", time.time())).has_oldest


async def test_one_shows_why_its_events_wait_since_when_and_what_it_died_of(
    site: Site, place: Workplace, redis: Redis
) -> None:
    for number in range(12):
        await place.handle(body(f"evt_{number}", type="order.exploded"))
    await place.handle(body("evt_late", data={"order_id": "bad"}))
    named = ("org_a:1", time.time() - 90, "shop.act", "org_a", "evt_now", "order.paid")
    doing = [Doing(*named), Doing(*named[:3], "org_b", "evt_of_b")]
    await place.transitions.renew("w-42", [], description=b"{}", slots=8, lease=30)
    await place.transitions.show("w-42", msgspec.json.encode(AtWork(time.time(), doing)))
    await organizations.pause(place.partition, "org_a", "the ERP is down", "Ada")
    await looked(site, "w-42", "/workers")
    text = await looked(site, "the ERP is down, by Ada", ORG_A)
    for shown in ("as told", "came to nothing", "none while it is paused", "evt_now", "shop.act"):
        assert shown in text, shown
    assert "evt_of_b" not in text
    assert f'href="{ORG_A}/resume"' in text
    assert f'href="{ORG_A}/pause"' not in text
    (group,) = (await site.get(ORG_A)).links("/dead-letters/group?")
    assert "12 dead letters of this" in (await site.get(group)).text
    page = await site.get(ORG_A)
    (every,) = page.links("/dead-letters/confirm?")
    assert (page.fields["limit"], page.fields["organization"]) == ("5", "org_a")
    assert "Replay" in (await site.get(every)).text


async def test_one_is_resumed_at_a_rate_and_told_where_that_is_none(
    site: Site, place: Workplace, redis: Redis
) -> None:
    await organizations.pause(place.partition, "org_a", "why")
    await place.accept(body("evt_1"), body("evt_2"))
    assert await place.claim(2) == []
    await looked(site, "why", ORG_A)
    refused = await site.confirm(f"{ORG_A}/resume", rate="fast")
    assert refused.status == 400
    assert "Rate: expected " in refused.text
    assert 'value="fast"' in refused.text
    done = await site.confirm(f"{ORG_A}/resume", rate="5/s")
    assert done.path == f"{ORG_A}?did=resume"
    assert "org_a goes on" in done.text
    assert "at 5/s" in (await site.get("/actions")).text
    assert await redis.hget(keys.RATES, "ramp:org_a") is not None


async def test_what_somebody_has_done_is_said_while_it_is_so(
    site: Site, place: Workplace, redis: Redis
) -> None:
    await place.accept(body("evt_1"))
    await looked(site, "flowing", ORG_A)
    paused = await site.confirm(f"{ORG_A}/pause", why="maintenance")
    assert "org_a is paused: its events wait" in paused.text
    await organizations.resume(place.partition, "org_a")
    text = await looked(site, "flowing", paused.path)  # the page that refreshes itself
    assert "org_a is paused" not in text
    assert "org_a goes on" in (await site.get(f"{ORG_A}?did=resume")).text
    await organizations.pause(place.partition, "org_a", "again")
    assert "org_a goes on" not in await looked(site, "again", f"{ORG_A}?did=resume")


async def test_each_page_leads_to_that_of_the_organization(
    site: Site, place: Workplace, redis: Redis
) -> None:
    await place.handle(body("evt_dead", type="order.exploded"))
    await place.accept(body("evt_1"))
    await organizations.pause(place.partition, "org_a", "why")
    await looked(site, "org_a is paused")
    (group,) = (await site.get("/dead-letters/groups")).links("/dead-letters/group?")
    (job,) = await redis.zrange(keys.dead("org_a"), 0, -1)
    dead = f"/event?job={job.decode()}"
    letters = ("/dead-letters?organization=org_a", "/dead-letters/groups?organization=org_a")
    pages = ("/", "/organizations", "/events", *letters, dead, group)
    for path in pages:
        assert ORG_A in (await site.get(path)).links(ORG_A), path


async def test_what_somebodys_hand_has_left_of_one_is_shown_as_far_as_it_can_be_read(
    site: Site, place: Workplace, redis: Redis
) -> None:
    await place.accept(body("evt_1"))
    said = {"org_a": "many:heavy", "breaker:org_a": "open:soon", "hold:org_a": "soon:429"}
    await redis.hset(keys.ORGANIZATIONS, mapping=said | {"trouble:org_a": "x"})
    await redis.hset(keys.RATES, "org_a", "fast:1")
    text = await looked(site, "tries one in 0 ms", ORG_A)
    assert "<dd>default</dd>" in text  # its cap
    assert "<dt>Rate</dt><dd>none" in text
    (job,) = await redis.zrange(keys.ACCEPTED, 0, -1)
    assert "evt_1" in (await site.get(f"/event?job={job.decode()}")).text


async def test_of_a_name_that_nobody_knows_the_page_says_so(site: Site, redis: Redis) -> None:
    await looked(site, "All is well")
    text = (await site.get("/organizations/org_nobody")).text
    assert "Nobody knows org_nobody" in text
    assert "Nothing of it waits" in text
    for odd in ("a:b", "%3F", "x" * 65, "%00"):
        assert (await site.get(f"/organizations/{odd}")).status == 404
