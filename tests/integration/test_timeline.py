"""Facts about the story of an event, as it is told in a terminal and on a page."""

import asyncio
import json
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue.partition import Partition
from tests.integration.shop import HANDLER, WORKER, EndingShop
from tests.integration.test_told import NOW, live
from tests.integration.workplace import POLICY, Workplace, body
from worker import Handlers, Retry, Throttled
from worker.cli import main
from worker.operate import lookup, organizations, revival
from worker.operate.timeline import Moment, timeline, written
from worker.pipeline.transitions import Profile, Settled, Transitions


class Shop(EndingShop):
    """The same, and what is told of an event of it."""

    async def told(self, job: str) -> list[Moment]:
        return timeline(await self.found(job))

    async def told_by_mark(self, event_id: str) -> list[Moment]:
        found = await lookup.find_by_mark(Partition.only(self.redis), "org_a", event_id)
        assert found is not None
        return timeline(found)

    async def words(self, job: str) -> list[str]:
        return [each.happened for each in await self.told(job)]


@pytest.fixture
async def shop(redis: Redis) -> Shop:
    await live(redis, WORKER, NOW)
    await Transitions(Partition.only(redis)).note_names([WORKER, HANDLER])
    return Shop(redis, attempts=2)


async def test_a_life_with_a_death_and_a_replay_is_told_in_order(shop: Shop) -> None:
    here = Partition.only(shop.redis)
    (job,) = await shop.place.accept(body("evt_1"))
    await shop.run(ValueError("one"), ValueError("two"))
    await revival.replay_one(here, job, "alice")
    assert await shop.words(job) == [
        *("accepted", "failed", "failed", "died", "replayed", "waits"),
    ]
    await shop.run(Retry(after=3600, why="ask me later"))
    told = await shop.told(job)
    assert [each.happened for each in told] == [
        *("accepted", "failed", "failed", "died", "replayed", "asked_again", "waits"),
    ]
    accepted, first, *_, replayed, _, waits = told
    assert accepted.text == "accepted through endpoint acme"
    assert first.text.startswith("attempt 1 failed after ")
    assert (first.said, first.by) == ("ValueError: one", f"{HANDLER} on {WORKER}")
    assert replayed.text == "replayed by alice"
    assert waits.text.startswith("due in 59m")
    moments = [each.at for each in told if each.at]
    assert moments == sorted(moments)


async def test_a_redelivery_of_a_dead_event_is_accepted_where_it_came_in(shop: Shop) -> None:
    """Not in front of all that happened before it."""
    signed = body("evt_1")
    (job,) = await shop.place.accept(signed)
    await shop.run(ValueError("one"), ValueError("two"))
    await asyncio.sleep(0.002)  # the ingress tells milliseconds
    await shop.place.accept(signed)
    unjudged = await shop.told(job)
    assert [each.happened for each in unjudged] == [
        *("accepted", "failed", "failed", "died", "redelivered", "waits"),
    ]
    assert unjudged[0].at != unjudged[4].at
    await shop.run(ValueError("three"))
    told = await shop.told(job)
    assert [each.happened for each in told] == [
        *("failed", "failed", "died", "accepted", "redelivered", "failed", "waits"),
    ]
    assert told[3].text == "accepted again through endpoint acme"
    await shop.run(None)
    handled = await shop.told_by_mark("evt_1")
    assert [each.happened for each in handled] == [
        *("failed", "failed", "died", "accepted", "redelivered", "failed", "handled"),
    ]
    assert handled[3].text == "accepted again"
    for story in (unjudged, told, handled):
        moments = [each.at for each in story if each.at and each.happened != "accepted"]
        assert moments == sorted(moments)


async def test_a_finished_event_tells_when_by_whom_and_after_what(shop: Shop) -> None:
    (job,) = await shop.place.accept(body("evt_1"))
    await shop.run(ValueError("one"), None)
    found = await lookup.find_by_mark(Partition.only(shop.redis), "org_a", "evt_1")
    assert found is not None
    assert found.job == job
    accepted, failed, handled = timeline(found)
    assert handled.text.startswith("handled by attempt 2 after ")
    assert handled.by == f"{HANDLER} on {WORKER}"
    assert failed.text.startswith("attempt 1 failed after ")
    assert (failed.said, failed.by) == ("ValueError: one", handled.by)
    assert accepted.text == "accepted"
    assert accepted.at is not None
    assert failed.at is not None
    assert handled.at is not None
    assert time.time() - 60 < accepted.at <= failed.at <= handled.at <= time.time()


async def test_who_waits_is_told_what_for(shop: Shop) -> None:
    here = Partition.only(shop.redis)
    (job,) = await shop.place.accept(body("evt_1"))
    assert (await shop.told(job))[-1].text == "in line, 0 ahead of it"
    await organizations.pause(here, "org_a", "by alice")
    assert await shop.place.claim() == []
    assert (await shop.told(job))[-1].text == "parked: its organization is paused (by alice)"
    await organizations.resume(here, "org_a", 1000)
    await shop.run(Throttled(after=1800, why="429"))
    assert await shop.place.claim() == []
    *_, throttled, waits = await shop.told(job)
    assert throttled.text == "throttled once by its organization's own system"
    asked = re.fullmatch(
        r"parked: its organization's own system asks for fewer calls since (.*) UTC, 29m .*",
        waits.text,
    )
    assert asked is not None
    since = datetime.fromisoformat(f"{asked[1]}+00:00")
    assert abs(datetime.now(UTC) - since) < timedelta(minutes=1)
    await organizations.resume(here, "org_a", 1000)
    await shop.place.transitions.publish([Profile("org_a", 1)])
    ((claim, _),) = await shop.place.claim()
    assert claim.job == job
    *_, running = await shop.told(job)
    assert running.happened == "running"
    (other,) = await shop.place.accept(body("evt_2"))
    assert await shop.place.claim() == []
    assert (await shop.told(other))[
        -1
    ].text == "parked: its organization has no free slot (1 of 1 taken)"


async def test_a_breaker_and_a_missing_handler_are_told(redis: Redis) -> None:
    handlers = Handlers()
    place = Workplace(redis, handlers, replace(POLICY, no_handler_patience=600))
    (job,) = await place.accept(body("evt_1"))
    assert await place.handle_next() is Settled.WAITING
    found = await lookup.find(Partition.only(redis), job)
    assert found is not None
    assert ", since no worker could handle it from " in found.place.text
    until = f"{(time.time() + 60) * 1000:.0f}"
    await redis.hset(Partition.only(redis).names.organizations, "breaker:org_b", f"open:{until}")
    (other,) = await place.accept(body("evt_2", "org_b"), organization="org_b")
    assert await place.claim() == []
    found = await lookup.find(Partition.only(redis), other)
    assert found is not None
    assert "its organization's handlers kept failing: one event is tried in" in found.place.text


@pytest.mark.parametrize("width", [60, 100])
async def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(
    shop: Shop, width: int
) -> None:
    (job,) = await shop.place.accept(body("evt_1"))
    await shop.run(ValueError("refused " * 20), ValueError("two\x1b[2J"))
    lines = list(written(await shop.told(job), width))
    assert max(map(len, lines)) <= width
    text = "".join("".join(lines).split())  # a long name is broken where there is no room
    assert "\x1b" not in text
    assert r"ValueError:two\x1b[2J" in text
    assert "becameadeadletterafter2attempts:exhausted" in text
    assert f"by{HANDLER}on{WORKER}" in text


async def test_the_command_shows_it(shop: Shop, redis_server: EmbeddedRedis) -> None:
    (job,) = await shop.place.accept(body("evt_1"))
    await shop.run(ValueError("one"))

    def asked(*words: str, of: str = "events") -> str:
        environment = {"REDIS_URL": redis_server.url, "ENDPOINTS_FILE": "/nowhere"}
        done = CliRunner().invoke(main, (of, "show", *words), env=environment)
        assert done.exit_code == 0, done.output
        return done.stdout

    text = await asyncio.to_thread(asked, "evt_1")
    assert "accepted through endpoint acme" in text
    assert f"by {HANDLER} on {WORKER}" in text
    told = json.loads(await asyncio.to_thread(asked, job, "--json"))["timeline"]
    assert [each["happened"] for each in told] == ["accepted", "failed", "waits"]
    assert told[1]["attempt"] == 1
    assert told[1]["said"] == "ValueError: one"
    await shop.run(ValueError("two"))
    letter = await asyncio.to_thread(asked, job, "--json", of="dead-letters")
    assert [(each["attempt"], each["said"]) for each in json.loads(letter)["history"]] == [
        *((1, "ValueError: one"), (2, "ValueError: two")),
    ]
    assert "failed 2: ValueError: two\n" in await asyncio.to_thread(asked, job, of="dead-letters")
