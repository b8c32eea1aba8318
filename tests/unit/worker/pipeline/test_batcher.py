"""Facts about how the worker speaks with a Redis that goes away."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.errors import Unavailable
from shared.queue.keys import UNTAGGED
from tests.integration.workplace import Lines
from worker.pipeline.batcher import Batcher, Outage
from worker.pipeline.transitions import Claim, Settled, Settlement, Transitions

CLAIM = Claim("org_a:1", "aa")


class Flaky:
    """Transitions whose replies get lost a number of times."""

    names = UNTAGGED

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        self.calls += 1
        if self.calls <= self.failures:
            raise RedisConnectionError("reset")
        return [Settled.DONE] * len(settlements)

    mark = read = settle


def batcher(flaky: Flaky, lines: Lines, patience: float) -> Batcher:
    return Batcher(cast("Transitions", flaky), patience=patience, log=lines.log)


async def test_a_settlement_whose_reply_was_lost_is_sent_again_and_said_once() -> None:
    flaky, lines = Flaky(failures=2), Lines()
    settled = await batcher(flaky, lines, patience=5).settle(Settlement(CLAIM, "done"))
    assert settled is Settled.DONE
    assert flaky.calls == 3
    assert lines.events() == ["redis_lost", "redis_back"]


async def test_patience_ends_and_the_lease_has_to_do_it() -> None:
    flaky, lines = Flaky(failures=1000), Lines()
    with pytest.raises(Unavailable) as caught:
        await batcher(flaky, lines, patience=0).settle(Settlement(CLAIM, "done"))
    assert caught.value.code == "redis_unreachable"
    assert lines.events() == []


async def test_settlements_that_come_together_share_one_call() -> None:
    flaky, lines = Flaky(failures=0), Lines()
    mine = batcher(flaky, lines, patience=1)
    results = await asyncio.gather(*(mine.settle(Settlement(CLAIM, "done")) for _ in range(20)))
    assert results == [Settled.DONE] * 20
    assert flaky.calls == 1
    await mine.drain()


async def test_an_outage_pauses_longer_each_time_up_to_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("worker.pipeline.batcher.asyncio.sleep", sleep)
    outage = Outage(Lines().log, "claim")
    for _ in range(7):
        await outage.pause(RedisConnectionError())
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    outage.over()
    assert not outage.is_on
