"""Facts about whether an event is found that waits, and what is said where it isn't."""

import asyncio
import json

import pytest
from click.testing import CliRunner, Result
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.job import Delivery, job_id
from shared.queue.reach import Reach
from tests.integration.console.site import browsing
from tests.integration.jobs import reach
from tests.integration.several import FOUR, ORGANIZATIONS, Shop, over
from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization
from worker.cli import main
from worker.operate.searching import LIMITS, Limits, search_everywhere

PATIENT = Limits(seconds=60.0)
NEVER_CAME = "may never have come in"

_WAIT = """
local number, organizations, before, behind = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
for i = tonumber(ARGV[5]) + 1, math.min(number, ARGV[5] + 50000) do
  local organization = 'org_' .. i % organizations
  local job = string.format('%s:%032x', organization, i)
  redis.call('SET', 'arq:job:' .. job, before .. string.format('%06d', i) .. behind)
  redis.call('ZADD', 'sellfern:accepted', i, job)
  redis.call('ZADD', 'sellfern:queue', i, job)
  redis.call('HINCRBY', 'sellfern:waiting', organization, 1)
end
"""


async def crowd(redis: Redis, number: int, *, organizations: int = 33) -> None:
    """Let so many wait, ``evt_000001`` and so on, that nobody has accepted one by one."""
    signed = body("evt_012345", data={"note": "x" * 300})
    payload = jobs.encode(Delivery("acme", "org_0", 1_795_000_000_000, {}, signed))
    before, behind = payload.split(b"012345")
    for start in range(0, number, 50_000):
        told = (number, organizations, before, behind, start)
        await redis.execute_command("EVAL", _WAIT, 0, *told)


@pytest.fixture
def place(redis: Redis) -> Workplace:
    handlers = Handlers()

    @handlers.on("*")
    async def handled(_event: Event[object], _: Organization) -> None: ...

    return Workplace(redis, handlers)


async def test_one_of_a_hundred_thousand_that_wait_is_found(redis: Redis) -> None:
    await crowd(redis, 100_000)
    (found,) = (await search_everywhere(reach(redis), "evt_077777", limits=PATIENT)).found
    assert found.job == f"org_{77_777 % 33}:{77_777:032x}"
    missed = await search_everywhere(reach(redis), "evt_777777", limits=PATIENT)
    assert (missed.found, missed.is_whole) == ([], True)
    assert missed.looked_at >= 100_000
    told = await search_everywhere(reach(redis), "evt_777777", "org_7", PATIENT)
    assert 3030 <= told.looked_at <= 3031


async def typed(server: EmbeddedRedis, *words: str) -> Result:
    """Type the command."""
    env = {"REDIS_URL": server.url, "ENDPOINTS_FILE": "/nowhere"}
    return await asyncio.to_thread(CliRunner().invoke, main, ("events", "show", *words), env=env)


async def test_who_looks_at_a_part_says_so_and_not_that_it_never_came(
    redis: Redis, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crowd(redis, 3000)
    done = await typed(redis_server, "evt_003001")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "looked at all 3,000 waiting events in" in done.stderr
    assert NEVER_CAME in done.stderr
    for limits in (LIMITS._replace(events=1000), LIMITS._replace(bytes=200_000)):
        search = await search_everywhere(reach(redis), "evt_003001", limits=limits)
        assert not search.is_whole
        assert 500 <= search.looked_at < 2000
        assert "of 3,000 waiting events in" in search.sentence
    done = await typed(redis_server, "evt_003001", "--seconds", "0.1")
    is_part = "looked at all" not in done.stderr  # a fast machine looks at all of them
    assert (NEVER_CAME in done.stderr) is not is_part
    monkeypatch.setattr(search_everywhere, "__defaults__", (None, LIMITS._replace(events=1000)))
    async with browsing(redis) as site:
        for path in ("/events?q=evt_003001", "/events?q=evt_003001&organization=org_%3A"):
            assert NEVER_CAME not in (await site.get(path)).text
        assert "of 3,000 waiting events" in (await site.get("/events?q=evt_003001")).text
        whole = await site.get("/events?q=evt_003001&organization=org_1")
        assert "Looked at all 91 waiting events" in whole.text


async def test_what_was_not_asked_is_not_said(place: Workplace, redis: Redis) -> None:
    nothing = await search_everywhere(reach(redis), "evt_1", "org_a")
    assert nothing.sentence == "no event waits of this one, and no mark of 1 organization names it"
    await place.accept(body("evt_1"))
    job = await search_everywhere(reach(redis), job_id("org_a", b"nothing"))
    assert job.sentence == (
        "no event that waits or is dead has this job, and no mark of 1 organization names it"
    )


async def test_a_finished_job_is_not_said_to_have_never_come(
    place: Workplace, redis: Redis, redis_server: EmbeddedRedis
) -> None:
    await place.handle(body("evt_1"))
    (finished,) = (await search_everywhere(reach(redis), "evt_1")).found
    done = await typed(redis_server, finished.job)
    assert done.exit_code == 1
    assert NEVER_CAME not in done.stderr
    assert "found by the event's own id" in done.stderr
    async with browsing(redis) as site:
        shown = (await site.get(f"/events?q={finished.job}")).text
        assert NEVER_CAME not in shown
        assert "found by the event&#39;s own id" in shown
        assert "This job isn't found" in (await site.get(f"/event?job={finished.job}")).text


async def test_who_is_only_paused_counts_and_what_is_said_of_an_organization_is_none(
    redis: Redis,
) -> None:
    said = ("org_a", *(f"{what}:org_a" for what in ("pause", "breaker", "hold", "trouble")))
    await redis.hset(keys.ORGANIZATIONS, mapping=dict.fromkeys((*said, "pause:org_b"), "1:1"))
    await redis.hset(keys.BYTES, mapping={"org_a:marks": 7, "org_c:marks": 7})
    search = await search_everywhere(reach(redis), "evt_1")
    assert search.organizations == 3
    assert "no mark of 3 organizations names it" in search.sentence


async def test_an_event_is_shown_wherever_it_is(
    place: Workplace, redis: Redis, redis_server: EmbeddedRedis
) -> None:
    (job,) = await place.accept(body("evt_1"))
    waiting = await typed(redis_server, "evt_1")
    assert f"            job  {job}\n" in waiting.stdout
    assert "          where  in line, 0 ahead of it; no worker is alive\n" in waiting.stdout
    assert (await typed(redis_server, job)).stdout == waiting.stdout
    await place.handle_next()
    (handled,) = [json.loads((await typed(redis_server, "evt_1", "--json")).stdout)]
    assert (handled["state"], handled["mark"], handled["mark_job"]) == ("finished", "done", job)
    await place.handle(body("evt_2", type="order.exploded"))
    dead = await typed(redis_server, "evt_2", "--organization", "org_a", "--yes")
    assert "         reason  unavailable_event\n" in dead.stdout
    assert dead.exit_code == 0


async def test_what_only_mentions_an_id_is_another_event(place: Workplace, redis: Redis) -> None:
    await place.accept(body("evt_1", data={"follows": "evt_2"}), body("evt_2"))
    (found,) = (await search_everywhere(reach(redis), "evt_2")).found
    assert found.event_id == "evt_2"
    assert (await search_everywhere(reach(redis), "evt_")).found == []


async def test_an_id_is_found_however_its_json_is_written(place: Workplace, redis: Redis) -> None:
    signed = body("evt/ü").decode()
    assert '"evt/ü"' in signed
    for form in (r"evt/\u00fc", r"evt\/\u00FC", "evt/ü", r"evt\/ü", r"\u0065vt\u002f\u00Fc"):
        await redis.flushall()
        await place.accept(signed.replace("evt/ü", form).encode())
        (found,) = (await search_everywhere(reach(redis), "evt/ü")).found
        assert found.event_id == "evt/ü"


async def test_an_id_that_is_a_whole_number_is_found(place: Workplace, redis: Redis) -> None:
    for written, event_id in (("123", "123"), (" \n -7", "-7"), ("9" * 256, "9" * 256)):
        await redis.flushall()
        signed = body("evt_1").replace(b'"evt_1"', written.encode())
        large = body("evt_2", data={"note": "x" * 65_528}).replace(b'"evt_2"', written.encode())
        await place.accept(signed, body("evt_0", data={"order_id": int(event_id) % 1000}))
        (found,) = (await search_everywhere(reach(redis), event_id)).found
        assert found.event_id == event_id
        assert (await search_everywhere(reach(redis), event_id[:-1] or "1")).found == []
        await redis.flushall()
        await place.accept(large)
        assert (await search_everywhere(reach(redis), event_id)).found


async def test_one_that_waits_alone_is_said_to_be_the_only_one(
    place: Workplace, redis: Redis
) -> None:
    await place.accept(body("evt_1"))
    assert (
        "looked at the only waiting event in"
        in (await search_everywhere(reach(redis), "evt_2")).sentence
    )


async def test_large_bodies_are_looked_through_by_parts(place: Workplace, redis: Redis) -> None:
    """Wherever in them the id stands, across the end of a part as well."""
    empty = body("evt_0", data={"note": ""}).decode()
    for number in range(12):
        note = "x" * (65_500 + 8 * number)
        assert '"data"' in empty
        signed = json.dumps({"data": {"note": note}, **_but_data(empty, f"evt_{number}")})
        await place.accept(signed.encode())
    await redis.set(keys.payload("org_a:foreign"), "")
    await redis.zadd(keys.ACCEPTED, {"org_a:foreign": 1})
    await redis.lpush(keys.payload(job_id("org_a", b"a list")), "x")
    await redis.zadd(keys.ACCEPTED, {job_id("org_a", b"a list"): 2})
    for number in range(12):
        (found,) = (await search_everywhere(reach(redis), f"evt_{number}")).found
        assert found.event_id == f"evt_{number}"


def _but_data(signed: str, event_id: str) -> dict[str, object]:
    fields: dict[str, object] = json.loads(signed)
    return {name: value for name, value in fields.items() if name != "data"} | {"id": event_id}


async def test_what_waits_is_found_in_any_partition(redis: Redis) -> None:
    shop = Shop(over(redis))
    for number in range(FOUR):
        await shop.wait(number, f"evt_{number}")
    for number, organization in enumerate(ORGANIZATIONS):
        for whose in (None, organization):
            search = await search_everywhere(Reach(shop.partitions), f"evt_{number}", whose)
            assert [each.organization for each in search.found] == [organization]
    other = await search_everywhere(Reach(shop.partitions), "evt_0", ORGANIZATIONS[1])
    assert (other.found, other.looked_at, other.is_whole) == ([], 1, True)
