"""Facts about how a dead letter is shown whose redeliveries are held."""

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.integration.console.site import Site, browsing
from tests.integration.jobs import counters
from tests.integration.test_dead_letter_commands import Desk, lines, rejecting, working
from tests.integration.workplace import Workplace, body
from worker.pipeline.transitions import Settled

HELD = body("evt_held")


async def held_twice(redis: Redis) -> None:
    """A dead event after a redelivery that revived it, two that did not, and one that waits."""
    place = Workplace(redis, rejecting())
    ends = [await place.handle(HELD) for _ in range(4)]
    assert ends == [Settled.DEAD, Settled.DEAD, Settled.HELD, Settled.HELD]
    await place.accept(HELD)


@pytest.fixture
def desk(redis_server: EmbeddedRedis) -> Desk:
    """Give a desk with one that is held, of which another redelivery waits."""
    desk = Desk(redis_server)

    async def work(redis: Redis) -> None:
        await redis.flushall()
        await held_twice(redis)

    desk.do(work)
    return desk


def test_the_commands_tell_of_redeliveries_that_were_held(desk: Desk) -> None:
    (letter,) = lines(desk.run("list", "--json"))
    assert letter["held"] == 2
    assert letter["held_at"] >= letter["died"]
    table = [line.split() for line in desk.run("list").stdout.splitlines()]
    header = next(row for row in table if "attempts" in row)
    assert header.index("held") == header.index("attempts") + 1
    shown = desk.run("show", letter["job"]).stdout
    assert "        held  2\n" in shown
    assert f"     held at  {letter['held_at']}\n" in shown
    assert desk.handle_all() == [Settled.HELD]
    desk.bury("evt_other")
    letters = {each["event_id"]: each for each in lines(desk.run("list", "--json"))}
    other = letters["evt_other"]
    assert (other["held"], other["held_at"]) == (0, None)
    assert letters["evt_held"]["held"] == 3


def test_a_replay_runs_though_a_redelivery_waits_that_would_be_held(desk: Desk) -> None:
    done = desk.run("replay", desk.job("evt_held"), "--yes")
    assert "1 waiting already" in done.stdout
    assert desk.handle_all(working()) == [Settled.DONE]
    assert desk.listed() == []
    assert desk.do(counters)["held"] == 2


async def test_the_console_tells_of_them_and_offers_a_replay(redis: Redis) -> None:
    """A redelivery in line is no replay: it may be held, which a replay never is."""
    await held_twice(redis)
    async with browsing(redis) as site:
        listed = await site.get("/dead-letters")
        assert "held 2" in listed.text
        (link,) = listed.links("/event?")
        opened = await site.get(link)
        assert "2 redeliveries that came too often, or too soon" in opened.text
        assert "It was redelivered" in opened.text
        await replayed(site, opened.links("/dead-letters/confirm?"))
        again = await site.get(link)
        assert "It was replayed, and waits" in again.text
        assert not again.links("/dead-letters/confirm?")
    place = Workplace(redis, working())
    assert await place.handle_next() is Settled.DONE


async def replayed(site: Site, links: list[str]) -> None:
    """Follow the only link there is, and say yes."""
    (link,) = links
    answer = await site.confirm(link)
    assert "now counts as replayed" in answer.text
