"""Facts about finding an event."""

import time
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.console.site import Site
from tests.integration.jobs import reach
from tests.integration.shop import WORKER, EndingShop
from tests.integration.test_told import NOW, live
from tests.integration.workplace import Workplace, body
from worker.operate import lookup, organizations
from worker.operate.console import views
from worker.pipeline.transitions import Profile, Settlement


async def state_of(redis: Redis, job: str) -> str:
    found = await lookup.find(Partition.only(redis), job)
    assert found is not None
    return found.state


async def test_a_waiting_event_is_found_by_its_job(place: Workplace, redis: Redis) -> None:
    (first,) = await place.accept(body("evt_1"), received_at=1000)
    (second,) = await place.accept(body("evt_2"), received_at=2000)
    found = await lookup.find(Partition.only(redis), second)
    assert found is not None
    assert found.state == "ready"
    assert found.place.ahead == 1
    assert found.event_id == "evt_2"
    assert found.type == "order.updated"
    assert found.endpoint == "acme"
    assert found.mark is None
    assert [each.job for each in await lookup.oldest(reach(redis))] == [first, second]


async def test_a_claimed_event_is_running(place: Workplace, redis: Redis) -> None:
    (job,) = await place.accept(body())
    await place.claim()
    assert await state_of(redis, job) == "running"


async def test_a_failed_event_waits_for_its_next_attempt(place: Workplace, redis: Redis) -> None:
    await place.handle(body("evt_1", data={"order_id": "bad"}))
    (found,) = await lookup.search(Partition.only(redis), "evt_1", ["org_a", "org_b"])
    assert found.state == "deferred"
    assert found.claim.attempts == 1
    assert found.due_at is not None
    assert found.mark is not None
    assert found.mark.state == "pending"
    assert found.past.last is not None
    assert (found.past.last.number, found.past.last.said) == (1, "KeyError: 'as told'")


async def test_an_event_that_retries_in_order_is_not_running(
    place: Workplace, redis: Redis
) -> None:
    await place.transitions.publish([Profile("org_a", 1, 1.0)])
    await place.handle(body("evt_1", data={"order_id": "bad"}))
    (found,) = await lookup.search(Partition.only(redis), "evt_1", ["org_a"])
    assert found.state == "deferred"


async def test_an_event_that_has_blocked_a_worker_in_order_is_not_running(
    place: Workplace, redis: Redis
) -> None:
    await place.transitions.publish([Profile("org_a", 1, 1.0)])
    (job,) = await place.accept(body())
    ((claim, _),) = await place.claim()
    await place.transitions.settle([Settlement(claim, "retry", (60_000, None, True))])
    assert await state_of(redis, job) == "deferred"


async def test_an_event_of_a_paused_organization_is_parked(place: Workplace, redis: Redis) -> None:
    (job,) = await place.accept(body())
    await organizations.pause(Partition.only(redis), "org_a", "why")
    await place.claim()
    assert await state_of(redis, job) == "parked"


async def test_a_handled_event_is_found_by_its_id_while_its_mark_is_kept(
    place: Workplace, redis: Redis
) -> None:
    await place.handle(body("evt_1"))
    (found,) = await lookup.search(
        Partition.only(redis),
        "evt_1",
        await lookup.organizations_of(Partition.only(redis)) or ["org_a"],
    )
    assert found.state == "finished"
    assert found.mark is not None
    assert found.mark.expires_at is not None


async def test_a_dead_event_is_found_by_either_id(place: Workplace, redis: Redis) -> None:
    await place.handle(body("evt_1", type="order.exploded"))
    (by_id,) = await lookup.search(Partition.only(redis), "evt_1", ["org_a"])
    (by_job,) = await lookup.search(Partition.only(redis), by_id.job, [])
    assert replace(by_id, place=by_job.place) == by_job  # at another moment
    assert by_id.state == "dead"
    assert by_id.letter is not None
    assert by_id.letter.reason == "unavailable_event"
    assert by_id.body == by_id.letter.body


async def test_one_id_in_two_organizations_is_two_events(
    site: Site, place: Workplace, redis: Redis
) -> None:
    for organization in ("org_a", "org_b"):
        await place.transitions.publish([Profile(organization)])
        await place.handle(body("evt_1", organization), organization=organization)
    answer = await site.get("/events?q=evt_1")
    assert "2 organizations have an event of this id" in answer.text


async def test_a_payload_without_a_place_and_a_mark_without_a_job_are_told(
    place: Workplace, redis: Redis
) -> None:
    (job,) = await place.accept(body("evt_1"))
    await redis.zrem(keys.QUEUE, job)
    assert await state_of(redis, job) == "misplaced"
    await redis.set(keys.event("org_a", "evt_2"), "pending:org_a:gone")
    (found,) = await lookup.search(Partition.only(redis), "evt_2", ["org_a"])
    assert found.state == "pending"


async def test_a_foreign_job_is_found(place: Workplace, redis: Redis) -> None:
    for payload in (b"rubbish", b"\x80"):
        await redis.set(keys.payload("foreign"), payload)
        await redis.zadd(keys.QUEUE, {"foreign": 1})
        found = await lookup.find(Partition.only(redis), "foreign")
        assert found is not None
        assert found.organization == "?"
        assert found.body == payload


@pytest.mark.parametrize("text", ["evt_1", "org_a:x", "%ff", "%00", "*", "%F0%9F%92%A9"])
async def test_what_is_not_known_is_said(site: Site, text: str) -> None:
    answer = await site.get(f"/events?q={text}")
    assert answer.status == 200
    assert "Nothing is known of" in answer.text
    assert "(see:" not in answer.text  # which is a command's word


async def test_an_id_is_found_with_blanks_of_its_own_and_with_those_of_a_copy(
    site: Site, place: Workplace
) -> None:
    await place.accept(body(" evt_1 "), body("evt_2"))
    for typed in ("%20evt_1%20", "%20evt_2%0A"):
        assert "in line, " in (await site.get(f"/events?q={typed}")).text


async def test_a_single_hit_opens_the_event(site: Site, place: Workplace) -> None:
    (job,) = await place.accept(body("evt_1"))
    answer = await site.get(f"/events?q={job}")
    assert "in line, 0 ahead of it" in answer.text


async def test_the_list_of_what_waits_says_where_that_is_once(site: Site, place: Workplace) -> None:
    await place.accept(body("evt_1"))
    shown = (await site.get("/events")).text
    assert ">in line</span>" in shown
    assert '<span class="sub wrap">0 ahead of it' in shown


async def test_ages_of_an_event_are_by_redis_s_clock(
    site: Site, place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a console's that is ahead each event would have come hours ago."""
    (job,) = await place.accept(body("evt_1"))
    ahead = time.time() + 7200
    monkeypatch.setitem(views._environment.globals, "now", lambda: ahead)
    for path in ("/events", f"/events?q={job}"):
        shown = (await site.get(path)).text
        assert "evt_1" in shown
        assert "2h ago" not in shown


async def test_the_list_of_what_waits_says_of_what_the_last_attempt_failed(
    site: Site, place: Workplace
) -> None:
    await place.handle(body("evt_1", data={"order_id": "bad"}))
    shown = (await site.get("/events")).text
    assert "KeyError: &#39;as told&#39;" in shown
    assert "attempt 1, " in shown


async def test_the_page_of_a_handled_event_tells_its_failures_and_when_it_was_accepted(
    redis: Redis, site: Site
) -> None:
    await live(redis, WORKER, NOW)
    shop = EndingShop(redis)
    (job,) = await shop.place.accept(body("evt_1"))
    await shop.run(ConnectionError("503 <busy>"), None)
    page = (await site.get(f"/event?job={job}&id=evt_1")).text
    for text in (
        "Attempt 1 failed after",
        "ConnectionError: 503 &lt;busy&gt;",
        "Handled by attempt 2 after",
        "<dt>Accepted</dt>",
        "only the errors are kept once an event is finished",
    ):
        assert text in page
