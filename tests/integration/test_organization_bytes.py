"""Facts about how much of Redis one organization may hold, on a real Redis."""

import asyncio
from typing import cast

import pytest
from redis.asyncio import Redis

from ingress.organization_bytes import OrganizationBytes
from shared.endpoints.endpoint import Endpoints, OrganizationProfile
from shared.errors import Unavailable
from shared.queue import keys, scripts
from shared.queue.job import Delivery
from shared.queue.partition import Partition
from shared.queue.writer import Accepted, BytesLimits, Queue
from shared.redis.durability import Durability, Mode
from tests.conftest import StartRedis
from tests.ingress_support import Known
from tests.integration.books import Books, cost
from tests.integration.by_hand import Hand
from tests.integration.jobs import bodies, delivery, enqueued, record_of
from worker.operate import dead_letters, revival
from worker.operate.overview import read_overview
from worker.operate.upkeep import recount
from worker.pipeline.transitions import Settled

ONE = cost(60, 2)
"""More than a delivery with a tiny body, less than two of them, is counted as."""
DAY = 86_400.0
_RECOUNT = scripts.load("recount")


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis)


async def send(
    redis: Redis, *deliveries: Delivery, limit: int = 0, at_most: int | None = None
) -> list[str]:
    """Enqueue under limits of bytes; the answers' codes."""
    limits = BytesLimits(limit, at_most)
    queue = Queue(Partition.only(redis), Durability(Mode.MEMORY), bytes_limits=limits)
    answers = await queue.enqueue(deliveries)
    return [each.code if isinstance(each, Unavailable) else each.value for each in answers]


async def held(redis: Redis, organization: str = "org_a") -> dict[str, int]:
    """What Redis says that an organization holds."""
    raw = await redis.hgetall(keys.BYTES)
    return {
        name.decode().partition(":")[2]: int(number)
        for name, number in raw.items()
        if name.decode().partition(":")[0] == organization
    }


async def truly_held(redis: Redis) -> dict[str, int]:
    return (await Books.read(redis)).bytes_held()


async def said(redis: Redis) -> dict[str, int]:
    return {name.decode(): int(n) for name, n in (await redis.hgetall(keys.BYTES)).items()}


# The limit


async def test_who_is_over_the_limit_is_refused_and_nobody_else(redis: Redis) -> None:
    first, second, third = map(delivery, bodies(3))
    other = delivery(b"{}", "org_b")
    size = cost(await length_of(redis, first), 2)
    answers = await send(redis, first, second, other, third, limit=2 * size)
    assert answers == ["accepted", "accepted", "accepted", "organization_bytes_full"]
    assert await send(redis, third, limit=2 * size) == ["organization_bytes_full"]
    assert await send(redis, first, limit=2 * size) == ["known"]
    # That it came again is kept, and counts, too.
    assert await send(redis, third, limit=3 * size) == ["organization_bytes_full"]
    assert await send(redis, third, limit=3 * size + 200) == ["accepted"]


async def length_of(redis: Redis, sent: Delivery) -> int:
    """The bytes of a delivery's payload, for which Redis is empty again."""
    (job,) = await enqueued(redis, sent)
    length = int(await redis.strlen(keys.payload(job)))
    await redis.flushall()
    return length


async def test_an_organization_may_have_a_limit_of_its_own(redis: Redis) -> None:
    rich = [delivery(body, "org_rich", max_bytes=10 * ONE) for body in bodies(3)]
    free = [delivery(body, "org_free", max_bytes=0) for body in bodies(3)]
    poor = [delivery(body, "org_poor", max_bytes=1) for body in bodies(1)]
    assert await send(redis, *rich, *free, limit=1) == ["accepted"] * 6
    assert await send(redis, *poor, limit=0) == ["organization_bytes_full"]


async def test_while_redis_is_nearly_full_the_largest_are_refused_whatever_their_limit(
    redis: Redis,
) -> None:
    large = delivery(b"x" * 5000, "org_large", max_bytes=0)
    small = delivery(b"{}", "org_small", max_bytes=0)
    assert await send(redis, large) == ["accepted"]
    again = [delivery(b"y", "org_large", max_bytes=0), small]
    answers = await send(redis, *again, at_most=5000)
    assert answers == ["organization_bytes_full", "accepted"]
    assert await send(redis, delivery(b"{}", "org_new"), at_most=0) == ["organization_bytes_full"]


async def test_all_kinds_count_together(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, delivery(b"1"))
    claim = await hand.claim_only(job)
    await hand.mark(claim)
    assert await hand.dead(claim) is Settled.DEAD
    kinds = await held(redis)
    assert kinds.keys() == {"dead", "marks"}
    new = delivery(b"2")
    room = cost(await size_of(redis, job), 2)
    assert await send(redis, new, limit=sum(kinds.values()) + room - 1) == [
        "organization_bytes_full"
    ]
    assert await send(redis, new, limit=sum(kinds.values()) + room) == ["accepted"]


async def size_of(redis: Redis, job: str) -> int:
    return len(await redis.hget(keys.dead_letter(job), "payload"))


# What is never refused


async def test_an_event_of_a_full_organization_dies_whole_and_makes_room_when_it_is_discarded(
    redis: Redis, hand: Hand
) -> None:
    body = b"x" * 2000
    (job,) = await enqueued(redis, delivery(body))
    full = sum((await held(redis)).values())
    claim = await hand.claim_only(job)
    await hand.mark(claim)
    assert await hand.dead(claim) is Settled.DEAD
    assert body.decode() in (await record_of(redis, job))["payload"]
    assert sum((await held(redis)).values()) > full
    assert await send(redis, delivery(b"2"), limit=full) == ["organization_bytes_full"]
    assert await dead_letters.find(Partition.only(redis), job) is not None
    await revival.discard(Partition.only(redis), job, retention=60)
    assert (await held(redis)).keys() == {"marks"}
    assert await send(redis, delivery(b"2"), limit=full) == ["accepted"]


async def test_a_replay_is_not_refused(redis: Redis, hand: Hand) -> None:
    (job,) = await enqueued(redis, delivery())
    claim = await hand.claim_only(job)
    await hand.mark(claim)
    await hand.dead(claim)
    assert await hand.replay(job) == "queued"
    assert (await held(redis)).keys() == {"waiting", "dead", "marks"}
    assert await said(redis) == await truly_held(redis)


# The recount


async def test_what_was_there_before_the_first_count_is_counted(redis: Redis, hand: Hand) -> None:
    jobs = await enqueued(redis, *(delivery(body) for body in bodies(30)))
    for claim in await hand.claim(20):
        await hand.mark(claim, f"evt_{claim.job}")
        await hand.dead(claim)
    assert len(jobs) == 30
    await redis.set(keys.state("org_b", "a key"), b"1" * 100)
    await redis.delete(keys.BYTES)
    await recount(Partition.only(redis), retention=DAY)
    counted = await said(redis)
    assert counted == await truly_held(redis)
    assert counted.keys() == {"org_a:waiting", "org_a:dead", "org_a:marks", "org_b:state"}


async def test_a_count_of_thousands_of_organizations_holds_nobody_up(redis: Redis) -> None:
    await enqueued(redis, *(delivery(b"x", f"org_{number}") for number in range(1_000)))
    truth = await said(redis)
    await redis.hset(keys.BYTES, mapping={f"org_{n}:marks": 7 for n in range(1_000)})
    await redis.hset(keys.BYTES, mapping={f"org_{n}:waiting": 7 for n in range(500)})
    await redis.config_resetstat()
    steps = 1
    while await _RECOUNT(redis, 100, 1000, 1000) != b"counted":
        steps += 1
    assert "cmdstat_hgetall" not in await redis.info("commandstats")
    assert steps > 30  # 2,000 fields, as many keys, and the fields again
    assert await said(redis) == truth


async def test_a_count_that_an_earlier_version_has_begun_anew_ends(redis: Redis) -> None:
    await enqueued(redis, *(delivery(b"x", f"org_{number}") for number in range(1_000)))
    truth = await said(redis)
    while await redis.hget(keys.RECOUNT, "*right") is None:
        assert await _RECOUNT(redis, 10, 1000, 1000) == b"goes on"
    # It knows of one cursor alone, and notes all that is said when there is none.
    negated = {field: -number for field, number in (await said(redis)).items()}
    await redis.hset(keys.RECOUNT, mapping={**negated, "*cursor": "0"})
    while await _RECOUNT(redis, 10, 1000, 1000) != b"counted":
        pass
    assert await said(redis) == truth
    assert (await redis.hgetall(keys.RECOUNT)).keys() == {b"*counted", b"*refused"}


async def test_what_has_expired_counts_no_more(redis: Redis) -> None:
    await redis.hset(
        keys.BYTES, mapping={"org_a:marks": 10**9, "org_b:state": 5000, "org_c:waiting": 1}
    )
    (job,) = await enqueued(redis, delivery(organization="org_d"))
    await recount(Partition.only(redis), retention=DAY)
    assert await said(redis) == {"org_d:waiting": cost(await redis.strlen(keys.payload(job)), 2)}


async def test_what_comes_and_goes_during_a_count_stays_counted(redis: Redis, hand: Hand) -> None:
    await enqueued(redis, *(delivery(body) for body in bodies(400)))
    await redis.hset(keys.BYTES, "org_a:state", "7000")
    assert await _RECOUNT(redis, 10, 1000, 1000) == b"goes on"
    for claim in await hand.claim(100):
        await hand.mark(claim, f"evt_{claim.job}")
        await hand.dead(claim)
    await enqueued(redis, *(delivery(body, "org_b") for body in bodies(50)))
    while await _RECOUNT(redis, 10, 1000, 1000) != b"counted":
        pass
    counted, truth = await said(redis), await truly_held(redis)
    assert counted.keys() == truth.keys()  # the state that wasn't there is gone
    await redis.delete(keys.RECOUNT)
    await recount(Partition.only(redis), retention=DAY)
    assert await said(redis) == truth


async def test_a_count_rests_until_it_is_a_day_old_or_as_old_as_a_mark_may_be(
    redis: Redis,
) -> None:
    await recount(Partition.only(redis), retention=DAY)
    await redis.hset(keys.BYTES, "org_a:marks", "5000")
    await recount(Partition.only(redis), retention=DAY)
    assert await held(redis) == {"marks": 5000}
    seconds, _ = await redis.time()
    await redis.hset(keys.RECOUNT, "*counted", str((seconds - 3600) * 1000))
    await recount(Partition.only(redis), retention=2 * DAY)
    assert await held(redis) == {"marks": 5000}
    await recount(Partition.only(redis), retention=3600.0)
    assert await held(redis) == {}


async def test_a_refusal_makes_a_count_older_than_ten_minutes_no_longer_good(
    redis: Redis,
) -> None:
    """What expires within a day may be much more than what stays."""
    await recount(Partition.only(redis), retention=DAY)
    await redis.hset(keys.BYTES, mapping={"org_a:state": "5000", "org_a:waiting": "700"})
    assert await send(redis, delivery(), limit=5000) == ["organization_bytes_full"]
    await recount(Partition.only(redis), retention=DAY)
    assert await held(redis) == {"state": 5000, "waiting": 700}
    seconds, _ = await redis.time()
    await redis.hset(keys.RECOUNT, "*counted", str((seconds - 601) * 1000))
    await recount(Partition.only(redis), retention=DAY)
    assert await held(redis) == {}
    assert await send(redis, delivery(), limit=5000) == ["accepted"]


async def test_payloads_and_letters_are_put_right_by_the_first_count_only(redis: Redis) -> None:
    await recount(Partition.only(redis), retention=DAY)
    await redis.hset(keys.BYTES, mapping={"org_a:marks": "500", "org_a:waiting": "700"})
    seconds, _ = await redis.time()
    await redis.hset(keys.RECOUNT, "*counted", str((seconds - 90_000) * 1000))
    await recount(Partition.only(redis), retention=DAY)
    assert await held(redis) == {"waiting": 700}


async def test_a_backlog_of_an_earlier_version_that_ends_during_the_first_count_leaves_nothing(
    redis: Redis, hand: Hand
) -> None:
    await enqueued(redis, *(delivery(body) for body in bodies(300)))
    await redis.delete(keys.BYTES)  # that version hasn't counted
    for _ in range(3):
        assert await _RECOUNT(redis, 40, 1000, 1000) == b"goes on"
    while claims := await hand.claim(50):
        await hand.finish(claims)
    while await _RECOUNT(redis, 40, 1000, 1000) == b"goes on":
        pass
    assert (await held(redis)).get("waiting", 0) <= 0


async def test_what_somebody_has_made_no_number_ends_no_script_and_is_counted_anew(
    redis: Redis, hand: Hand
) -> None:
    await redis.hset(keys.BYTES, mapping={"org_a:waiting": "x", "org_b:waiting": str(2**63 - 1)})
    sent = [delivery(b"1"), delivery(b"2", "org_b"), delivery(b"3", "org_c")]
    assert await send(redis, *sent) == ["accepted"] * 3
    await hand.finish(await hand.claim())
    assert (await read_overview(Partition.only(redis))).waiting == 0
    await recount(Partition.only(redis), retention=DAY)
    assert {name for name in await said(redis) if name.endswith(":waiting")} == set()


async def test_a_virtual_time_that_somebody_has_set_keeps_nobody_from_running(
    redis: Redis, hand: Hand
) -> None:
    await redis.hset(keys.FLOWS, mapping={"*": "1e300", "org_a": "nan", "retry:org_a": "-inf"})
    await enqueued(redis, delivery(b"1"), delivery(b"2"))
    first, second = await hand.claim()
    assert await hand.retry(first) is Settled.RETRIED
    await hand.come_due(first.job)
    assert [claim.job for claim in await hand.claim()] == [first.job]
    await hand.finish([second])


async def test_names_that_are_none_of_ours_stop_no_count(redis: Redis) -> None:
    await redis.set("sellfern:event:no-colon", "x")
    await redis.set("sellfern:state:", "x")
    await redis.lpush(keys.payload("org_a:a list"), "x")
    await redis.lpush(keys.dead_letter("org_a:a list"), "x")
    await redis.lpush(keys.state("org_a", "a list"), "x")
    await recount(Partition.only(redis), retention=DAY)
    assert (await redis.hgetall(keys.RECOUNT)).keys() == {b"*counted", b"*refused"}


# What the ingress makes of Redis's memory


def known(*names: str, **own: int) -> Known:
    made = {name: OrganizationProfile(name, 1.0, None, {}) for name in names}
    for name, most in own.items():
        made[name] = OrganizationProfile(name, 1.0, None, {}, most)
    return Known(Endpoints({}, made))


async def limits_at(redis: Redis, used: float, setting: int | None, count: int) -> BytesLimits:
    """The limits where Redis is as full as that."""
    taken = int((await redis.info("memory"))["used_memory"])
    await redis.config_set("maxmemory", int(taken / used))
    watched = OrganizationBytes(setting, known(*(f"org_{n}" for n in range(count))))
    await watched.look(redis)
    return watched.limits


async def test_the_default_is_a_quarter_where_there_is_somebody_else(
    fresh_redis_server: StartRedis,
) -> None:
    async with Redis.from_url(fresh_redis_server().url) as redis:
        limits = await limits_at(redis, 0.5, None, 2)
        maxmemory = int((await redis.config_get("maxmemory"))["maxmemory"])
        assert limits == BytesLimits(maxmemory // 4, None)
        assert await limits_at(redis, 0.5, None, 1) == BytesLimits(0, None)
        assert await limits_at(redis, 0.9, None, 1) == BytesLimits(0, None)
        assert await limits_at(redis, 0.5, 5, 1) == BytesLimits(5, None)
        assert await limits_at(redis, 0.5, 0, 2) == BytesLimits(0, None)


async def test_above_three_quarters_nobody_may_hold_more_than_is_free(
    fresh_redis_server: StartRedis,
) -> None:
    async with Redis.from_url(fresh_redis_server().url) as redis:
        limits = await limits_at(redis, 0.9, None, 2)
        maxmemory = int((await redis.config_get("maxmemory"))["maxmemory"])
        assert limits.at_most is not None
        assert 0.05 * maxmemory < limits.at_most < 0.12 * maxmemory
        assert (await limits_at(redis, 1.1, 0, 1)).at_most == 0


class Sending:
    """A Redis whose sending is just done when somebody cancels: redis-py then loses that."""

    def __init__(self) -> None:
        self.sent = asyncio.Event()

    async def info(self, _section: str) -> dict[str, int]:
        async def send() -> None:
            self.sent.set()

        await asyncio.wait_for(send(), 3)
        return {}


async def test_looking_ends_though_a_cancellation_gets_lost() -> None:
    redis = Sending()
    async with asyncio.timeout(5):
        async with OrganizationBytes(None, known()).watching(cast("Redis", redis)):
            await redis.sent.wait()


def test_a_limit_of_its_own_is_told_as_such() -> None:
    watched = OrganizationBytes(7, known("org_a", org_b=9, org_c=0))
    told = {name: watched.limit_of(name) for name in ("org_a", "org_b", "org_c", "org_gone")}
    assert told == {"org_a": 7, "org_b": 9, "org_c": 0, "org_gone": 7}


async def test_accepting_is_what_it_was_where_no_limit_is_set(redis: Redis) -> None:
    assert await send(redis, delivery(b"x" * 100_000)) == [Accepted.NEW.value]
