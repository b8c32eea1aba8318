"""Facts about the worker's loop: waking, sleeping, stopping, suspects, leases."""

import asyncio
from time import perf_counter
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.endpoints.endpoint import Rate
from shared.errors import Unavailable
from shared.observe import metrics
from shared.queue import keys
from shared.queue.group_commit import Tell
from shared.queue.partition import Partition
from tests.integration.jobs import NOTHING, account, counters
from tests.integration.workplace import Workplace, body, working
from worker import Event, Handlers, Organization
from worker.engine import claims
from worker.engine.leases import Leases
from worker.engine.worker import Worker
from worker.operate import organizations
from worker.pipeline.batcher import Batcher
from worker.pipeline.transitions import (
    Claimed,
    Marked,
    MarkRequest,
    Profile,
    Settled,
    Settlement,
    Transitions,
)


class Stage:
    """A handler that says when it starts, and ends when it is told to."""

    def __init__(self, redis: Redis) -> None:
        self.started: asyncio.Queue[Event[Any]] = asyncio.Queue()
        self.go = asyncio.Event()
        self.running = 0
        self.most = 0
        handlers = Handlers()

        @handlers.on("order.updated")
        async def act(event: Event[Any], _: Organization) -> None:
            self.running += 1
            self.most = max(self.most, self.running)
            self.started.put_nowait(event)
            try:
                await self.go.wait()
            finally:
                self.running -= 1

        self.place = Workplace(redis, handlers)

    async def accept_one_each(self, number: int) -> None:
        """Accept an event of each of so many organizations; their handlers end by themselves."""
        self.go.set()
        for n in range(number):
            await self.place.accept(body("", f"org_{n}"), organization=f"org_{n}")

    async def start(self) -> Event[Any]:
        """Wait for a handler to start."""
        return await asyncio.wait_for(self.started.get(), 10)


@pytest.fixture
def stage(redis: Redis) -> Stage:
    return Stage(redis)


async def asleep(redis: Redis, number: int = 1) -> None:
    """Wait until so many clients wait for the wake token."""
    while int((await redis.info("clients"))["blocked_clients"]) < number:
        await asyncio.sleep(0.002)


async def drained(redis: Redis) -> None:
    """Wait until nothing is accepted and unfinished."""
    while await redis.zcard(keys.ACCEPTED):
        await asyncio.sleep(0.002)


@pytest.fixture
def sleeps_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no worker look by itself: what it starts all the same, it has been told of."""
    monkeypatch.setattr(claims, "_LONGEST_SLEEP", 3600.0)


@pytest.mark.usefixtures("sleeps_long")
async def test_an_idle_worker_starts_an_event_once_it_is_accepted(
    redis: Redis, stage: Stage
) -> None:
    stage.go.set()
    async with working(stage.place.worker()):
        for _ in range(3):
            await asleep(redis)
            await stage.place.accept(body())
            await stage.start()
            await drained(redis)


async def test_one_event_wakes_one_worker(redis: Redis, stage: Stage) -> None:
    async with working(stage.place.worker(), stage.place.worker()):
        await asleep(redis, 2)
        before = await claims_so_far(redis)
        await stage.place.accept(body())
        await stage.start()
        assert await claims_so_far(redis) - before == 1
        stage.go.set()
        await drained(redis)


async def claims_so_far(redis: Redis) -> int:
    """How often any worker has claimed: it waits for the token after each time.

    Redis counts a call at its end, and tells nothing of a command that it has not counted yet.
    """
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_blpop", {"calls": 0})["calls"])


async def test_an_idle_worker_looks_by_itself_once_a_second_at_most(
    redis: Redis, stage: Stage
) -> None:
    async with working(stage.place.worker()):
        await asleep(redis)
        started, before = perf_counter(), await claims_so_far(redis)
        while await claims_so_far(redis) < before + 2:
            await asyncio.sleep(0.02)
        assert perf_counter() - started > 0.9


@pytest.mark.usefixtures("sleeps_long")
async def test_a_deferred_event_runs_when_it_is_due_not_at_the_next_poll(
    redis: Redis, stage: Stage
) -> None:
    stage.go.set()
    (job,) = await stage.place.accept(body())
    seconds, microseconds = await redis.time()
    due = seconds * 1000 + microseconds // 1000 + 200
    await redis.zadd(keys.QUEUE, {job: due})
    async with working(stage.place.worker()):
        await stage.start()
        seconds, microseconds = await redis.time()
        assert seconds * 1000 + microseconds / 1000 >= due


async def test_a_worker_runs_as_many_at_once_as_it_has_slots(redis: Redis, stage: Stage) -> None:
    for n in range(10):
        organization = f"org_{n}"
        await stage.place.accept(
            *(body("", organization) for _ in range(3)), organization=organization
        )
    async with working(stage.place.worker(slots=7)):
        for _ in range(7):
            await stage.start()
        await asleep_or_full(stage, 7)
        stage.go.set()
        await drained(redis)
    assert stage.most == 7


class Held:
    """A batcher's settlements, held back until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, batcher: Batcher) -> None:
        self._real = batcher.post_settlement
        self._held: list[tuple[Settlement, Tell[Settled]]] = []
        monkeypatch.setattr(batcher, "post_settlement", lambda *each: self._held.append(each))

    @property
    def number(self) -> int:
        """How many wait."""
        return len(self._held)

    def let_go(self, batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batcher, "post_settlement", self._real)
        for each in self._held:
            self._real(*each)


async def test_a_slot_is_free_once_its_handler_has_ended(
    monkeypatch: pytest.MonkeyPatch, redis: Redis, stage: Stage
) -> None:
    """While Redis commits, the next one runs; there is an end to how many are held that way."""
    batcher = stage.place.batcher
    held = Held(monkeypatch, batcher)
    await stage.accept_one_each(10)
    worker = stage.place.worker(slots=3)
    async with working(worker):
        for _ in range(6):
            await stage.start()
        now_held = await account(redis)
        free = worker.claims.free()
        held.let_go(batcher, monkeypatch)
        await drained(redis)
    assert (len(now_held.leased_or_deferred), free) == (6, 0)
    assert await account(redis) == NOTHING


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("redis_unreachable", "no connection to Redis"),
        RedisConnectionError("reset"),
    ],
)
async def test_what_redis_did_not_settle_is_left_to_its_lease_and_blocks_nobody(
    monkeypatch: pytest.MonkeyPatch, redis: Redis, stage: Stage, error: Exception
) -> None:
    batcher = stage.place.batcher
    real, failed = batcher.post_mark, list[Tell[Marked]]()

    def post_mark(request: MarkRequest, tell: Tell[Marked]) -> None:
        if len(failed) < 3:
            failed.append(tell)
            asyncio.get_running_loop().call_soon(tell, error)
        else:
            real(request, tell)

    monkeypatch.setattr(batcher, "post_mark", post_mark)
    await stage.accept_one_each(6)
    worker = stage.place.worker(slots=3)
    async with working(worker):
        for _ in range(3):
            await stage.start()
        async with asyncio.timeout(10):
            while worker.tasks:
                await asyncio.sleep(0.002)
        assert worker.claims.free() == 3
    lines = stage.place.lines.of("event_left_to_its_lease")
    assert len(lines) == worker.jobs_failed == 3
    left = await account(redis)
    assert left.leased_or_deferred == {line["job"] for line in lines}
    assert sum(left.running.values()) == 3


async def asleep_or_full(stage: Stage, slots: int) -> None:
    assert stage.running == slots
    assert stage.started.empty()


async def test_one_organization_leaves_a_fifth_of_the_slots_to_the_others(
    redis: Redis, stage: Stage
) -> None:
    await stage.place.accept(*(body() for _ in range(20)))
    worker = stage.place.worker(slots=10)
    async with working(worker):
        for _ in range(8):
            await stage.start()
        await asleep(redis)
        assert stage.running == 8
        await stage.place.accept(body("", "org_b"), organization="org_b")
        event = await stage.start()
        assert event.organization_id == "org_b"
        stage.go.set()
        await drained(redis)
    assert await account(redis) == NOTHING


async def test_a_claim_that_is_on_its_way_when_the_worker_stops_is_given_back(
    redis: Redis, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = await stage.place.accept(body())
    worker = stage.place.worker()
    on_its_way, answered = asyncio.Event(), asyncio.Event()
    real = stage.place.transitions.claim

    async def slow(*arguments: Any, **options: Any) -> Claimed:
        claimed = await real(*arguments, **options)
        on_its_way.set()
        await answered.wait()
        return claimed

    monkeypatch.setattr(stage.place.transitions, "claim", slow)
    running = asyncio.create_task(worker.async_run())
    await on_its_way.wait()
    assert (await account(redis)).running == {"org_a": 1}
    running.cancel()
    await asyncio.sleep(0)
    answered.set()
    await asyncio.gather(running, return_exceptions=True)
    await worker.close()
    found = await account(redis)
    assert found.queued == {job}
    assert found.running == {}


async def test_a_suspect_runs_alone(redis: Redis, stage: Stage) -> None:
    """A busy worker takes nothing more until it is idle, then it takes the suspect."""
    (suspect,) = await stage.place.accept(body("evt_suspect"))
    for _ in range(2):
        assert await stage.place.claim()
        await redis.zadd(keys.QUEUE, {suspect: keys.DEFERRED_FROM})
    await redis.zadd(keys.QUEUE, {suspect: 500})  # behind the first of the others
    async with working(stage.place.worker()):
        await stage.place.accept(body("evt_1"))
        assert (await stage.start()).id == "evt_1"
        await stage.place.accept(body("evt_2"))
        if stage.running == 2:
            await stage.start()
        stage.go.set()
        await drained(redis)
    assert (await counters(redis))["handled"] == 3


async def suspected(redis: Redis, stage: Stage, event_id: str) -> str:
    """Accept an event that two workers have had in flight when they went away; its job."""
    await organizations.pause(Partition.only(redis), "org_s", "until it is one")
    (job,) = await stage.place.accept(body(event_id, "org_s"), organization="org_s")
    for _ in range(2):
        assert await stage.place.transitions.adopt(job, lease=30)
        await redis.zadd(keys.QUEUE, {job: keys.DEFERRED_FROM})
        await stage.place.transitions.claim("w", most=0, lease=30, holding=0)
    await organizations.resume(Partition.only(redis), "org_s")
    return job


async def test_a_suspect_beside_a_handler_that_takes_long_stops_nobody_for_long(
    redis: Redis, stage: Stage
) -> None:
    """The worker waits in vain, goes on for everybody, and has the suspect once it is idle."""
    async with working(stage.place.worker(lease=0.3)):  # a tenth of a second is the first while
        await stage.place.accept(body("evt_long"))
        assert (await stage.start()).id == "evt_long"
        job = await suspected(redis, stage, "evt_suspect")
        while (raw := await redis.hget(keys.SUSPECTS, job)) is None:
            await asyncio.sleep(0.005)  # until it has given up
        assert raw.split(b":")[3] == b"1"
        for number in range(20):
            await stage.place.accept(body(f"evt_{number}"))
        for _ in range(7):  # one organization may have eight of ten slots
            assert (await stage.start()).id != "evt_suspect"
        stage.go.set()
        await drained(redis)
    assert (await counters(redis))["handled"] == 22


async def test_nothing_runs_beside_a_suspect_for_a_while(redis: Redis, stage: Stage) -> None:
    """After that others do, and nobody says any longer that it is alone."""
    job = await suspected(redis, stage, "evt_suspect")
    async with working(stage.place.worker(lease=3)):
        assert (await stage.start()).id == "evt_suspect"
        given = asyncio.get_running_loop().time()
        assert (await redis.hget(keys.SUSPECTS, job) or b"").endswith(b":1")
        await stage.place.accept(body("evt_1"))
        assert (await stage.start()).id == "evt_1"
        assert asyncio.get_running_loop().time() - given > 0.9
        assert (await redis.hget(keys.SUSPECTS, job) or b"").endswith(b":0")
        stage.go.set()
        await drained(redis)
    assert await account(redis) == NOTHING


async def test_suspects_run_in_groups_one_after_the_other(redis: Redis, stage: Stage) -> None:
    for number in range(20):
        await suspected(redis, stage, f"evt_{number}")
    async with working(stage.place.worker(slots=64)):
        for _ in range(8):
            await stage.start()
        assert stage.running == 8
        stage.go.set()
        await drained(redis)
    assert stage.most == 8
    assert (await counters(redis))["handled"] == 20


class LostAnswers:
    """A worker's claims, the answers to the first of which get lost on their way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stage: Stage, number: int) -> None:
        self.claims: list[Claimed] = []
        self.left = number
        self._real = stage.place.transitions.claim
        monkeypatch.setattr(stage.place.transitions, "claim", self.claim)

    async def claim(self, *arguments: Any, **options: Any) -> Claimed:
        claimed = await self._real(*arguments, **options)
        if claimed.jobs and self.left:
            self.left -= 1
            raise RedisConnectionError("reset")
        if claimed.jobs:
            self.claims.append(claimed)
        return claimed


async def test_an_event_whose_claim_nobody_read_is_no_suspect(
    redis: Redis, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = LostAnswers(monkeypatch, stage, 3)
    stage.go.set()
    await stage.place.accept(body("evt_1"))
    async with working(stage.place.worker(lease=0.2)):
        await stage.start()
        await drained(redis)
    assert (await counters(redis))["lease_expired"] == 3
    ((((claim, _),),),) = ((claimed.jobs,) for claimed in answers.claims)
    assert claim.claims == 0


async def test_a_worker_that_stops_disowns_what_it_has_not_read(
    redis: Redis, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = LostAnswers(monkeypatch, stage, 1)
    (job,) = await stage.place.accept(body("evt_1"))
    worker = stage.place.worker()
    running = asyncio.create_task(worker.async_run())
    while answers.left:
        await asyncio.sleep(0.002)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await worker.close()
    await redis.zadd(keys.QUEUE, {job: keys.DEFERRED_FROM})
    ((claim, _),) = await stage.place.claim()
    assert claim.claims == 0


async def test_a_lost_lease_ends_its_handler(redis: Redis, stage: Stage) -> None:
    lost_before = metrics.LEASES_LOST.labels().total
    (job,) = await stage.place.accept(body("evt_1"))
    async with working(stage.place.worker(lease=0.3)):
        await stage.start()
        await redis.hset(keys.CLAIMS, job, "ff:0:1:1:evt_1")  # somebody else has it
        while "event_lost" not in stage.place.lines.events():
            await asyncio.sleep(0.01)
        assert stage.running == 0
    assert [line["job"] for line in stage.place.lines.of("lease_lost")] == [job]
    assert metrics.LEASES_LOST.labels().total == lost_before + 1


async def test_leases_are_renewed_for_as_long_as_a_handler_runs(redis: Redis, stage: Stage) -> None:
    (job,) = await stage.place.accept(body("evt_1"))
    async with working(stage.place.worker(lease=1.0)):  # a busy machine takes its time to renew
        await stage.start()
        first = await redis.zscore(keys.QUEUE, job)
        assert first is not None
        while (await redis.zscore(keys.QUEUE, job) or 0) < first + 2000:
            await asyncio.sleep(0.02)
        stage.go.set()
        await drained(redis)
    assert (await counters(redis)).get("lease_expired") is None


async def test_a_worker_that_leaves_takes_its_slots_along(redis: Redis, stage: Stage) -> None:
    one, other = stage.place.worker(slots=10), stage.place.worker(slots=5)
    async with working(one):
        async with working(other):
            while await redis.get(keys.SLOTS) != b"15":
                await asyncio.sleep(0.01)
        assert await redis.get(keys.SLOTS) == b"10"
        assert await redis.hlen(keys.WORKERS) == 1


async def test_caps_of_the_endpoints_file_reach_redis_and_change_with_it(
    redis: Redis, stage: Stage
) -> None:
    profiles = [Profile("org_a", 2)]
    await stage.place.accept(*(body() for _ in range(5)))
    worker = stage.place.worker(lease=0.3, profiles=lambda: list(profiles))
    async with working(worker):
        for _ in range(2):
            await stage.start()
        await asleep(redis)
        assert stage.running == 2
        profiles[0] = Profile("org_a", 4)
        for _ in range(2):
            await stage.start()
        stage.go.set()
        await drained(redis)
    assert stage.most == 4


async def test_a_changed_rate_reaches_redis_within_seconds_however_long_a_lease_is(
    redis: Redis, stage: Stage
) -> None:
    profiles = [Profile("org_a")]
    worker = stage.place.worker(lease=3600, profiles=lambda: list(profiles))
    async with working(worker):
        await asleep(redis)
        profiles[0] = Profile("org_a", rate=Rate.parse("5/s"))
        async with asyncio.timeout(5):
            while await redis.hget(keys.RATES, "org_a") != b"200.0:100.0":
                await asyncio.sleep(0.01)


async def test_a_cancellation_that_gets_lost_does_not_keep_a_worker_from_stopping(
    redis: Redis, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As redis-py loses one under Python 3.11, when it comes as a command has just been sent."""
    lost: list[asyncio.CancelledError] = []

    async def beat_forever(_: Worker) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as exc:
            lost.append(exc)
        await asyncio.sleep(60)

    monkeypatch.setattr(Worker, "beat_forever", beat_forever)
    async with asyncio.timeout(10):
        async with working(stage.place.worker()):
            await asleep(redis)
    assert len(lost) == 1


async def test_a_worker_that_redis_has_never_heard_of_stops_at_once(
    monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    beats = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def away(_: Leases, _transitions: Transitions) -> None:
        loop.call_soon_threadsafe(beats.set)
        raise RedisConnectionError

    monkeypatch.setattr(Leases, "beat", away)
    worker = stage.place.worker()
    async with asyncio.timeout(4):  # what it may take to drain is 5 s
        main = asyncio.create_task(worker.main())
        await beats.wait()
        worker.stop()
        await main
        await worker.close()


async def test_a_lost_lease_that_has_just_been_settled_is_no_loss(
    monkeypatch: pytest.MonkeyPatch, redis: Redis, stage: Stage
) -> None:
    """The renewal is on its way while the settlement lands: Redis knows the claim no more."""
    lost_before = metrics.LEASES_LOST.labels().total
    held = Held(monkeypatch, stage.place.batcher)
    stage.go.set()
    await stage.accept_one_each(1)
    worker = stage.place.worker()
    async with working(worker):
        await stage.start()
        (claim,) = worker.claims.held()
        while not held.number:
            await asyncio.sleep(0.002)
        worker.claims.lose(claim)
        held.let_go(stage.place.batcher, monkeypatch)
        await drained(redis)
        worker.claims.lose(claim)
    assert metrics.LEASES_LOST.labels().total == lost_before
    assert stage.place.lines.events() == ["event_handled"]


async def test_a_lost_lease_shows_in_the_settlement_that_was_on_its_way(
    monkeypatch: pytest.MonkeyPatch, redis: Redis, stage: Stage
) -> None:
    lost_before = metrics.LEASES_LOST.labels().total
    held = Held(monkeypatch, stage.place.batcher)
    stage.go.set()
    await stage.accept_one_each(1)
    worker = stage.place.worker()
    async with working(worker):
        await stage.start()
        (claim,) = worker.claims.held()
        while not held.number:
            await asyncio.sleep(0.002)
        await redis.hset(keys.CLAIMS, claim.job, "ff:0:1:1:evt_1")  # somebody else has it
        worker.claims.lose(claim)
        held.let_go(stage.place.batcher, monkeypatch)
        while "lease_lost" not in stage.place.lines.events():
            await asyncio.sleep(0.002)
    assert metrics.LEASES_LOST.labels().total == lost_before + 1


async def test_a_renewal_that_fails_is_told_and_begun_anew(
    monkeypatch: pytest.MonkeyPatch, redis: Redis, stage: Stage
) -> None:
    real = Leases.beat
    failed: list[Leases] = []

    async def beat(leases: Leases, transitions: Transitions) -> None:
        await real(leases, transitions)
        if not failed:
            failed.append(leases)
            raise ZeroDivisionError("ours")

    monkeypatch.setattr(Leases, "beat", beat)
    (job,) = await stage.place.accept(body("evt_1"))
    async with working(stage.place.worker(lease=0.3)):
        await stage.start()
        first = await redis.zscore(keys.QUEUE, job) or 0
        while (await redis.zscore(keys.QUEUE, job) or 0) < first + 300:
            await asyncio.sleep(0.02)
        stage.go.set()
        await drained(redis)
    (line,) = stage.place.lines.of("loop_failed")
    assert line["loop"] == "renew"


async def test_caps_that_redis_has_lost_are_told_it_again(redis: Redis, stage: Stage) -> None:
    """As after a flush, or where an empty primary has taken over."""
    worker = stage.place.worker(lease=0.3, profiles=lambda: [Profile("org_a", 2)])
    async with working(worker):
        await asleep(redis)
        await redis.flushall()
        while await redis.hget(keys.ORGANIZATIONS, "org_a") != b"2:1.0":
            await asyncio.sleep(0.02)
    assert stage.place.lines.events() == ["redis_knew_nothing_of_this_worker"]
