"""Facts about how it is told that an organization's handlers fail: since when, and of what."""

import re
import time
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.queue.reach import Reach
from tests.integration.by_hand import Hand
from tests.integration.workplace import POLICY, Workplace, body
from worker import Event, Handlers, Organization, Reject, Retry
from worker.operate import lookup, organizations
from worker.operate.console.attention import Finding, findings
from worker.operate.history import History
from worker.operate.organizations import Trouble
from worker.operate.overview import OrganizationOverview, Overview, read_overview
from worker.pipeline.policy import Backoff, Breaker
from worker.pipeline.transitions import Settled


class Shop:
    """A worker whose handler ends as it is told to."""

    def __init__(self, redis: Redis) -> None:
        self.redis, self.end = redis, None
        handlers = Handlers()
        handlers.on("order.updated")(self.handle)
        soon = Backoff(base=0.001, cap=0.001)
        policy = replace(POLICY, backoff=soon, breaker=Breaker(failures=0), no_handler_patience=60)
        self.place = Workplace(redis, handlers, policy)

    end: object

    async def handle(self, _event: Event[Any], _organization: Organization) -> None:
        if isinstance(self.end, BaseException):
            raise self.end

    async def run(self, *ends: object) -> list[Settled]:
        settled = []
        for self.end in ends:
            settled.append(await self.place.handle_next())
        return settled

    async def overview(self) -> Overview:
        return await read_overview(Partition.only(self.redis))

    async def organization(self) -> OrganizationOverview:
        (found,) = (await self.overview()).organizations
        return found

    async def trouble(self) -> Trouble:
        found = (await self.organization()).trouble
        assert found is not None
        return found

    async def age(self, seconds: int) -> None:
        """Let what it has noted be so long ago."""
        name = f"{keys.TROUBLE}org_a"
        raw = (await self.redis.hget(keys.ORGANIZATIONS, name)).decode()
        numbers, _, error = raw.partition("\n")
        worked, since, last, soon, latest, *rest = numbers.split(":")
        earlier = [
            str(max(0, int(each) - seconds * 1000)) for each in (worked, since, last, soon, latest)
        ]
        await self.redis.hset(keys.ORGANIZATIONS, name, ":".join([*earlier, *rest]) + "\n" + error)


def told(overview: Overview) -> list[Finding]:
    """What the overview says of the organization."""
    return [each for each in findings(overview, History()) if each.about == "org_a"]


@pytest.fixture
def shop(redis: Redis) -> Shop:
    return Shop(redis)


async def test_events_put_off_for_an_hour_are_not_called_flowing(shop: Shop) -> None:
    await shop.place.accept(*(body() for _ in range(8)))
    await shop.run(*[Retry(after=3600, why="the warehouse is closed")] * 8)
    each, overview = await shop.organization(), await shop.overview()
    assert (each.waiting, each.running, each.failures) == (8, 0, 0)
    trouble = await shop.trouble()
    assert (trouble.word, trouble.failed, trouble.worked) == ("put off", 8, None)
    said = trouble.sentence(overview.at)
    assert said.startswith("8 attempts since 0s ago, the last 0s ago: the warehouse is closed; ")
    assert "next try in 59m" in said
    (finding,) = told(overview)
    assert finding.what.startswith("org_a: its events are put off. 8 attempts since 0s ago")
    # Half an hour later as well.
    await shop.age(1800)
    assert "next try in 29m" in (await shop.trouble()).sentence(time.time())


async def test_an_error_ends_with_a_whole_character(shop: Shop) -> None:
    await shop.place.accept(body())
    await shop.run(KeyError("東" * 100))
    error = (await shop.trouble()).error
    assert error == "KeyError: '" + "東" * (len(error) - len("KeyError: '"))
    assert len(error) > 50


async def test_the_next_try_is_the_breaker_s_while_that_is_open(shop: Shop) -> None:
    """Whenever the events that have failed are due."""
    shop.place.pipeline = replace(
        shop.place.pipeline,
        policy=replace(
            shop.place.pipeline.policy,
            backoff=Backoff(base=10, cap=10),
            breaker=Breaker(failures=3, cool_off=600),
        ),
    )
    await shop.place.accept(*(body() for _ in range(3)))
    await shop.run(*[KeyError("x")] * 3)
    each, overview = await shop.organization(), await shop.overview()
    assert each.breaker == "open"
    (finding,) = told(overview)
    assert "3 attempts since" in finding.what
    assert "next try" not in finding.what
    assert each.next_try(overview.at).startswith("one event in 9m 5")
    assert "next try" not in each.failing(overview.at)
    await shop.redis.hset(keys.ORGANIZATIONS, f"{keys.BREAKER}org_a", "trying:")
    trying = await shop.organization()
    assert (trying.breaker, trying.next_try(overview.at)) == ("trying", "one event is tried now")


async def test_what_no_worker_can_handle_has_had_no_attempt(shop: Shop) -> None:
    await shop.place.accept(*(body(type="order.created") for _ in range(5)))
    assert await shop.run(*[None] * 5) == [Settled.WAITING] * 5
    overview = await shop.overview()
    (finding,) = told(overview)
    assert "put off. Since 0s ago: no handler is registered for order.created; next try" in (
        finding.what
    )
    assert "attempt" not in finding.what + finding.advice


async def test_what_is_due_behind_the_first_is_not_called_the_next_try(shop: Shop) -> None:
    await shop.place.accept(body(), body())
    await shop.run(Retry(after=60), Retry(after=3600))
    trouble = await shop.trouble()
    now = trouble.last + 61
    assert trouble.sentence(now).endswith("; the last of them is due in 58m 59s")


async def test_an_organization_that_moves_is_not_said_to_be_throttled(shop: Shop) -> None:
    await shop.place.accept(body())
    until = round((time.time() + 300) * 1000)
    hold = {f"{keys.HOLD}org_a": f"{until}:it moves to another partition"}
    await shop.redis.hset(keys.ORGANIZATIONS, mapping=hold)
    (finding,) = told(await shop.overview())
    assert finding.what == "org_a moves to another partition. 1 event waits."
    each = await shop.organization()
    assert each.hold_word == "moving"
    assert re.fullmatch(r"to another partition, for 4m \d+s at the most", each.hold_told)
    then = r"in 4m \d+s at the most, once it has moved"
    assert re.fullmatch(then, each.next_try(time.time()))
    found = await lookup.oldest(Reach(Partitions.only(shop.redis)))
    assert "its organization moves to another partition, 4m 59s still" in found[0].place.text


async def test_since_when_is_the_first_of_failures_that_follow_each_other(shop: Shop) -> None:
    await shop.place.accept(body(), body(), body())
    await shop.run(KeyError("one"))
    await shop.age(600)
    await shop.run(KeyError("two"))
    trouble = await shop.trouble()
    assert trouble.failed == 2
    assert trouble.error == "KeyError: 'two'"
    assert trouble.handler == f"{__name__}.Shop.handle"
    assert 599 <= trouble.last - trouble.since < 660
    await shop.age(1000)
    assert (await shop.organization()).trouble is None  # it has been quiet since
    await shop.run(KeyError("three"))
    trouble = await shop.trouble()
    assert (trouble.failed, trouble.last == trouble.since) == (1, True)


@pytest.mark.parametrize("written", [(), (("put", "x", 0, "1"),)], ids=["plainly", "a value"])
async def test_once_a_handler_works_again_only_some_fail(
    shop: Shop, written: tuple[Any, ...]
) -> None:
    """Whether the script has to look at values or does it plainly."""
    hand = Hand(shop.redis)
    await shop.place.accept(body(), body(), body())
    await shop.run(Retry(after=0, why="not yet"))  # of which no breaker keeps count
    ((claim, _),) = await shop.place.claim()
    await hand.mark(claim, "evt_other")
    details = (3_600_000, (), written, True)
    assert await hand._settle(claim, "done", details) is Settled.DONE
    trouble = await shop.trouble()
    assert trouble.word == "some fail"
    assert trouble.worked is not None
    assert told(await shop.overview()) == []
    await shop.run(KeyError("two"))
    assert ((await shop.trouble()).word, (await shop.trouble()).failed) == ("failing", 2)


async def test_who_rejects_them_all_fails_as_well_and_who_has_no_handler(shop: Shop) -> None:
    await shop.place.accept(body())
    await shop.run(Reject("we don't know this customer"))
    trouble = await shop.trouble()
    assert (trouble.word, trouble.error) == ("failing", "we don't know this customer")
    assert trouble.next_at is None
    await shop.place.accept(body(type="order.created"))
    assert await shop.run(None) == [Settled.WAITING]
    assert ((await shop.trouble()).word, (await shop.trouble()).error) == (
        *("no handler", "no handler is registered for order.created"),
    )


@pytest.mark.parametrize("raw", ["", "0:1:2", "0:x:1:1:1:1:f:h\nerror", "\n\n"])
async def test_what_somebody_s_hand_has_written_is_no_trouble(
    redis: Redis, shop: Shop, raw: str
) -> None:
    await redis.hset(keys.ORGANIZATIONS, f"{keys.TROUBLE}org_a", raw)
    await shop.place.accept(body())
    assert (await shop.organization()).trouble is None
    assert await shop.run(KeyError("one")) == [Settled.RETRIED]
    assert (await shop.trouble()).failed == 1
    await shop.run(None)


async def test_who_has_paused_it_and_when_is_told(redis: Redis, shop: Shop) -> None:
    here = Partition.only(redis)
    await shop.place.accept(body())
    assert await organizations.pause(here, "org_a", "maintenance", "alice")
    each = await shop.organization()
    assert (each.paused, each.paused_by) == ("maintenance", "alice")
    assert each.paused_since is not None
    now = each.paused_since + 300
    assert each.pause_told(now) == "maintenance, by alice, 5m 0s ago"
    assert (await organizations.pause_of(here, "org_a")).by == "alice"
    assert await organizations.resume(here, "org_a")
    # Whom nobody names, as a command of an earlier version doesn't.
    await organizations.pause(here, "org_a", "by an operator")
    assert (await shop.organization()).pause_told(now) == "by an operator"
