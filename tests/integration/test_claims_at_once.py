"""Facts about claims of one worker that are on their way together."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.queue import keys
from shared.queue.partition import Partition
from tests.bench.distance import distant
from tests.integration.jobs import NOTHING, account, counters
from tests.integration.workplace import Workplace, body, working
from worker import Event, Handlers, Organization
from worker.operate import organizations
from worker.pipeline.transitions import Claimed

SLOTS = 200
FULL = 48
"""Jobs of a full claim; beside the first one, three have room in the slots."""

EVENTS = 400

_HELD = 4
"""The last claim whose answer stays on its way."""


class Asked(NamedTuple):
    """One call of ``claim`` as it was sent."""

    holding: int
    most: int
    beside: list[int]


class Claims:
    """A worker's claims; the answers to those behind the first ones stay on their way."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, place: Workplace, passing: int | None = None
    ) -> None:
        self.asked: list[Asked] = []
        self.answers: list[Claimed] = []
        self.on_their_way: dict[str, int] = {}
        self.lost: set[str] = set()
        self.disowned: set[str] = set()
        self.are_lost = False
        self.go = asyncio.Event()
        self._passing = passing
        self._claim, self._disown = place.transitions.claim, place.transitions.disown
        monkeypatch.setattr(place.transitions, "claim", self.claim)
        monkeypatch.setattr(place.transitions, "disown", self.disown)

    async def claim(self, *arguments: Any, base: str, **options: Any) -> Claimed:
        assert self.lost <= self.disowned  # else Redis believes that their jobs have begun
        beside = list(self.on_their_way.values())
        self.asked.append(Asked(options["holding"], options["most"], beside))
        self.on_their_way[base] = options["holding"]
        is_held = self._passing is not None and self._passing < len(self.asked) <= _HELD
        try:
            claimed = await self._claim(*arguments, base=base, **options)
            if is_held:
                await self.go.wait()
            if is_held and self.are_lost:
                self.lost.add(base)
                raise RedisConnectionError("reset")
        finally:
            del self.on_their_way[base]
        self.answers.append(claimed)
        return claimed

    async def disown(self, base: str, *, lease: float) -> None:
        await self._disown(base, lease=lease)
        self.disowned.add(base)

    async def are_sent(self, number: int) -> None:
        """Wait until so many are on their way."""
        while len(self.on_their_way) < number:
            await asyncio.sleep(0.002)

    def none_saw_an_idle_worker_beside_another(self) -> bool:
        """Whether whoever was told that the worker holds nothing was alone on its way."""
        return all(not each.beside for each in self.asked if not each.holding) and all(
            0 not in each.beside for each in self.asked
        )


class Shop:
    """Handlers that end when they are told to."""

    def __init__(self, redis: Redis, key: str | None = None) -> None:
        self.go = asyncio.Event()
        self.running = self.most = 0
        self.beside_the_suspect: list[int] = []
        handlers = Handlers()

        @handlers.on("order.updated", key=key)
        async def act(event: Event[Any], _: Organization) -> None:
            self.running += 1
            self.most = max(self.most, self.running)
            if event.id == "evt_suspect":
                self.beside_the_suspect.append(self.running - 1)
            await self.go.wait()
            self.running -= 1

        self.place = Workplace(redis, handlers)

    async def accept(self, number: int = EVENTS) -> None:
        """Accept events of ten organizations."""
        for n in range(10):
            name = f"org_{n}"
            signed = [body(f"evt_{n}_{each}", name) for each in range(number // 10)]
            await self.place.accept(*signed, organization=name)


@pytest.fixture
def shop(redis: Redis) -> Shop:
    return Shop(redis)


async def until(redis: Redis, holds: Callable[[int], bool]) -> None:
    """Wait until the number of accepted and unfinished events is as it should be."""
    async with asyncio.timeout(30):
        while not holds(await redis.zcard(keys.ACCEPTED)):
            await asyncio.sleep(0.002)


async def drained(redis: Redis) -> None:
    await until(redis, lambda left: left == 0)


async def test_a_claim_reserves_its_slots_when_it_is_sent(
    redis: Redis, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = Claims(monkeypatch, shop.place, passing=1)
    await shop.accept()
    async with working(shop.place.worker(slots=SLOTS)):
        await claims.are_sent(3)
        assert [each.most for each in claims.asked] == [
            FULL
        ] * 4  # 8 slots are left: not a full one
        assert sum((await account(redis)).running.values()) == 4 * FULL
        claims.go.set()
        while shop.running < SLOTS:
            await asyncio.sleep(0.002)
        shop.go.set()
        await drained(redis)
    assert shop.most == SLOTS
    assert (await counters(redis))["handled"] == EVENTS
    assert await account(redis) == NOTHING


async def test_none_is_sent_beside_others_once_nothing_more_was_in_line(
    redis: Redis, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = Claims(monkeypatch, shop.place)
    shop.go.set()
    async with working(shop.place.worker(slots=SLOTS)):
        for number in range(5):
            await shop.place.accept(body(f"evt_{number}"))
            await drained(redis)
    assert all(not each.beside for each in claims.asked)


async def test_none_is_sent_beside_others_while_the_worker_holds_nothing(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspect is given to who holds nothing: another claim would bring it neighbours.

    All that the first claim brings has to wait for its turn: it leaves with its slots in one step,
    while the second claim is on its way.
    """
    shop, other = Shop(redis, key="order_id"), Shop(redis, key="order_id")
    claims = Claims(monkeypatch, shop.place, passing=1)
    first, worker = other.place.worker(slots=20), shop.place.worker(slots=2 * FULL)
    await shop.place.accept(body("evt_first"))
    async with working(first):
        while not other.running:
            await asyncio.sleep(0.002)
        first.stop()  # the rest isn't its
        await shop.place.accept(*(body(f"evt_{number}") for number in range(FULL + 10)))
        async with working(worker):
            await claims.are_sent(1)
            while not claims.answers or worker.tasks:
                await asyncio.sleep(0.002)
            shop.go.set()
            other.go.set()
            claims.go.set()
            await drained(redis)
    assert claims.none_saw_an_idle_worker_beside_another()


async def test_a_suspect_has_no_neighbours_however_many_are_on_their_way(
    redis: Redis, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = Claims(monkeypatch, shop.place, passing=1)
    await shop.accept()
    async with working(shop.place.worker(slots=SLOTS)):
        await claims.are_sent(3)
        await organizations.pause(Partition.only(redis), "org_s", "until it is a suspect")
        (job,) = await shop.place.accept(body("evt_suspect", "org_s"), organization="org_s")
        for _ in range(2):
            assert await shop.place.transitions.adopt(job, lease=30)
            await redis.zadd(keys.QUEUE, {job: keys.DEFERRED_FROM})
            await claims._claim("w", most=0, lease=30, holding=0)
        await organizations.resume(Partition.only(redis), "org_s")
        await redis.zadd(keys.QUEUE, {job: 0})  # before all others
        shop.go.set()
        claims.go.set()
        await drained(redis)
    assert shop.beside_the_suspect == [0]
    assert claims.none_saw_an_idle_worker_beside_another()
    assert (await counters(redis))["handled"] == EVENTS + 1


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_all_that_are_on_their_way_when_the_worker_stops_are_given_back(
    redis: Redis, shop: Shop, monkeypatch: pytest.MonkeyPatch, *, is_cancelled: bool
) -> None:
    claims = Claims(monkeypatch, shop.place, passing=1)
    await shop.accept()
    worker = shop.place.worker(slots=SLOTS)
    async with working(worker) as (running,):
        await claims.are_sent(3)
        assert sum((await account(redis)).running.values()) == 4 * FULL
        if is_cancelled:
            running.cancel()
        else:
            worker.stop()
        await asyncio.sleep(0)
        claims.go.set()
        shop.go.set()
        await asyncio.gather(running, return_exceptions=True)
    found = await account(redis)
    assert found.running == {}
    assert len(found.queued) + (await counters(redis)).get("handled", 0) == EVENTS
    assert (await counters(redis)).get("handled", 0) <= FULL
    assert len(claims.asked) == 4
    assert claims.disowned == set()


async def test_all_whose_answers_get_lost_are_disowned_before_the_next_is_sent(
    redis: Redis, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = Claims(monkeypatch, shop.place, passing=1)
    await shop.accept()
    async with working(shop.place.worker(slots=SLOTS, lease=1)):
        await claims.are_sent(3)
        claims.are_lost = True
        claims.go.set()
        shop.go.set()
        await drained(redis)
    assert len(claims.lost) == 3
    assert claims.lost == claims.disowned
    assert (await counters(redis))["lease_expired"] == 3 * FULL
    # Nobody has begun them: they count for nobody, and are no suspects.
    assert not any(claim.claims for answer in claims.answers for claim, _ in answer.jobs)
    assert (await counters(redis))["handled"] == EVENTS


async def test_far_from_redis_events_of_a_key_run_in_order_one_at_a_time(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims and marks overtake each other; whose key nobody knows yet holds its place."""
    handlers, running = Handlers(), set[tuple[str, str]]()
    begun: dict[tuple[str, str], list[int]] = defaultdict(list)

    @handlers.on("order.updated", key="order_id")
    async def act(event: Event[Any], organization: Organization) -> None:
        of, number = event.id.removeprefix("evt_").split("_")
        line = (organization.id, of)
        assert line not in running
        running.add(line)
        begun[line].append(int(number))
        await asyncio.sleep(0)
        running.remove(line)

    port = redis.connection_pool.connection_kwargs["port"]
    with distant(port, 10, tmp_path) as url:
        async with Redis.from_url(url) as there:
            place = Workplace(there, handlers)
            claims = Claims(monkeypatch, place)
            for name in ("org_a", "org_b"):
                signed = [
                    body(f"evt_{of}_{number}", name, data={"order_id": str(of)})
                    for number in range(12)
                    for of in range(20)
                ]
                await Workplace(redis, handlers).accept(*signed, organization=name)
            async with working(place.worker(slots=SLOTS)):
                await drained(redis)
    assert max(len(each.beside) for each in claims.asked) > 1
    assert claims.none_saw_an_idle_worker_beside_another()
    assert len(begun) == 40
    assert all(numbers == list(range(12)) for numbers in begun.values())
