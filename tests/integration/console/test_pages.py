"""Facts about what the console's pages show."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from markupsafe import escape
from msgspec import structs
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.actions import Action, record
from shared.queue.partition import Partition
from tests.conftest import StartRedis
from tests.integration.console.site import Site, browsing, told
from tests.integration.jobs import reach
from tests.integration.workplace import Workplace, body
from tests.log_support import captured_log
from worker.at_work import AtWork, Doing
from worker.operate import organizations
from worker.operate.console import context
from worker.operate.organizations import Paused
from worker.operate.revival import Progress
from worker.operate.runs import Going, Run

SCRIPT = "<script>alert('x')</script>"
ESCAPED = str(escape(SCRIPT))


async def looked(site: Site, text: str, path: str = "/") -> str:
    """The page once it shows a text: the console looks every so often."""
    async with asyncio.timeout(20):
        while text not in (shown := (await site.get(path)).text):
            await asyncio.sleep(0.05)
    return shown


async def test_an_injected_script_is_shown_as_text(
    site: Site, place: Workplace, redis: Redis
) -> None:
    await place.handle(body(SCRIPT, type=SCRIPT), endpoint=SCRIPT)
    (job,) = [name.decode() for name in await redis.zrange(keys.dead("org_a"), 0, -1)]
    await redis.hset(keys.dead_letter(job), "error", SCRIPT)
    (key,) = await redis.hkeys(keys.DEAD_LABELS + "org_a")
    label = msgspec.msgpack.encode((7, SCRIPT, SCRIPT, SCRIPT, SCRIPT))
    await redis.hset(keys.DEAD_LABELS + "org_a", mapping={key: label})
    group = f"org_a:{key.decode()}"
    await place.accept(body(SCRIPT, type=SCRIPT, data={"order_id": SCRIPT}))
    await redis.hset(keys.WAITING, SCRIPT, "7")
    await redis.hset(keys.ORGANIZATIONS, f"{keys.PAUSE}{SCRIPT}", SCRIPT)
    await redis.hset(keys.COUNTERS, f"dead:{SCRIPT}", "1")
    await place.transitions.renew(
        "w1",
        [],
        description=b'{"host": "%s", "version": "%s"}' % ((SCRIPT.encode(),) * 2),
        slots=1,
        lease=30,
    )
    named = (SCRIPT, 1.0, SCRIPT, SCRIPT, SCRIPT, SCRIPT)
    doing = [Doing(*named, state, SCRIPT) for state in ("blocking", "running")]
    await place.transitions.show("w1", msgspec.json.encode(AtWork(time.time(), doing)))
    await place.transitions.renew(f"w{SCRIPT}", [], description=b"{}", slots=1, lease=0.001)
    done = Action(SCRIPT, "console", SCRIPT, SCRIPT, organization=SCRIPT, job=SCRIPT, run=SCRIPT)
    await record(reach(redis), done, lambda *_: None)
    run = Run("replay", SCRIPT, SCRIPT, address=SCRIPT, note=SCRIPT, state="failed", times=0)
    run.progress = Progress(queued=1, died_again=1, deaths={SCRIPT: 1})
    await Going(run, reach(redis), lambda *_: None).begin()
    await looked(site, ESCAPED)
    for path in (
        "/",
        "/organizations",
        "/events",
        f"/events?q={SCRIPT}",
        f"/event?job={job}",
        f"/event?job={SCRIPT}",
        "/dead-letters",
        f"/dead-letters?type={SCRIPT}",
        f"/dead-letters/confirm?verb=replay&job={job}",
        f"/dead-letters/confirm?verb=replay&all=1&type={SCRIPT}",
        f"/dead-letters/confirm?verb=replay&all=1&group={group}",
        f"/dead-letters?group={group}",
        "/dead-letters/groups",
        f"/dead-letters/groups?type={SCRIPT}",
        f"/dead-letters/group?id={group}",
        f"/organizations?q={SCRIPT}&sort={SCRIPT}",
        "/workers",
        "/actions",
        "/running",
        f"/runs/{run.id}",
        "/organizations/org_a",
    ):
        text = (await site.get(path)).text
        assert SCRIPT not in text, path
        assert ESCAPED in text, path


async def test_what_reorders_or_hides_text_is_shown_as_its_code(
    site: Site, place: Workplace
) -> None:
    await place.handle(body("evt_\u202e1\u200b", type="order.exploded"))
    text = (await site.get("/dead-letters")).text
    assert "evt_\\u202e1\\u200b" in text
    assert "\u202e" not in text


async def test_an_empty_system_is_said_to_be_well(site: Site) -> None:
    text = await looked(site, "All is well.")
    assert "No organization has events now" in text
    assert "No worker is alive" in (await site.get("/workers")).text
    assert "Nothing waits" in (await site.get("/events")).text


async def test_events_without_a_worker_are_what_to_look_at_first(
    site: Site, place: Workplace
) -> None:
    await place.accept(body(), body())
    assert "Start one: python -m worker" in await looked(
        site, "No worker is alive, and 2 events wait."
    )


async def test_a_paused_organization_is_told_with_why_and_resumed(
    site: Site, place: Workplace, redis: Redis
) -> None:
    await place.accept(body())
    await organizations.pause(Partition.only(redis), "org_a", "until the ERP is back")
    text = await looked(site, "org_a is paused (until the ERP is back). 1 event waits.")
    assert "/organizations/org_a/resume" in text
    answer = await site.confirm("/organizations/org_a/resume")
    assert "flowing" in answer.text
    assert not await redis.hexists(keys.ORGANIZATIONS, f"{keys.PAUSE}org_a")
    again = await site.confirm("/organizations/org_a/resume")
    assert again.status == 409
    assert "neither paused nor held" in again.text


async def test_an_open_breaker_is_told(site: Site, redis: Redis) -> None:
    await redis.hset(keys.ORGANIZATIONS, f"{keys.BREAKER}org_a", "open:9000000000000")
    await redis.hset(keys.WAITING, "org_a", "12")
    await looked(site, "its breaker is open. 12 events wait.")
    text = (await site.get("/organizations?show=held")).text
    assert "breaker open" in text
    assert "Resume" in text


async def test_failures_in_a_row_are_told(site: Site, place: Workplace) -> None:
    for _ in range(3):
        await place.handle(body(data={"order_id": "bad"}))
        await place.handle_next()
    await looked(site, "org_a: 6 handlers failed in a row.")


async def test_pausing_says_who_did_it(site: Site, redis: Redis) -> None:
    await redis.hset(keys.ORGANIZATIONS, "org_a", ":1")
    with captured_log("info") as log:
        await site.confirm("/organizations/org_a/pause")
        (line,) = told(log, "operator_action")
    assert line["action"] == "pause"
    assert line["who"] == "local"
    assert line["address"] == "127.0.0.1"
    assert line["organization"] == "org_a"
    raw = await redis.hget(keys.ORGANIZATIONS, f"{keys.PAUSE}org_a")
    assert (Paused.read(raw.decode()).why, Paused.read(raw.decode()).by) == ("by local", "local")


@pytest.mark.parametrize("organization", ["a:b", "%3F", "x" * 65, "%00"])
async def test_what_is_no_organization_is_not_paused(site: Site, organization: str) -> None:
    assert (await site.get(f"/organizations/{organization}/pause")).status == 404


async def test_a_pause_is_offered_beside_an_open_breaker_and_both_are_told(
    site: Site, redis: Redis
) -> None:
    await redis.hset(keys.ORGANIZATIONS, "breaker:org_a", f"open:{4 * keys.DEFERRED_FROM}")
    text = await looked(site, "breaker open", "/organizations?show=held")
    for label in ("Resume org_a", "Pause org_a"):
        assert f'aria-label="{label}"' in text
        assert f'aria-label="{label}"' in (await site.get("/")).text
    asked = await site.get("/organizations/org_a/pause")
    assert "Its breaker is open" in asked.text
    paused = await site.post("/organizations/org_a/pause", {**asked.fields, "why": "by hand"})
    row = paused.text.partition("<h1")[2]
    for part in (">paused</span>", ">breaker open</span>", "by hand"):
        assert part in row
    assert "org_a" in (await site.get("/organizations?show=paused")).text


async def test_a_name_that_nobody_knows_is_no_organization_unless_somebody_says_so(
    redis: Redis, endpoints_file: Callable[[str], Path]
) -> None:
    table = '[[endpoint]]\nid = "acme"\norganization_id = "org_a"\nsecrets = ["whsec_a"]\n'
    async with browsing(redis, ENDPOINTS_FILE=str(endpoints_file(table))) as site:
        for typed, doubt in (
            ("org_b", "Nobody knows org_b: neither Redis nor the endpoints file; did you mean"),
            ("acme", "acme is an endpoint; its organization is org_a."),
        ):
            for verb in ("pause", "resume"):
                path = f"/organizations/{typed}/{verb}"
                asked = await site.get(path)
                assert doubt in asked.text
                assert "though nobody knows it" in asked.text
                refused = await site.post(path, asked.fields)
                assert refused.status == 409
                assert doubt in refused.text
            for path in ("/dead-letters?", "/events?q=evt_1&"):
                assert doubt in (await site.get(f"{path}organization={typed}")).text
        assert await redis.hlen(keys.ORGANIZATIONS) == 0
        known = await site.get("/organizations/org_a/pause")
        assert "nobody knows" not in known.text.lower()
        assert "is paused" in (await site.post("/organizations/org_a/pause", known.fields)).text
        taken = {**(await site.get("/organizations/org_b/pause")).fields, "anyway": "1"}
        assert (await site.post("/organizations/org_b/pause", taken)).status == 200


async def test_of_a_file_that_is_not_read_in_time_nothing_is_said(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_FILE_SECONDS", 0.0)
    asked = await site.get("/organizations/org_b/pause")
    assert escape("Redis doesn't know org_b, and the endpoints file isn't read") in asked.text


async def test_of_very_many_names_none_is_called_the_nearest(
    redis: Redis, endpoints_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_MOST_NAMES", 1)
    table = '[[endpoint]]\nid = "acme"\norganization_id = "org_a"\nsecrets = ["whsec_a"]\n'
    async with browsing(redis, ENDPOINTS_FILE=str(endpoints_file(table))) as site:
        asked = await site.get("/organizations/org_b/pause")
    assert "neither Redis nor the endpoints file." in asked.text


async def test_organizations_are_found_sorted_and_paged(site: Site, redis: Redis) -> None:
    await redis.hset(keys.WAITING, mapping={f"org_{number:03}": number for number in range(1, 151)})
    text = await looked(site, "org_150", "/organizations")
    assert text.index("org_150") < text.index("org_149")
    assert "org_120" not in text
    assert "org_120" in (await site.get("/organizations?page=1")).text
    by_name = (await site.get("/organizations?sort=name")).text
    assert by_name.index("org_001") < by_name.index("org_002")
    found = (await site.get("/organizations?q=_149")).text
    assert "org_149" in found
    assert "org_148" not in found
    assert "No organization matches" in (await site.get("/organizations?q=none")).text
    for odd in ("sort=x", "page=x", "page=99999999", "page=-1", "page=²"):
        assert (await site.get(f"/organizations?{odd}")).status == 200


async def test_a_worker_shows_its_version_and_its_load(site: Site, place: Workplace) -> None:
    await place.transitions.renew(
        "w-42",
        [],
        description=b'{"host": "node-7", "pid": 99, "version": "1.2.3", "running": 4, '
        b'"handled": 12, "started": 1, "latency": {"0.1": 11, "+Inf": 1}}',
        slots=8,
        lease=30,
    )
    text = await looked(site, "w-42", "/workers")
    for shown in ("node-7", "pid 99", "1.2.3", "4 of 8"):
        assert shown in text


async def test_what_is_stuck_or_blocks_a_worker_is_told_first_with_where_and_whose(
    site: Site, place: Workplace
) -> None:
    await place.transitions.renew("w-42", [], description=b'{"stuck": 2}', slots=8, lease=30)
    named = ("org_a:1", time.time() - 90, "shop.act", "org_a", "evt_1", "order.paid")
    stack = "/srv/run.py:1 in main > /srv/shop.py:12 in act"
    doing = [Doing(*named, state, stack) for state in ("blocking", "stuck")]
    doing[1] = structs.replace(doing[1], job="org_a:2", event_id="evt_2")
    slow = structs.replace(doing[0], job="org_b:1", state="running", organization="org_b")
    told = AtWork(time.time(), [*doing, slow], 7)
    await place.transitions.show("w-42", msgspec.json.encode(told))
    text = await looked(site, "Worker w-42 has stood still for 1m 3")
    assert "shop.act keeps its loop, with evt_1, order.paid of org_a" in text
    assert "It is at /srv/shop.py:12 in act." in text
    assert "Handler shop.act goes on in w-42 for 1m 3" in text
    assert "1 more handler goes on though it was" in text
    shown = (await site.get("/running")).text
    assert shown.index("blocks the worker") < shown.index(">stuck<") < shown.index(">running<")
    assert "/srv/run.py:1 in main\n/srv/shop.py:12 in act" in shown
    assert "7 others take long" in shown
    assert "9 for longer than a second, 2 stuck and no longer waited for" in shown
    assert shown.count("/event?job=") == 3


async def test_a_lost_worker_is_told_with_what_it_had(site: Site, place: Workplace) -> None:
    told = b'{"host": "node-7", "running": 1}'
    await place.transitions.renew("w-lost", [], description=told, slots=8, lease=30)
    doing = Doing("org_a:1", 1.0, "shop.act", "org_a", "evt_1", "order.paid")
    await place.transitions.show("w-lost", msgspec.json.encode(AtWork(time.time(), [doing])))
    await place.transitions.renew("w-lost", [], description=told, slots=8, lease=0.001)
    text = await looked(site, "Worker w-lost on node-7 went without a word")
    assert "its 1 event is another" in text
    shown = (await site.get("/workers")).text
    for each in ("Lost within the last hour", "w-lost", "evt_1", "shop.act"):
        assert each in shown
    running = (await site.get("/running")).text
    assert "So nothing runs." in running
    assert "slots busy" not in running
    assert "none is alive" in (await site.get("/")).text


async def test_a_worker_that_says_little_is_shown_as_well(site: Site, place: Workplace) -> None:
    for name, description in (("w1", b"{}"), ("w2", b"rubbish"), ("w3", b'{"pid": "x"}')):
        await place.transitions.renew(name, [], description=description, slots=3, lease=30)
    text = await looked(site, "w3", "/workers")
    assert "9 slots" in text


async def test_a_refreshing_page_can_be_held_still(site: Site) -> None:
    live = (await site.get("/")).text
    assert "every 2s" in live
    assert 'http-equiv="refresh"' in live
    still = (await site.get("/?live=off")).text
    assert "every 2s" not in still
    assert 'http-equiv="refresh"' not in still


async def test_charts_grow_as_time_goes_on(site: Site, place: Workplace) -> None:
    await looked(site, "The charts begin with this console")
    await place.handle(body())
    await looked(site, "accepted 0")
    text = await looked(site, 'class="line s1"')
    assert 'class="area f' in text
    for minutes in ("15", "60", "x"):
        assert (await site.get(f"/?minutes={minutes}")).status == 200


# Redis away


@pytest.fixture
async def cut_off(fresh_redis_server: StartRedis) -> AsyncIterator[Site]:
    """Give a console whose Redis has just gone, after it was seen."""
    server = fresh_redis_server(appendfsync="no")
    async with Redis.from_url(server.url) as redis, browsing(redis) as site:
        await Workplace(redis).accept(body(), body())
        await looked(site, "2 events wait")
        asked = await site.get("/organizations/org_a/pause")
        site.session.headers["X-Asked"] = asked.fields["form_token"]
        server.stop()
        yield site


async def test_an_outage_of_redis_is_said_on_every_page(cut_off: Site) -> None:
    await looked(cut_off, "Redis does not answer")
    for path in ("/", "/organizations", "/workers", "/running"):
        answer = await cut_off.get(path)
        assert answer.status == 200
        assert "What you see was known at" in answer.text
    for path in (
        "/events",
        "/events?q=evt_1",
        "/event?job=org_a:1",
        "/organizations/org_a",
        *("/dead-letters", "/actions", "/runs/12345678"),
    ):
        answer = await cut_off.get(path)
        assert answer.status == 503
        assert "Redis does not answer" in answer.text
        assert "Traceback" not in answer.text
    assert (await cut_off.get("/readyz")).status == 503
    assert (await cut_off.get("/livez")).status == 200


async def test_an_action_during_an_outage_is_said_to_be_unknown(cut_off: Site) -> None:
    token = str(cut_off.session.headers["X-Asked"])
    answer = await cut_off.post("/organizations/org_a/pause", {"form_token": token})
    assert answer.status == 503
    assert "is unknown" in answer.text


async def test_a_console_that_never_saw_redis_says_so(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync="no")
    server.stop()
    async with Redis.from_url(server.url) as redis, browsing(redis) as site:
        text = await looked(site, "Redis does not answer")
        assert "Nothing is known yet" in text
        for path in ("/organizations", "/workers", "/organizations/org_a/pause"):
            assert (await site.get(path)).status == 200


async def test_what_cannot_be_read_is_said_until_it_can(site: Site, redis: Redis) -> None:
    await redis.hset(keys.COUNTERS, "accepted", "many")
    await looked(site, "Redis can&#39;t be read")
    await redis.hset(keys.COUNTERS, "accepted", "3")
    await looked(site, "3 in all")


async def test_a_page_that_fails_shows_no_traceback(site: Site, redis: Redis) -> None:
    await redis.set(keys.DEAD_LETTER + "org_a:x", "not a hash")
    await redis.set(keys.CLAIMS, "not a hash")
    with captured_log("info"):
        for path in ("/event?job=org_a:x", "/events?q=evt_1"):
            answer = await site.get(path)
            assert answer.status in {200, 500, 503}
            assert "Traceback" not in answer.text


# Bodies


@pytest.mark.parametrize(("shown", "number"), [("0", 0), ("1", 1)])
async def test_a_body_is_shown_only_where_that_is_set(
    redis: Redis, place: Workplace, shown: str, number: int
) -> None:
    await place.handle(b"a dead SECRET")
    await place.accept(body("evt_1", data={"order_id": "SECRET <&>"}))
    async with browsing(redis, CONSOLE_SHOW_PAYLOADS=shown) as site:
        (waiting,) = (await site.get("/events")).links("/event?")
        (dead,) = (await site.get("/dead-letters")).links("/event?")
        for link in (waiting, dead):
            text = (await site.get(link)).text
            assert text.count("SECRET") == number
            assert ("CONSOLE_SHOW_PAYLOADS=1" in text) is not bool(number)


async def test_a_large_body_is_cut(redis: Redis, place: Workplace) -> None:
    await place.accept(b"x" * 100_000)
    async with browsing(redis, CONSOLE_SHOW_PAYLOADS="1") as site:
        (link,) = (await site.get("/events")).links("/event?")
        text = (await site.get(link)).text
    assert "the first 64 KiB" in text
    assert "97.7 KiB" in text
    assert len(text) < 80_000
