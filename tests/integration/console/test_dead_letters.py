"""Facts about what is done with dead letters in the console."""

import asyncio
import re
import time
from urllib.parse import quote, urlencode

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from tests.integration.console.letters import bury
from tests.integration.console.site import Answer, Site, browsing, told
from tests.integration.console.test_pages import looked
from tests.integration.jobs import reach
from tests.integration.workplace import Workplace, body
from tests.log_support import captured_log
from worker.operate import dead_letters, dead_lists
from worker.operate.console.wording import to_reference
from worker.pipeline.transitions import Settled

CONFIRM = "/dead-letters/confirm"


async def one_dead(place: Workplace, event_id: str = "evt_1", **changes: str) -> str:
    """A dead letter; its job."""
    await place.handle(body(event_id, type="order.exploded", **changes))
    (found,) = [
        letter.job
        async for letter in dead_letters.select(reach(place.redis), dead_lists.Filter())
        if letter.event_id == event_id
    ]
    return found


async def ended(site: Site, run: Answer) -> Answer:
    """A run's page once the run has ended."""
    async with asyncio.timeout(60):
        while (answer := await site.get(run.path)).text.count('">running</span>'):
            await asyncio.sleep(0.02)
    return answer


async def test_a_dead_letter_is_listed_and_opened(site: Site, place: Workplace) -> None:
    job = await one_dead(place)
    listed = await site.get("/dead-letters")
    (link,) = listed.links("/event?")
    opened = await site.get(link)
    for text in (job, "evt_1", "unavailable_event", "Replay", "Discard"):
        assert text in opened.text


async def test_whose_a_dead_letter_is_joins_the_filters_that_there_are(
    site: Site, place: Workplace
) -> None:
    await one_dead(place)
    filters = "reason=unavailable_event&type=order.exploded&younger=2h"
    listed = await site.get(f"/dead-letters?{filters}")
    assert f"/dead-letters?{filters}&organization=org_a" in listed.links("/dead-letters?")


async def test_a_dead_letter_has_as_many_attempts_wherever_it_is_shown(
    site: Site, place: Workplace
) -> None:
    (job,) = await place.accept(body("evt_1", data={"order_id": "bad"}))
    while await place.handle_next() is not Settled.DEAD:
        pass
    number = (await place.redis.hget(keys.dead_letter(job), "attempts")).decode()
    (link,) = (await site.get("/dead-letters")).links("/event?")
    attempts = re.compile(r"<dt>Attempts</dt><dd>([^<]*)</dd>")
    shown = attempts.findall((await site.get(link)).text)
    assert shown == [number, f"{number} with an outcome"]
    await site.confirm(f"{CONFIRM}?verb=replay&job={job}")
    shown = attempts.findall((await site.get(link)).text)
    assert shown == [f"{number}, before it died", "0 with an outcome, since it died"]


async def test_the_last_failure_is_shown_line_by_line_dead_or_not(
    site: Site, place: Workplace
) -> None:
    signed = body("evt_1", data={"order_id": "bad"})
    (job,) = await place.accept(signed)
    for settled, title in ((Settled.RETRIED, "Last attempt"), (Settled.DEAD, "Dead letter")):
        while await place.handle_next() is not settled:
            pass
        shown = (await site.get(f"/event?{urlencode({'job': to_reference(job)})}")).text
        assert f"<h2>{title}</h2>" in shown
        assert "    raise KeyError(&#34;as told&#34;)\nKeyError: &#39;as told&#39;\n" in shown


async def test_a_dead_letter_is_replayed_once_somebody_has_said_yes(
    site: Site, place: Workplace
) -> None:
    job = await one_dead(place)
    asked = await site.get(f"{CONFIRM}?verb=replay&job={job}")
    assert "Replay this dead letter?" in asked.text
    assert not await place.redis.exists(keys.payload(job))
    with captured_log("info") as log:
        answer = await site.post(CONFIRM, asked.fields)
        (line,) = told(log, "operator_action")
    assert "Replayed" in answer.text
    assert await place.redis.exists(keys.payload(job))
    assert line["action"] == "replay"
    assert line["who"] == "local"
    assert line["job"] == job
    assert line["outcome"] == "queued"
    assert "replayed, waits" in (await site.get("/dead-letters")).text
    again = await site.post(CONFIRM, asked.fields)
    assert "It waits already" in again.text
    await place.handle_next()
    for page in (answer.path, again.path):  # a page that somebody has open
        assert "Replayed, and it died again" in (await site.get(page)).text
    assert "replayed, waits" not in (await site.get("/dead-letters")).text


async def test_a_dead_letter_is_discarded_for_good(site: Site, place: Workplace) -> None:
    job = await one_dead(place)
    answer = await site.confirm(f"{CONFIRM}?verb=discard&job={job}")
    assert "Discarded." in answer.text
    assert "kept until" in answer.text
    assert not await place.redis.exists(keys.dead_letter(job))
    assert (await place.redis.get(keys.event("org_a", "evt_1"))).startswith(f"done:{job} ".encode())
    assert await place.handle(body("evt_1")) is Settled.DUPLICATE


async def test_an_unprovable_one_is_replayed_only_when_that_is_said(
    site: Site, place: Workplace
) -> None:
    job = await one_dead(place)
    await place.redis.hset(keys.dead_letter(job), "reason", "unprovable")
    asked = await site.get(f"{CONFIRM}?verb=replay&job={job}")
    assert "Also what is unprovable" in asked.text
    refused = await site.post(CONFIRM, asked.fields)
    assert "Nothing was changed" in refused.text
    assert not await place.redis.exists(keys.payload(job))
    await site.post(CONFIRM, {**asked.fields, "force": "1"})
    assert await place.redis.exists(keys.payload(job))


async def test_one_whose_payload_was_lost_is_not_replayed_and_said(
    site: Site, place: Workplace
) -> None:
    job = await one_dead(place)
    await place.redis.hset(keys.dead_letter(job), "payload", "")
    answer = await site.confirm(f"{CONFIRM}?verb=replay&job={job}")
    assert "the payload that came is gone" in answer.text
    assert not await place.redis.exists(keys.payload(job))


async def test_the_chosen_ones_are_replayed(site: Site, place: Workplace) -> None:
    jobs = [await one_dead(place, f"evt_{number}") for number in range(3)]
    chosen = "&".join(f"job={job}" for job in jobs[:2])
    asked = await site.get(f"{CONFIRM}?verb=replay&{chosen}")
    assert "Replay 2 dead letters?" in asked.text
    form = [(name, value) for name, value in asked.fields.items() if name != "job"]
    form += [("job", job) for job in jobs[:2]]
    url = f"{site.origin}{CONFIRM}"
    async with site.session.post(url, data=form, headers={"Origin": site.origin}) as response:
        run = Answer(200, response.headers, await response.text(), response.url.path_qs)
    done = await ended(site, run)
    assert "finished" in done.text
    assert "2 of 2 looked at" in done.text
    waiting = [await place.redis.exists(keys.payload(job)) for job in jobs]
    assert waiting == [1, 1, 0]


async def test_all_that_match_are_discarded_with_progress(site: Site, redis: Redis) -> None:
    await bury(redis, "org_a", 300)
    await bury(redis, "org_b", 20)
    asked = await site.get(f"{CONFIRM}?verb=discard&all=1&organization=org_a")
    assert "Discard 300 dead letters?" in asked.text
    assert "undone" in asked.text
    with captured_log("info") as log:
        done = await ended(site, await site.post(CONFIRM, asked.fields))
        async with asyncio.timeout(60):
            while len(told(log, "operator_action")) < 2:
                await asyncio.sleep(0.01)
        began, run = told(log, "operator_action")
    assert began["about"] == "organization org_a"
    assert run["outcome"] == "finished: 300 discarded"
    assert began["run"] == run["run"]
    assert "300 of 300 looked at" in done.text
    assert await redis.hgetall(keys.BURIED) == {b"org_b": b"20"}


async def test_a_run_is_stopped_where_it_is(site: Site, redis: Redis) -> None:
    await bury(redis, "org_a", 200)
    run = await site.confirm(f"{CONFIRM}?verb=replay&all=1", rate="20")
    assert "running" in run.text
    await site.post(f"{run.path}/stop", run.fields)
    done = await site.get(run.path)
    assert "Stopped by local" in done.text
    queued = await redis.zcard(keys.ACCEPTED)
    assert queued < 200
    listed = await site.get("/dead-letters")
    assert run.path in listed.text


async def test_a_run_that_was_pressed_twice_in_two_consoles_is_one(
    site: Site, redis: Redis
) -> None:
    """As whoever's page seems to hang, and a browser that sends a form again."""
    await bury(redis, "org_a", 30)
    asked = await site.get(f"{CONFIRM}?verb=replay&all=1")
    form = {**asked.fields, "rate": "1"}
    async with browsing(redis) as other:
        elsewhere = (await other.get(f"{CONFIRM}?verb=replay&all=1")).fields
        same = {**form, "form_token": elsewhere["form_token"]}
        with captured_log("info") as log:
            pressed = await asyncio.gather(
                *(site.post(CONFIRM, form) for _ in range(5)),
                *(other.post(CONFIRM, same) for _ in range(5)),
            )
            assert len(told(log, "operator_action")) == 1
        assert len({each.path for each in pressed}) == 1
        shown = await other.get(pressed[0].path)
        assert "running" in shown.text
        stopped = await other.post(f"{shown.path}/stop", shown.fields)
        await ended(other, stopped)
    assert "Stopped by local" in (await site.get(shown.path)).text
    assert await redis.zcard(keys.ACCEPTED) < 5


async def test_a_run_outlives_its_console_and_goes_on_in_the_next(
    redis: Redis, place: Workplace
) -> None:
    await bury(redis, "org_a", 50)
    async with browsing(redis) as site:
        run = await site.confirm(f"{CONFIRM}?verb=replay&all=1", rate="1")
        await looked(site, "1 of 50 looked at", run.path)
    async with browsing(redis) as site:
        left = await site.get(run.path)
        assert "interrupted" in left.text
        assert "1 of 50 looked at" in left.text
        assert "What went on with it has ended. Nothing is lost." in left.text
        assert run.path in (await site.get("/dead-letters")).text
        assert "Replay of all was interrupted: 1 of 50." in await looked(site, run.path)
        again = await site.post(f"{run.path}/go-on", left.fields)
        assert "Taken up by local" in again.text
        twice = await site.post(f"{run.path}/go-on", left.fields)  # an old page's button
        assert twice.path == run.path
        kept_on = await site.post(f"{run.path}/stop", left.fields)  # the same of another one
        assert "Not stopped: local has taken it up since" in kept_on.text
        assert "running" in (await site.get(run.path)).text
        (overview,) = (await looked(site, run.path)).split('aria-label="Look at')[1:]
        assert "replay of all" in overview
        await site.post(f"{run.path}/stop", again.fields)
        actions = (await site.get("/actions")).text
    for text in ("take up", "stop", "interrupted: 1 replayed", "begun"):
        assert text in actions


@pytest.mark.parametrize("name", ["x", "%00", "a%2Fb", "..%2F..%2Flogin", "x" * 33, "odd:hold"])
async def test_what_is_no_run_is_none(site: Site, redis: Redis, name: str) -> None:
    await redis.hset(keys.RUNS, mapping={"odd": "{}", "odd:hold": "1:1:1:x"})
    assert (await site.get(f"/runs/{name}")).status == 404
    asked = await site.get(f"{CONFIRM}?verb=replay&all=1")
    for verb in ("stop", "go-on"):
        assert (await site.post(f"/runs/{name}/{verb}", asked.fields)).status == 404


async def test_no_more_than_a_few_runs_go_on_at_once(site: Site, redis: Redis) -> None:
    await bury(redis, "org_a", 50)
    for _ in range(4):
        assert (await site.confirm(f"{CONFIRM}?verb=replay&all=1", rate="1")).status == 200
    refused = await site.confirm(f"{CONFIRM}?verb=replay&all=1", rate="1")
    assert refused.status == 409
    assert "runs go on already" in refused.text


async def test_what_dies_after_a_run_began_is_not_part_of_it(site: Site, redis: Redis) -> None:
    await bury(redis, "org_a", 2, died_at=9_000_000_000_000)
    done = await ended(site, await site.confirm(f"{CONFIRM}?verb=discard&all=1"))
    assert "finished" in done.text
    assert await redis.hget(keys.BURIED, "org_a") == b"2"


async def test_who_says_yes_later_means_what_was_shown_and_no_more(
    site: Site, redis: Redis
) -> None:
    """As whoever has a page open while an incident goes on."""
    hour_ago = round((time.time() - 3600) * 1000)
    await bury(redis, "org_a", 4, died_at=hour_ago + 1000, step=100)
    asked = await site.get(f"{CONFIRM}?verb=discard&all=1&younger=1h")
    assert "Discard 4 dead letters?" in asked.text
    await looked(site, "No dead letter matches", "/dead-letters?younger=1h")
    await bury(redis, "org_b", 3, died_at=round(time.time() * 1000) - 3)
    done = await ended(site, await site.post(CONFIRM, asked.fields))
    assert "4 of 4 looked at" in done.text
    assert await redis.hgetall(keys.BURIED) == {b"org_b": b"3"}


@pytest.mark.parametrize("query", ["verb=replay", "verb=discard&organization=org_a"])
async def test_nothing_chosen_is_not_everything(site: Site, redis: Redis, query: str) -> None:
    await bury(redis, "org_a", 1)
    answer = await site.get(f"{CONFIRM}?{query}")
    assert answer.status == 400
    assert "Choose at least one" in answer.text


@pytest.mark.parametrize("query", ["verb=explode&all=1", "all=1", "verb=replay&all=1&reason=no"])
async def test_what_cannot_be_done_is_not_asked(site: Site, query: str) -> None:
    assert (await site.get(f"{CONFIRM}?{query}")).status == 400


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("organization=a:b", "Organization: expected up to 64 letters"),
        ("reason=boredom", "Reason: expected one of"),
        ("younger=soon", "Died within: expected a duration"),
        ("older=%00", "Died before: expected a duration"),
    ],
)
async def test_a_filter_that_cannot_be_says_what_was_expected(
    site: Site, query: str, said: str
) -> None:
    answer = await site.get(f"/dead-letters?{query}")
    assert answer.status == 200
    assert said in answer.text


async def test_a_filter_shows_only_what_matches(site: Site, redis: Redis) -> None:
    await bury(redis, "org_a", 3)
    await bury(redis, "org_b", 2)
    assert (await site.get("/dead-letters?organization=org_b")).text.count('name="job"') == 2
    assert (await site.get("/dead-letters?reason=crashed")).text.count('name="job"') == 2
    assert "No dead letter matches" in (await site.get("/dead-letters?type=x.y")).text


async def test_a_filter_that_finds_little_says_where_to_go_on(site: Site, redis: Redis) -> None:
    await bury(redis, "org_a", 2500)
    first = await site.get("/dead-letters?type=nothing.like.it")
    assert re.search("None among the [0-9,]+ looked at", first.text)
    (further,) = [each for each in first.links("/dead-letters?after=") if "type" in each]
    assert "looked at" in (await site.get(further)).text


async def test_without_dead_letters_the_page_says_so(site: Site) -> None:
    assert "No dead letters" in (await site.get("/dead-letters")).text


async def test_a_dead_letter_of_any_bytes_is_opened_and_discarded(site: Site, redis: Redis) -> None:
    job = b"\xff\x00 <b>&job=x"
    fields = ("reason", "undecodable", "organization", "?", "event_id", "")
    await redis.execute_command("HSET", keys.DEAD_LETTER.encode() + job, *fields)
    await redis.zadd(keys.dead("?"), {job: 1})
    await redis.hset(keys.BURIED, "?", "1")
    listed = await site.get("/dead-letters")
    (link,) = listed.links("/event?")
    opened = await site.get(link)
    assert "undecodable" in opened.text
    (discard,) = opened.links(f"{CONFIRM}?verb=discard")
    await site.confirm(discard)
    assert not await redis.exists(keys.DEAD_LETTER.encode() + job)


async def test_a_dead_letter_that_is_gone_is_said(site: Site) -> None:
    assert (await site.get(f"{CONFIRM}?verb=replay&job=org_a:{'0' * 32}")).status == 404
    assert "isn't found" in (await site.get(f"/event?job={quote('org_a:x')}")).text
    assert (await site.get("/runs/none")).status == 404
