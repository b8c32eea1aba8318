"""Facts about what is due and another worker could take: nothing else is to call for workers."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.endpoints.endpoint import Rate
from shared.queue import due, keys
from shared.queue.due import Due, Longest, Look
from shared.queue.partition import Partition
from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization
from worker.operate import organizations, revival
from worker.outcomes import Reject, Retry
from worker.pipeline.transitions import Profile

AGE = 3 * 3600
"""Seconds since which everything here has been accepted."""


class Place(Workplace):
    """Where much has been accepted long ago, and somebody looks at what is due."""

    def __init__(self, redis: Redis, handlers: Handlers | None = None, **named: Any) -> None:
        super().__init__(redis, handlers, **named)
        self.look = Look(self.partition)
        self.slots = 0
        self.skew = 0.0

    async def accept_old(self, *bodies: bytes, age: float = AGE, **named: Any) -> list[str]:
        """Accept these so many seconds ago."""
        seconds, _ = await self.redis.time()
        return await self.accept(*bodies, received_at=round((seconds - age) * 1000), **named)

    async def found(self) -> Due:
        """What another look finds."""
        seconds, micros = await self.redis.time()
        parked = 1 if await self.redis.keys("sellfern:parked:*") else 0
        return await self.look.read(
            seconds + micros / 1e6 + self.skew,
            slots=self.slots,
            parked=parked,
        )

    async def longest(self) -> tuple[int, float]:
        """How much is due, and for how long the first of it has been."""
        found = await self.found()
        return found.events, max(each.seconds for each in found.longest.values())

    async def whose(self) -> tuple[int, str]:
        """How much is due, and whose has been longest."""
        found = await self.found()
        return found.events, found.longest[""].organization


@pytest.fixture
def place(redis: Redis) -> Place:
    return Place(redis)


async def test_what_is_in_line_has_been_due_since_it_was_accepted(place: Place) -> None:
    assert await place.found() == Due(0, {"": Longest()})
    await place.accept_old(body(), age=100)
    await place.accept(body(), body(organization="org_b"), organization="org_b")
    place.look = Look(place.partition)
    events, seconds = await place.longest()
    assert events == 3
    assert 100 <= seconds < 130
    assert await place.whose() == (3, "org_a")


async def pause(place: Place) -> None:
    await organizations.pause(place.partition, "org_a", "why")


async def cap(place: Place) -> None:
    await place.transitions.publish([Profile("org_a", 1, 1.0)])
    await place.accept_old(body(), organization="org_a", age=AGE + 1)
    assert len(await place.claim(1)) == 1


async def rate(place: Place) -> None:
    await place.transitions.publish([Profile("org_a", None, 1.0, Rate("1/h", 3_600_000))])
    await place.accept_old(body(), organization="org_a", age=AGE + 1)
    assert len(await place.claim(1)) == 1


async def breaker(place: Place) -> None:
    await place.redis.hset(keys.ORGANIZATIONS, f"{keys.BREAKER}org_a", "open:9999999999999")


async def tried(place: Place) -> None:
    await place.redis.hset(keys.ORGANIZATIONS, f"{keys.BREAKER}org_a", "trying:org_a:1")


async def hold(place: Place) -> None:
    seconds, _ = await place.redis.time()
    until = f"{(seconds + 600) * 1000}:too many requests"
    await place.redis.hset(keys.ORGANIZATIONS, f"{keys.HOLD}org_a", until)


@pytest.mark.parametrize("wait", [pause, cap, rate, breaker, tried, hold])
async def test_what_waits_for_something_else_than_a_worker_is_not_due(
    place: Place, wait: Callable[[Place], Awaitable[None]]
) -> None:
    """Neither in line, where it stands while nobody claims, nor parked by a claim."""
    await wait(place)
    await place.accept_old(body(), body())
    assert (await place.found()).events == 0
    place.slots = 100
    await place.claim(10)
    assert await place.redis.zcard(keys.parked("org_a")) == 2
    assert await place.longest() == (0, 0.0)


async def test_a_next_attempt_is_due_from_its_moment_on_and_needs_no_claim_for_that(
    redis: Redis,
) -> None:
    handlers = Handlers()

    @handlers.on("order.updated")
    async def act(_: Event[Any], __: Organization) -> None:
        raise Retry(3600)

    place = Place(redis, handlers)
    await place.accept_old(body())
    await place.run(*(await place.claim())[0])
    assert await place.longest() == (0, 0.0)
    place.skew = 3660
    events, seconds = await place.longest()
    assert events == 1
    assert 55 < seconds < 100
    await place.found()
    await place.transitions.publish([Profile("org_a", 1, 1.0)])  # its slot is its own
    assert (await place.longest())[0] == 1


async def test_what_a_dead_worker_had_is_due_from_the_end_of_its_lease(place: Place) -> None:
    await place.accept_old(body(), body())
    await place.transitions.publish([Profile("org_a", 2, 1.0)])
    await place.claim(2, lease=30)
    assert await place.longest() == (0, 0.0)
    place.skew = 40
    events, seconds = await place.longest()
    assert (events, 5 < seconds < 40) == (2, True)


@pytest.mark.parametrize("kind", ["breaker", "hold"])
async def test_a_wait_that_is_over_is_seen_where_no_worker_ends_it(place: Place, kind: str) -> None:
    seconds, _ = await place.redis.time()
    await (breaker if kind == "breaker" else hold)(place)
    await place.accept_old(body(), body())
    await place.claim(2)
    ended = (seconds - 50) * 1000
    if kind == "breaker":
        await place.redis.hset(keys.ORGANIZATIONS, f"{keys.BREAKER}org_a", f"open:{ended}")
        await place.redis.zadd(keys.BREAKERS, {"org_a": ended})
    else:
        await place.redis.hset(keys.ORGANIZATIONS, f"{keys.HOLD}org_a", f"{ended}:why")
        await place.redis.zadd(keys.DUE, {f"{keys.HOLD}org_a": ended})
    events, seconds = await place.longest()
    assert (events, 50 <= seconds < 80) == (1, True)


async def test_what_goes_on_after_a_pause_has_been_due_since_then(place: Place) -> None:
    await pause(place)
    await place.accept_old(*(body() for _ in range(20)))
    assert (await place.found()).events == 0
    await place.claim(20)
    assert (await place.found()).events == 0
    await organizations.resume(place.partition, "org_a")
    events, seconds = await place.longest()
    assert events
    assert seconds < 30
    place.skew = 60  # nobody takes them
    assert 60 <= (await place.longest())[1] < 90


async def test_who_comes_after_the_first_look_and_was_there_before_is_as_old_as_it_is(
    place: Place,
) -> None:
    await place.accept_old(body())
    assert (await place.longest())[1] >= AGE
    assert (await place.longest())[1] >= AGE


async def test_a_letter_that_is_replayed_is_due_since_then(redis: Redis) -> None:
    handlers = Handlers()

    @handlers.on("order.updated")
    async def act(_: Event[Any], __: Organization) -> None:
        raise Reject("no")

    place = Place(redis, handlers)
    (job,) = await place.accept_old(body())
    await place.run(*(await place.claim())[0])
    assert (await place.found()).events == 0
    assert await revival.replay_one(place.partition, job) == "queued"
    events, seconds = await place.longest()
    assert (events, seconds < 30) == (1, True)


async def test_what_is_beyond_the_share_of_one_organization_is_due_as_more_workers_raise_it(
    place: Place,
) -> None:
    """It is no cap of its own: with 5 more slots 4 more of these would run."""
    await place.transitions.renew("w1", [], description=b"{}", slots=5, lease=30)
    place.slots = 5
    await place.accept_old(*(body() for _ in range(50)), age=100)
    assert len(await place.claim(5)) == 4
    assert await place.redis.zcard(keys.parked("org_a")) == 46
    for _ in range(2):
        events, seconds = await place.longest()
        assert (events, 100 <= seconds < 130) == (46, True)
    place.slots = 50
    assert (await place.found()).events == 0


async def test_what_is_parked_in_its_masses_says_nothing_of_who_has_waited_longer(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "_ASKED_AT_ONCE", 2)
    await place.transitions.renew("w1", [], description=b"{}", slots=5, lease=30)
    place.slots = 5
    await place.accept_old(*(body() for _ in range(10)), age=100)
    await place.claim(5)
    for name in ("org_x", "org_y"):
        await place.accept_old(body(organization=name), organization=name)
        await organizations.pause(place.partition, name, "why")
    assert await place.whose() == (6, "org_a")


async def test_of_many_organizations_the_oldest_are_asked_about_until_one_is_free(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "_ASKED_AT_ONCE", 2)
    names = [f"org_{number}" for number in range(9)]
    for age, name in enumerate(names):
        await place.accept_old(body(organization=name), organization=name, age=AGE - 60 * age)
    for name in names[:5]:
        await organizations.pause(place.partition, name, "why")
    found = await place.found()
    assert (found.events, found.longest[""].organization) == (4, names[5])
    assert AGE - 301 < found.longest[""].seconds < AGE - 260


async def test_beyond_what_is_looked_at_everything_counts_and_nothing_is_younger_than_it_is(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "LOOKED_AT", 4)
    await place.found()
    await place.accept_old(*(body() for _ in range(10)))
    await place.found()
    events, seconds = await place.longest()
    assert events == 10
    assert seconds < 60  # none of them was there at the first look
    await place.claim(4)
    events, seconds = await place.longest()
    assert (events, seconds >= AGE) == (6, True)


async def test_what_somebody_s_hand_has_written_is_no_reason_to_wait(place: Place) -> None:
    for prefix in ("", keys.BREAKER, keys.HOLD):
        await place.redis.hset(
            keys.ORGANIZATIONS, f"{prefix}org_a", "trying:?:x" if not prefix else "x:y"
        )
    await place.redis.hset(keys.RATES, "next:org_a", "soon")
    await place.redis.hset(keys.ORGANIZATIONS, "org_b", "²:1")
    await place.accept_old(body())
    await place.accept(body(organization="org_b"), organization="org_b")
    await place.redis.zadd(keys.QUEUE, {"nobody's": 1, "name_taken:x": 1})
    assert await place.whose() == (2, "org_a")


async def test_a_partition_is_named_by_its_number(redis: Redis) -> None:
    partition = Partition.at(3, redis)
    place = Place(redis, names=partition.names)
    place.look = Look(partition)
    await place.accept_old(body(), age=70)
    found = await place.found()
    assert [*found.longest] == ["3"]
    assert 70 <= found.longest["3"].seconds < 100
    other = Longest(5.0, "org_z")
    both = due.together([found, Due(2, {"1": other})])
    assert both == Due(3, {"1": other, "3": found.longest["3"]})
