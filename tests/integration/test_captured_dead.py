"""Facts about a captured delivery of a dead event: whoever has it can send it again and again."""

from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.observe import metrics
from shared.queue.job import job_id
from shared.redis.wire import Wire
from tests.integration.by_hand import Hand
from tests.integration.jobs import NOTHING, account, counters, record_of
from tests.integration.test_breaker import IN_A_ROW, POLICY_OF_THREE, Shop, broken
from tests.integration.workplace import Workplace, body
from worker.pipeline.transitions import Settled

CAPTURED = body("evt_captured")
JOB = job_id("org_a", CAPTURED)


class Besieged(Shop):
    """A shop in which the first failure of an event is its end."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        policy = replace(POLICY_OF_THREE, max_attempts=1)
        self.place = Workplace(redis, self.place.handlers, policy)
        self.hand = Hand(redis)
        self.instead = broken

    async def send(self) -> Settled:
        """Send the captured delivery once more, and handle it."""
        return await self.place.handle(CAPTURED)

    @property
    def runs(self) -> int:
        """How often its handler has run."""
        return self.seen.count("evt_captured")


@pytest.fixture
def besieged(redis: Redis) -> Besieged:
    return Besieged(redis)


async def test_hundreds_of_them_run_it_20_times_and_leave_the_breaker_closed(
    redis: Redis, besieged: Besieged
) -> None:
    """However long it goes on: a minute goes by every ten of them."""
    assert await besieged.send() is Settled.DEAD
    ends = []
    for number in range(300):
        ends.append(await besieged.send())
        if ends[-1] is Settled.DEAD:
            assert (await besieged.of()).breaker is None
        if number % 10 == 9:
            await besieged.hand.wait_a_minute("evt_captured")
    assert (ends.count(Settled.DEAD), ends.count(Settled.HELD)) == (20, 280)
    assert besieged.runs == 21
    assert (await record_of(redis, JOB))["held"] == str(280 - 19 * 9)
    assert await account(redis) == NOTHING

    besieged.instead = None
    assert await besieged.place.handle(body("evt_healthy")) is Settled.DONE


def counted_as(outcome: str) -> float:
    """What this process's metric says."""
    name, labels = "sellfern_events_total", {"outcome": outcome}
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


async def test_one_that_is_held_runs_nothing_and_is_told(redis: Redis, besieged: Besieged) -> None:
    for _ in range(2):
        assert await besieged.send() is Settled.DEAD
    before, runs, lines = counted_as("held"), besieged.runs, len(besieged.place.lines.events())
    assert await besieged.send() is Settled.HELD
    assert besieged.runs == runs
    assert counted_as("held") == before + 1
    assert besieged.place.lines.events()[lines:] == ["event_held"]
    (line,) = besieged.place.lines.of("event_held")
    assert (line["job"], line["event_id"]) == (JOB, "evt_captured")
    counted = await counters(redis)
    assert counted["held"] == 1
    assert not counted.keys() & {"handled", "duplicate"}


async def test_one_that_is_held_and_has_other_bytes_is_told_as_conflicting(
    redis: Redis, besieged: Besieged
) -> None:
    for _ in range(2):
        assert await besieged.send() is Settled.DEAD
    before, lines = counted_as("conflicting"), len(besieged.place.lines.events())
    assert await besieged.place.handle(CAPTURED + b" ") is Settled.HELD
    assert counted_as("conflicting") == before + 1
    assert besieged.place.lines.events()[lines:] == ["event_conflicting", "event_held"]
    assert (await record_of(redis, JOB))["held"] == "1"


async def test_replayed_by_hand_before_it_has_left_it_runs(
    redis: Redis, besieged: Besieged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path goes back to mark, and takes the event to its handler."""
    for _ in range(2):
        assert await besieged.send() is Settled.DEAD
    besieged.instead = None
    transitions = besieged.place.transitions
    settle, answers = transitions._settle, list[Any]()

    async def settle_late(wire: Wire, *arguments: Any) -> Any:
        """Settle what has been marked as held after an operator's replay."""
        if not answers:
            assert await besieged.hand.replay(JOB) == "known"
        answers.append(await settle(wire, *arguments))
        return answers[-1]

    monkeypatch.setattr(transitions, "_settle", settle_late)
    assert await besieged.send() is Settled.DONE
    assert answers == [[b"again"], [b"done"]]
    assert besieged.runs == 3
    assert await account(redis) == NOTHING


async def test_a_replay_by_hand_counts_for_the_breaker_and_a_redelivery_does_not(
    redis: Redis, besieged: Besieged
) -> None:
    assert await besieged.send() is Settled.DEAD
    for _ in range(IN_A_ROW):
        assert await besieged.send() is Settled.DEAD
        await besieged.hand.wait_a_minute("evt_captured")
    assert (await besieged.of()).failures == 1
    for failures in range(2, IN_A_ROW):
        assert await besieged.hand.replay(JOB) == "queued"
        assert await besieged.place.handle_next() is Settled.DEAD
        assert (await besieged.of()).failures == failures
    assert await besieged.hand.replay(JOB) == "queued"
    assert await besieged.place.handle_next() is Settled.DEAD
    assert (await besieged.of()).breaker == "open"


async def opened(shop: Shop) -> None:
    """Let other events open the breaker, and its cool-off pass once some wait."""
    for _ in range(IN_A_ROW - 1):
        assert await shop.place.handle(body()) is Settled.DEAD
    assert (await shop.of()).breaker == "open"
    await shop.place.accept(CAPTURED, body("evt_healthy"))
    assert await shop.place.claim(10) == []
    await shop.cooled_off()


@pytest.mark.parametrize("cap", [None, 1])
async def test_a_trial_that_fails_lets_another_try(
    redis: Redis, besieged: Besieged, cap: int | None
) -> None:
    await besieged.hand.cap(cap)
    assert await besieged.send() is Settled.DEAD
    await opened(besieged)
    assert await besieged.place.handle_next() is Settled.DEAD
    assert besieged.seen[-1] == "evt_captured"
    assert (await besieged.of()).breaker == "trying"
    besieged.instead = None
    assert await besieged.place.handle_next() is Settled.DONE
    assert (await besieged.of()).breaker is None
    assert (await counters(redis))["breaker_opened"] == 1


async def test_in_order_a_trial_that_is_retried_does_not_open_it(redis: Redis) -> None:
    """It keeps the slot, so it is what is tried next."""
    shop = Besieged(redis)
    await shop.hand.cap(1)
    assert await shop.send() is Settled.DEAD
    await opened(shop)
    shop.place = Workplace(redis, shop.place.handlers, POLICY_OF_THREE)
    assert await shop.place.handle_next() is Settled.RETRIED
    assert (await shop.of()).breaker == "trying"
    shop.instead = None
    for event_id in ("evt_captured", "evt_healthy"):
        assert await shop.place.handle_next() is Settled.DONE
        assert shop.seen[-1] == event_id
    assert (await shop.of()).breaker is None


async def test_a_trial_that_is_held_lets_another_try(besieged: Besieged) -> None:
    for _ in range(2):
        assert await besieged.send() is Settled.DEAD
    await opened(besieged)
    assert await besieged.place.handle_next() is Settled.HELD
    assert (await besieged.of()).breaker == "trying"
    besieged.instead = None
    assert await besieged.place.handle_next() is Settled.DONE
    assert (await besieged.of()).breaker is None
