"""Facts about organizations that have nothing any more: Redis forgets them, and nobody else."""

from typing import Any

import pytest
from redis.asyncio import Redis

from shared.endpoints.endpoint import Rate
from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.by_hand import Hand
from tests.integration.jobs import delivery, enqueued
from tests.integration.test_fairness import handled, share, wait
from tests.integration.workplace import Lines
from worker.engine.leases import Leases, roster
from worker.operate import organizations
from worker.operate.upkeep import Listed, forget, unlist
from worker.pipeline.transitions import Profile, Transitions

LEFT = ("org_left", "org_also")
STAYS = ["org_a", "org_b"]


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis)


async def now_ms(redis: Redis) -> int:
    seconds, _ = await redis.time()
    return int(seconds) * 1000


async def flows(redis: Redis) -> set[str]:
    return {name.decode() for name in await redis.hkeys(keys.FLOWS)}


# Flows


async def test_flows_of_those_who_have_nothing_go(redis: Redis, hand: Hand) -> None:
    sent = [delivery(b"{}", f"org_{n}") for n in range(1200)]
    for start in range(0, 1200, 400):
        await enqueued(redis, *sent[start : start + 400])
    while claims := await hand.claim(400):
        (last, *others) = claims
        await hand.finish(others)
        await hand.retry(last)
        await hand.come_due(last.job)
        await hand.finish(await hand.claim(1))
    await redis.hset(keys.FLOWS, "retry:org_7", "nan")  # somebody's hand
    assert len(await flows(redis)) > 2400
    await forget(Partition.only(redis))
    assert await flows(redis) == {"*"}


async def test_whoever_has_something_waiting_keeps_its_flow(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, delivery())
    await hand.claim_only(job)  # the system's time is its flow's
    await forget(Partition.only(redis))
    assert await flows(redis) == {"*", "org_a", "order:org_a"}


async def test_a_flow_that_is_ahead_stays(redis: Redis, hand: Hand) -> None:
    """Or whoever has had more than its share would begin anew with the others."""
    await redis.hset(keys.FLOWS, mapping={"*": "7", "org_a": "7.5", "retry:org_a": "8"})
    await forget(Partition.only(redis))
    assert await flows(redis) == {"*", "org_a", "retry:org_a"}
    await redis.hset(keys.FLOWS, "*", "8")
    await forget(Partition.only(redis))
    assert await flows(redis) == {"*"}


async def test_the_order_of_acceptance_is_kept_for_an_hour(redis: Redis) -> None:
    now = await now_ms(redis)
    hour = 3_600_000
    orders = {"order:org_a": now - hour + 30_000, "order:org_b": now - hour - 30_000}
    await redis.hset(keys.FLOWS, mapping=orders)
    await forget(Partition.only(redis))
    assert await flows(redis) == {"order:org_a"}


async def test_shares_stay_as_they_are_while_others_are_forgotten(redis: Redis, hand: Hand) -> None:
    await wait(redis, 200, "org_a", 4.0)
    await wait(redis, 200, "org_b")
    order: list[str] = []
    for _ in range(10):
        await forget(Partition.only(redis))
        order += await handled(hand, 10, 5)
        await wait(redis, 1, "org_c", 100.0)
        await handled(hand, 1)
    assert abs(share(order, "org_a") - 80) <= 3
    await forget(Partition.only(redis))
    assert {"org_a", "org_b"} <= await flows(redis)


# What the endpoints file said


def leases(name: str, listed: list[Profile]) -> Leases:
    return Leases(
        worker=name,
        description=b"{}",
        slots=5,
        lease=30,
        held=list,
        stuck=lambda: 0,
        lost=lambda _: None,
        profiles=lambda: listed,
        log=Lines().log,
    )


def file_of(*names: str) -> list[Profile]:
    return [Profile(name, 1, rate=Rate.parse("5/s")) for name in names]


async def let_go(redis: Redis, *names: str) -> list[str]:
    """What a worker's upkeep does whose file has these; whom Redis knows afterwards."""
    listed = Listed(set(names), roster(names))
    await unlist(Partition.only(redis), lambda: listed, log=Lines().log)
    known = {name.decode() for name in await redis.hkeys(keys.ORGANIZATIONS)}
    rates = {name.decode() for name in await redis.hkeys(keys.RATES)}
    assert rates <= known | {f"next:{name}" for name in known}
    return sorted(name for name in known if ":" not in name)


@pytest.fixture
async def worker(redis: Redis) -> Leases:
    """A live one, whose file has lost two."""
    await Transitions(Partition.only(redis)).publish(file_of(*STAYS, *LEFT))
    worker = leases("w1", file_of(*STAYS))
    await worker.beat(Transitions(Partition.only(redis)))
    return worker


@pytest.mark.usefixtures("worker")
async def test_who_has_left_the_file_is_forgotten(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, delivery(organization="org_left"))
    claim = await hand.claim_only(job)
    assert await let_go(redis, *STAYS) == [*STAYS, "org_left"]
    await hand.finish([claim])
    await redis.hset(keys.ORGANIZATIONS, "breaker:org_left", "closed:1:0:1")
    await redis.hset(keys.RATES, "next:org_left", f"{await now_ms(redis) + 9_000}")
    assert await let_go(redis, *STAYS) == [*STAYS, "org_left"]  # its last start isn't over
    await redis.hset(keys.RATES, mapping={"next:org_left": "1", "ramp:org_left": "1:10:1"})
    assert await let_go(redis, *STAYS) == STAYS
    assert {name.decode() for name in await redis.hkeys(keys.ORGANIZATIONS)} == set(STAYS)
    assert {name.decode() for name in await redis.hkeys(keys.RATES)} == set(STAYS)


async def pause(redis: Redis, _: Hand) -> None:
    await organizations.pause(Partition.only(redis), "org_left", "why")


async def wait_for_a_worker(redis: Redis, _: Hand) -> None:
    await enqueued(redis, delivery(organization="org_left"))


async def die(redis: Redis, hand: Hand) -> None:
    await enqueued(redis, delivery(organization="org_left"))
    (claim,) = await hand.claim()
    await hand.mark(claim)
    await hand.dead(claim)
    await redis.hset(keys.RATES, "next:org_left", "1")


async def open_the_breaker(redis: Redis, _: Hand) -> None:
    await redis.hset(keys.ORGANIZATIONS, "breaker:org_left", f"open:{await now_ms(redis) + 9_000}")


async def try_one(redis: Redis, _: Hand) -> None:
    await redis.hset(keys.ORGANIZATIONS, "breaker:org_left", "trying:")


async def hold(redis: Redis, _: Hand) -> None:
    await redis.hset(keys.ORGANIZATIONS, "hold:org_left", f"{await now_ms(redis) + 9_000}:429")


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("has", [pause, wait_for_a_worker, die, open_the_breaker, try_one, hold])
async def test_whoever_has_something_keeps_all(redis: Redis, hand: Hand, has: Any) -> None:
    await has(redis, hand)
    before = await redis.hgetall(keys.ORGANIZATIONS)
    assert await let_go(redis, *STAYS) == [*STAYS, "org_left"]
    after = await redis.hgetall(keys.ORGANIZATIONS)
    assert {name: raw for name, raw in before.items() if b"org_also" not in name} == after


async def test_nothing_goes_that_another_live_workers_file_has(
    redis: Redis, worker: Leases
) -> None:
    everything = sorted((*STAYS, *LEFT))
    other = leases("w2", file_of(*everything))
    await other.beat(Transitions(Partition.only(redis)))
    assert await let_go(redis, *STAYS) == everything
    await Transitions(Partition.only(redis)).leave("w2")
    # Nor where a worker of an earlier version doesn't say what its file has.
    await Transitions(Partition.only(redis)).renew("w0", [], description=b"{}", slots=1, lease=30)
    assert await let_go(redis, *STAYS) == everything
    await Transitions(Partition.only(redis)).leave("w0")
    assert await let_go(redis, *STAYS) == STAYS
    # Nor where nobody says anything, nor for a file that somebody has emptied.
    await worker.beat(Transitions(Partition.only(redis)))
    assert await let_go(redis) == STAYS
    await Transitions(Partition.only(redis)).leave("w1")
    assert await let_go(redis, "org_a") == STAYS


class Between(Transitions):
    """Lets another worker's upkeep go between any two steps of this one."""

    async def renew(self, *arguments: Any, **options: Any) -> Any:
        await let_go(self._partition.redis, *STAYS)
        answer = await super().renew(*arguments, **options)
        await let_go(self._partition.redis, *STAYS)
        return answer

    async def publish(self, *arguments: Any) -> None:
        await let_go(self._partition.redis, *STAYS)
        await super().publish(*arguments)
        await let_go(self._partition.redis, *STAYS)


@pytest.mark.usefixtures("worker")
async def test_a_file_that_gets_back_who_has_left_has_its_cap(redis: Redis) -> None:
    """Whatever a worker does meanwhile whose file doesn't have it yet."""
    listed = file_of(*STAYS)
    other = leases("w2", listed)
    other.profiles = lambda: listed
    await other.beat(Transitions(Partition.only(redis)))
    listed = file_of(*STAYS, "org_left")  # Redis knows it still: that is no news
    await other.tell_changes(Between(Partition.only(redis)))
    assert await let_go(redis, *STAYS) == [*STAYS, "org_left"]
    assert await redis.hget(keys.ORGANIZATIONS, "org_left") == b"1:1.0"
