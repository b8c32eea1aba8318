"""Facts about the gauges of the whole queue."""

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from shared.observe import metrics
from shared.queue import gauges, held_bytes, keys
from shared.queue.gauges import CACHE_SECONDS, Gauges
from shared.queue.partitions import Partitions
from tests.conftest import StartRedis
from tests.integration.workplace import Lines, Workplace, body
from worker import Event, Handlers, Organization
from worker.outcomes import Reject, Retry
from worker.pipeline.transitions import Profile

UNLIKELY_LABELS = {"organization", "event_id", "endpoint", "job"}


async def scraped(redis: Redis, organizations: int = 20) -> CollectorRegistry:
    """What a scrape shows of a fresh reading."""
    registry = CollectorRegistry()
    shown = Gauges(
        Partitions.only(redis),
        organizations=organizations,
        bytes_limit_of=lambda _: 0,
        log=Lines().log,
    )
    registry.register(shown)
    await shown.refresh()
    return registry


def told(shown: Gauges) -> dict[str, float]:
    """What has no labels, by name."""
    samples = [sample for family in shown.collect() for sample in family.samples]
    return {each.name: each.value for each in samples if not each.labels}


def depths(registry: CollectorRegistry) -> dict[str, float]:
    """The queue's depth by state."""
    found = {}
    for state in ("queued", "leased", "deferred", "parked", "in_turn"):
        value = registry.get_sample_value("sellfern_queue_depth", {"state": state})
        assert value is not None
        found[state] = value
    return found


def organization(registry: CollectorRegistry, name: str) -> tuple[float | None, ...]:
    """Waiting and running of an organization; None where it has no series."""
    return tuple(
        registry.get_sample_value(
            "sellfern_organization_events", {"organization": name, "state": state}
        )
        for state in ("waiting", "running")
    )


async def test_every_unfinished_event_is_in_one_of_the_states(redis: Redis) -> None:
    handlers = Handlers()

    @handlers.on("order.updated", key="order_id")
    async def act(event: Event[Any], _: Organization) -> None:
        raise Retry(60) if event.data["order_id"] == "1" else Reject("no")

    place = Workplace(redis, handlers)
    await place.accept(body(), body(), body(data={"order_id": "2"}))
    for claimed in await place.claim(3):
        await place.run(*claimed)
    await place.accept(*(body(organization="org_b") for _ in range(4)), organization="org_b")
    await place.transitions.publish([Profile("org_b", 1, 1.0)])
    await place.claim(4)  # one is leased, and the others are parked beside it
    await place.accept(*(body() for _ in range(3)))
    registry = await scraped(redis)
    states = {"queued": 3, "leased": 1, "deferred": 1, "parked": 3, "in_turn": 1}
    assert depths(registry) == states
    assert registry.get_sample_value("sellfern_dead_letters_kept") == 1
    reason = {"reason": "rejected"}
    assert registry.get_sample_value("sellfern_dead_letters_kept_by_reason", reason) == 1
    assert organization(registry, "org_a") == (5, 0)
    assert organization(registry, "org_b") == (3, 1)


async def test_an_empty_queue_is_all_zero(redis: Redis) -> None:
    registry = await scraped(redis)
    assert set(depths(registry).values()) == {0}
    for name in ("oldest_waiting_seconds", "dead_letters_kept", "breakers_open", "workers"):
        assert registry.get_sample_value(f"sellfern_{name}") == 0


async def test_the_oldest_event_is_as_old_as_its_acceptance(redis: Redis) -> None:
    place = Workplace(redis)
    seconds, _ = await redis.time()
    await place.accept(body(), received_at=(seconds - 100) * 1000)
    await place.accept(body())
    oldest = (await scraped(redis)).get_sample_value("sellfern_oldest_waiting_seconds")
    assert oldest is not None
    assert 99 < oldest < 160


async def test_live_workers_and_their_slots_are_counted(redis: Redis) -> None:
    place = Workplace(redis)
    for name in ("w1", "w2"):
        await place.transitions.renew(name, [], description=b"{}", slots=30, lease=30)
    registry = await scraped(redis)
    assert registry.get_sample_value("sellfern_workers") == 2
    assert registry.get_sample_value("sellfern_worker_slots") == 60
    for name in ("w1", "w2"):  # killed: no other worker is there to see to it
        await redis.zadd(keys.WORKERS_SEEN, {name: 1})
    registry = await scraped(redis)
    assert registry.get_sample_value("sellfern_workers") == 0
    assert registry.get_sample_value("sellfern_worker_slots") == 0


async def test_for_how_long_something_has_been_due_is_told_with_whose_it_is(redis: Redis) -> None:
    place = Workplace(redis)
    seconds, _ = await redis.time()
    await place.accept(body(), received_at=(seconds - 100) * 1000)
    await place.accept(body(organization="org_b"), organization="org_b")
    registry = await scraped(redis)
    longest = registry.get_sample_value("sellfern_due_seconds", {"partition": ""})
    assert longest is not None
    assert 100 <= longest < 130
    assert registry.get_sample_value("sellfern_due_events") == 2

    def of(name: str) -> float | None:
        labels = {"organization": name, "partition": ""}
        return registry.get_sample_value("sellfern_organization_due_seconds", labels)

    assert (of("org_a"), of("org_b")) == (longest, None)
    (claimed,) = await place.claim(1)  # what is left has been there for a moment: nobody is named
    assert claimed[0].job.startswith("org_a")
    registry = await scraped(redis)
    assert registry.get_sample_value("sellfern_due_events") == 1
    assert (of("org_a"), of("org_b")) == (None, None)


async def test_with_the_rights_of_an_earlier_version_the_other_gauges_are_told(
    fresh_redis_server: StartRedis,
) -> None:
    server, lines, registry = fresh_redis_server(appendfsync=None), Lines(), CollectorRegistry()
    async with Redis.from_url(server.url) as redis:
        await Workplace(redis).accept(body())
        rights = ("resetkeys", "~sellfern:[abdiqrstw]*")  # nothing of organizations
        await redis.execute_command("ACL", "SETUSER", "default", *rights)
        shown = Gauges(
            Partitions.only(redis), organizations=2, bytes_limit_of=lambda _: 0, log=lines.log
        )
        with shown.registered(registry):
            await shown.refresh()
        assert told(shown)["sellfern_redis_up"] == 1
        assert "sellfern_due_events" not in told(shown)
        assert [line["code"] for line in lines.of("gauges_not_read")] == ["redis_permission"]


async def test_who_may_not_see_what_letters_died_of_tells_how_many_there_are(
    fresh_redis_server: StartRedis,
) -> None:
    """An ingress of this version, beside the users of an earlier one."""
    server = fresh_redis_server(appendfsync=None)
    async with Redis.from_url(server.url) as redis:
        await redis.hset(keys.BURIED, "org_a", 7)
        await redis.hset(keys.DEAD_KINDS, "exhausted:t", 7)
        rights = ("resetkeys", "~sellfern:[^d]*", "~sellfern:du*", f"~{keys.BURIED}")
        await redis.execute_command("ACL", "SETUSER", "default", *rights)
        registry = await scraped(redis)
    assert registry.get_sample_value("sellfern_dead_letters_kept") == 7
    by_reason = "sellfern_dead_letters_kept_by_reason"
    assert registry.get_sample_value(by_reason, {"reason": "exhausted"}) is None


async def test_ten_thousand_organizations_have_no_more_series_than_twenty(redis: Redis) -> None:
    for start in range(0, 10_000, 1000):
        counts = {f"org_{number}": number + 1 for number in range(start, start + 1000)}
        await redis.hset(keys.WAITING, mapping=counts)
    registry = await scraped(redis)
    samples = [sample for family in registry.collect() for sample in family.samples]
    named = {sample.labels["organization"] for sample in samples if "organization" in sample.labels}
    assert named == {f"org_{number}" for number in range(9980, 10_000)}
    assert len(samples) < 60
    assert organization(await scraped(redis, organizations=0), "org_9999") == (None, None)


async def test_a_look_at_thousands_of_organizations_holds_nobody_up(
    redis: Redis, monkeypatch: Any
) -> None:
    monkeypatch.setattr(gauges, "CACHE_SECONDS", 0.0)
    monkeypatch.setattr(gauges, "_WALK_SECONDS", 0.0)
    names = [f"org_{number}" for number in range(20_000)]
    await redis.hset(keys.WAITING, mapping={name: n + 1 for n, name in enumerate(names)})
    await redis.hset(keys.BURIED, mapping=dict.fromkeys(names, 2))
    for kind, bytes_of in (("marks", 10), ("state", 1)):
        held = {f"{name}:{kind}": n * bytes_of for n, name in enumerate(names)}
        await redis.hset(keys.BYTES, mapping=held)
    await redis.zadd(keys.DUE, {f"{kind}:{name}": 1 for name in names for kind in ("hold", "rate")})
    await redis.config_resetstat()
    registry = CollectorRegistry()
    shown = Gauges(
        Partitions.only(redis), organizations=2, bytes_limit_of=lambda _: 0, log=Lines().log
    )
    async with asyncio.timeout(60), shown.walking():
        with shown.registered(registry):
            await shown.refresh()
            # What needs no look at all of them is there at once.
            assert depths(registry)["queued"] == 0
            assert registry.get_sample_value("sellfern_dead_letters_kept") is None
            while registry.get_sample_value("sellfern_dead_letters_kept") is None:
                await shown.refresh()
            assert registry.get_sample_value("sellfern_dead_letters_kept") == 40_000
            assert registry.get_sample_value("sellfern_organizations_held") == 20_000
            assert organization(registry, names[-1]) == (20_000, 0)
            assert organization(registry, names[-3]) == (None, None)
            for kind, number in (("marks", 199_980), ("state", 19_998)):
                labels = {"organization": names[-2], "kind": kind}
                assert registry.get_sample_value("sellfern_organization_bytes", labels) == number
    calls = await redis.info("commandstats")
    assert "cmdstat_hgetall" not in calls
    assert calls["cmdstat_hscan"]["calls"] >= 80_000 // 1000  # a thousand fields a call, or fewer


async def test_a_walk_that_fails_is_told_and_begins_anew(redis: Redis, monkeypatch: Any) -> None:
    monkeypatch.setattr(gauges, "CACHE_SECONDS", 0.0)
    lines = Lines()
    shown = Gauges(
        Partitions.only(redis), organizations=2, bytes_limit_of=lambda _: 0, log=lines.log
    )
    await redis.set(keys.BURIED, "no hash")
    with shown.registered(registry := CollectorRegistry()):
        await shown.refresh()
        await shown.refresh()
        assert registry.get_sample_value("sellfern_dead_letters_kept") is None
        assert len(lines.of("gauges_not_read")) == 1
        await redis.delete(keys.BURIED)
        await shown.refresh()
        assert registry.get_sample_value("sellfern_dead_letters_kept") == 0


async def test_a_walk_that_has_failed_hides_no_reading(redis: Redis, monkeypatch: Any) -> None:
    """Until the next one ends it takes half a minute, if there are many organizations."""
    monkeypatch.setattr(gauges, "CACHE_SECONDS", 0.0)
    registry, walks = CollectorRegistry(), asyncio.Event()
    walk = held_bytes.read_shares

    async def slow(*arguments: Any, **named: Any) -> held_bytes.Shares:
        await walks.wait()
        return await walk(*arguments, **named)

    shown = Gauges(
        Partitions.only(redis), organizations=2, bytes_limit_of=lambda _: 0, log=Lines().log
    )
    with shown.registered(registry):
        await shown.refresh()
        await redis.set(keys.BURIED, "no hash")
        shown._shares_good_until = 0.0
        await shown.refresh()
        assert depths(registry)["queued"] == 0
        assert registry.get_sample_value("sellfern_dead_letters_kept") is None
        await redis.delete(keys.BURIED)
        monkeypatch.setattr(held_bytes, "read_shares", slow)
        async with asyncio.timeout(30), shown.walking():
            await shown.refresh()
            assert depths(registry)["queued"] == 0
            walks.set()
            await shown.refresh()
            assert registry.get_sample_value("sellfern_dead_letters_kept") == 0


def test_no_other_metric_has_a_label_that_comes_from_outside() -> None:
    for family in metrics.REGISTRY.collect():
        for sample in family.samples:
            assert not UNLIKELY_LABELS & sample.labels.keys(), family.name
    for metric in vars(metrics).values():
        assert not UNLIKELY_LABELS & set(getattr(metric, "_labelnames", ())), metric


async def test_many_scrapes_share_a_reading(redis: Redis) -> None:
    shown = Gauges(
        Partitions.only(redis), organizations=20, bytes_limit_of=lambda _: 0, log=Lines().log
    )
    await redis.config_resetstat()
    await asyncio.gather(*(shown.refresh() for _ in range(10)))
    await shown.refresh()
    assert (await redis.info("commandstats"))["cmdstat_zcount"]["calls"] == 4  # of one reading


async def test_a_redis_that_is_away_leaves_no_old_gauges_and_one_line(
    fresh_redis_server: StartRedis, monkeypatch: Any
) -> None:
    monkeypatch.setattr(gauges, "CACHE_SECONDS", 0.0)
    assert CACHE_SECONDS > 0
    server, lines = fresh_redis_server(appendfsync=None), Lines()
    async with Redis.from_url(server.url) as redis:
        shown = Gauges(
            Partitions.only(redis), organizations=20, bytes_limit_of=lambda _: 0, log=lines.log
        )
        await shown.refresh()
        assert list(shown.collect())
        server.kill()
        await shown.refresh()
        await shown.refresh()
        assert told(shown) == {"sellfern_redis_up": 0}
        assert [line["code"] for line in lines.of("gauges_not_read")] == ["redis_unreachable"]
        server.start()
        await shown.refresh()
        assert told(shown)["sellfern_redis_up"] == 1
        shown.is_awaiting = True  # by another look than ours it isn't one to work with
        assert told(shown) == {"sellfern_redis_up": 0}


async def test_a_redis_that_hangs_does_not_hang_a_scrape(
    fresh_redis_server: StartRedis, monkeypatch: Any
) -> None:
    monkeypatch.setattr(gauges, "READ_SECONDS", 0.05)
    server = fresh_redis_server(appendfsync=None)
    async with Redis.from_url(server.url) as redis:
        shown = Gauges(
            Partitions.only(redis), organizations=20, bytes_limit_of=lambda _: 0, log=Lines().log
        )
        server.freeze()
        try:
            async with asyncio.timeout(5):
                await shown.refresh()
        finally:
            server.thaw()
        assert told(shown) == {"sellfern_redis_up": 0}


async def test_after_its_end_a_scrape_starts_no_look_that_nobody_ends(
    redis: Redis, monkeypatch: Any
) -> None:
    """The admin site is there for a moment longer, as while a Redis is waited for."""
    monkeypatch.setattr(gauges, "CACHE_SECONDS", 0.0)
    monkeypatch.setattr(gauges, "_WALK_SECONDS", 0.0)
    await redis.hset(keys.BURIED, mapping={f"org_{number}": 1 for number in range(2_000)})
    shown = Gauges(
        Partitions.only(redis), organizations=2, bytes_limit_of=lambda _: 0, log=Lines().log
    )
    async with shown.walking():
        await shown.refresh()
    before = asyncio.all_tasks()
    await shown.refresh()
    await shown.refresh()
    assert asyncio.all_tasks() == before


def test_the_gauges_are_part_of_a_scrape_while_they_are_registered(redis: Redis) -> None:
    registry = CollectorRegistry()
    shown = Gauges(
        Partitions.only(redis), organizations=20, bytes_limit_of=lambda _: 0, log=Lines().log
    )
    with shown.registered(registry):
        assert shown in registry._collector_to_names
    assert shown not in registry._collector_to_names
