"""Facts about what becomes of an event, from claim to settlement, on a real Redis."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Never

import msgspec
import pytest
from redis.asyncio import Redis

from shared.endpoints.endpoint import Endpoints, OrganizationProfile
from shared.errors import StateError
from shared.observe import metrics
from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.group_commit import Tell
from shared.queue.job import job_id
from shared.queue.partition import Partition
from tests.integration.jobs import NOTHING, account, counters, mark_of, record_of
from tests.integration.workplace import POLICY, Workplace, body, now
from worker import Event, Handlers, Organization, Reject, Retry
from worker.operate import revival
from worker.pipeline.path import Path
from worker.pipeline.reports import Report
from worker.pipeline.settling import Settlements
from worker.pipeline.transitions import Claim, Marked, MarkRequest, Settled, Settlement
from worker.pipeline.work import Work


class Order(msgspec.Struct):
    order_id: str


class Seen:
    """Handlers that remember what they were given."""

    def __init__(self) -> None:
        self.events: list[Event[Any]] = []
        self.handlers = Handlers()

        @self.handlers.on("order.updated")
        async def seen(event: Event[Order], organization: Organization) -> None:
            self.events.append(event)
            await organization.state.increment("handled")


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def place(redis: Redis, seen: Seen) -> Workplace:
    return Workplace(redis, seen.handlers)


def handling(redis: Redis, function: Any, **changes: Any) -> Workplace:
    """A workplace with one handler for everything."""
    handlers = Handlers()
    handlers.on("*")(function)
    return Workplace(redis, handlers, replace(POLICY, **changes))


async def the_record(redis: Redis) -> dict[str, str]:
    """The only dead letter there is."""
    (name,) = await redis.keys("sellfern:dead-letter:*")
    return await record_of(redis, name.decode().removeprefix(keys.DEAD_LETTER))


async def test_a_handler_gets_the_event_and_its_state_is_committed_with_the_mark(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    created = now() - timedelta(minutes=1)
    signed = body("evt_1", created_at=created, extra="tolerated")
    assert await place.handle(signed) is Settled.DONE

    (event,) = seen.events
    assert (event.id, event.type, event.organization_id) == ("evt_1", "order.updated", "org_a")
    assert event.data == Order("1")
    assert event.raw == signed
    assert event.attempt == 1
    assert event.created_at == created
    assert event.received_at.tzinfo is not None
    assert event.idempotency_key == "org_a:evt_1"
    assert await redis.get(keys.state("org_a", "handled")) == b"1"
    assert await account(redis) == NOTHING
    assert place.lines.events() == ["event_handled"]


async def test_a_redelivery_is_handled_once_as_the_same_bytes_and_as_others(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    first = body("evt_1", data={"order_id": "1"})
    other = body("evt_1", data={"order_id": "1", "again": True})
    assert await place.handle(first) is Settled.DONE
    assert await place.handle(first) is Settled.DUPLICATE
    assert await place.handle(other) is Settled.DUPLICATE
    assert len(seen.events) == 1
    assert "event_conflicting" in place.lines.events()
    assert await account(redis) == NOTHING


async def test_the_same_event_id_of_two_organizations_is_two_events(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    for organization in ("org_a", "org_b"):
        signed = body("evt_1", organization)
        assert await place.handle(signed, organization=organization) is Settled.DONE
    assert [event.organization_id for event in seen.events] == ["org_a", "org_b"]
    assert await redis.get(keys.state("org_b", "handled")) == b"1"


@pytest.mark.parametrize(
    ("signed", "reason", "error"),
    [
        (b"rubbish", "malformed", "JSON"),
        (b"\xff\xfe", "malformed", "JSON"),
        (b'{"id": "\xff"}', "malformed", "UTF-8"),
        (b"[" * 100_000, "malformed", "object"),
        (body("evt_1", data=[1]), "malformed", "object"),
        (body("evt_1", data={"order_id": 7}), "malformed", "order_id"),
        (body("evt_1", "org_b"), "organization_mismatch", "org_b"),
        (body("evt_1", type="order.exploded"), "unavailable_event", "order.exploded"),
        (body("evt_1", type="order.fulfillment.shipped"), "unavailable_event", "Reference"),
        (body("evt_1", type="order.created"), "no_handler", "order.created"),
        (body("evt_1", created_at=now() - timedelta(days=6, minutes=1)), "stale", "6 days"),
        (body("evt_1", created_at=now() + timedelta(hours=1)), "stale", "after it was received"),
    ],
)
async def test_an_event_that_must_not_be_handled_is_a_dead_letter_that_says_why(
    redis: Redis, place: Workplace, seen: Seen, signed: bytes, reason: str, error: str
) -> None:
    assert await place.handle(signed) is Settled.DEAD
    assert seen.events == []
    record = await the_record(redis)
    assert record["reason"] == reason
    assert error in record["error"]
    assert (await counters(redis))[f"dead:{reason}"] == 1
    assert await account(redis) == NOTHING


async def test_a_foreign_organization_is_warned_of(place: Workplace) -> None:
    await place.handle(body("evt_1", "org_b"))
    assert place.lines.events() == ["organization_mismatch", "event_dead"]


async def test_a_forged_owner_does_not_block_the_event_of_the_right_one(
    place: Workplace, seen: Seen
) -> None:
    await place.handle(body("evt_1", "org_b"))
    assert await place.handle(body("evt_1", "org_a")) is Settled.DONE
    assert len(seen.events) == 1


async def test_waiting_in_our_own_queue_makes_no_event_stale(place: Workplace, seen: Seen) -> None:
    created = now() - timedelta(days=6, hours=12)
    received = round((created + timedelta(days=1)).timestamp() * 1000)
    signed = body("evt_1", created_at=created)
    assert await place.handle(signed, received_at=received) is Settled.DONE
    assert len(seen.events) == 1


async def test_an_event_older_than_the_marks_that_has_none_is_unprovable(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    created = now() - timedelta(days=7)
    received = round((created + timedelta(days=1)).timestamp() * 1000)
    signed = body("evt_1", created_at=created)
    assert await place.handle(signed, received_at=received) is Settled.DEAD
    assert (await the_record(redis))["reason"] == "unprovable"
    assert seen.events == []


async def test_an_old_event_that_was_begun_is_finished(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    created = now() - timedelta(days=7)
    signed = body("evt_1", created_at=created)
    received = round((created + timedelta(days=1)).timestamp() * 1000)
    (job,) = await place.accept(signed, received_at=received)
    await redis.set(keys.event("org_a", "evt_1"), f"pending:{job}")
    assert await place.handle_next() is Settled.DONE
    assert len(seen.events) == 1


async def test_a_payload_that_is_no_record_of_ours_is_undecodable(
    redis: Redis, place: Workplace
) -> None:
    (job,) = await place.accept(body())
    await redis.set(keys.payload(job), b"\x80\x04pickle?")
    assert await place.handle_next() is Settled.DEAD
    record = await the_record(redis)
    assert record["reason"] == "undecodable"
    assert await redis.hget(keys.dead_letter(job), "payload") == b"\x80\x04pickle?"


async def test_a_job_whose_workers_keep_letting_its_lease_go_is_crashed(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    (job,) = await place.accept(body())
    for _ in range(3):
        assert len(await place.claim()) == 1
        await redis.zadd(keys.QUEUE, {job: keys.DEFERRED_FROM})  # its lease is over
    assert await place.handle_next() is Settled.DEAD
    record = await the_record(redis)
    assert record["reason"] == "crashed"
    assert record["error"] == (
        "3 claims ended without an outcome: its worker stopped renewing the lease, or ended"
    )
    assert seen.events == []


async def test_an_ignored_type_counts_as_handled(redis: Redis, place: Workplace) -> None:
    place.handlers.ignore("order.created")
    assert await place.handle(body("evt_1", type="order.created")) is Settled.DONE
    mark = await mark_of(redis, "evt_1")
    assert mark is not None
    assert mark.startswith("done:")


async def test_an_exception_is_an_attempt_and_the_last_one_a_dead_letter(redis: Redis) -> None:
    attempts = []

    async def fails(event: Event[Any], organization: Organization) -> None:
        attempts.append(event.attempt)
        await organization.state.put("never", 1)
        raise KeyError("no such order")

    place = handling(redis, fails)
    assert await place.handle(body("evt_1")) is Settled.RETRIED
    assert await place.handle_next() is Settled.RETRIED
    assert await place.handle_next() is Settled.DEAD
    assert attempts == [1, 2, 3]
    record = await the_record(redis)
    assert (record["reason"], record["error"]) == ("exhausted", "KeyError: 'no such order'")
    assert record["attempts"] == "3"
    assert await redis.keys("sellfern:state:*") == []


async def test_a_retry_names_its_time_returned_or_raised(redis: Redis) -> None:
    async def returns(event: Event[Any], _: Organization) -> Retry | None:
        if event.attempt == 1:
            return Retry(after=3600)
        raise Retry(after=timedelta(hours=2))

    place = handling(redis, returns)
    (job,) = await place.accept(body())
    for hours in (1, 2):
        assert await place.handle_next() is Settled.RETRIED
        due = await redis.zscore(keys.QUEUE, job)
        assert due is not None
        assert abs(due / 1000 - now().timestamp() - hours * 3600) < 5
        await redis.zadd(keys.QUEUE, {job: keys.DEFERRED_FROM})


@pytest.mark.parametrize("raised", [True, False])
async def test_a_reject_is_a_dead_letter_at_once(redis: Redis, raised: bool) -> None:  # noqa: FBT001
    async def rejects(_event: Event[Any], _: Organization) -> Reject | None:
        if raised:
            raise Reject("no such order")
        return Reject("no such order")

    assert await handling(redis, rejects).handle(body()) is Settled.DEAD
    record = await the_record(redis)
    assert (record["reason"], record["error"]) == ("rejected", "no such order")
    assert record["attempts"] == "1"


async def test_a_handler_over_its_time_is_an_attempt(redis: Redis) -> None:
    async def hangs(_event: Event[Any], _: Organization) -> None:
        await asyncio.Event().wait()

    place = handling(redis, hangs, handler_timeout=0.01)
    assert await place.handle(body()) is Settled.RETRIED
    (line,) = place.lines.of("event_retried")
    assert line["error"] == "the handler took longer than 0.01 s"


@pytest.mark.parametrize(
    "error", [TimeoutError("mine"), asyncio.CancelledError(), SystemExit(3), RecursionError()]
)
async def test_whatever_a_handler_raises_is_an_attempt(redis: Redis, error: BaseException) -> None:
    async def fails(_event: Event[Any], _: Organization) -> None:
        raise error

    place = handling(redis, fails)
    assert await place.handle(body()) is Settled.RETRIED
    (line,) = place.lines.of("event_retried")
    assert line["error"].startswith(type(error).__name__)


async def test_a_handler_that_is_cancelled_gives_its_job_back_uncounted(redis: Redis) -> None:
    started = asyncio.Event()

    async def hangs(_event: Event[Any], _: Organization) -> None:
        started.set()
        await asyncio.Event().wait()

    place = handling(redis, hangs)
    task = asyncio.create_task(place.handle(body()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    now_held = await account(redis)
    assert len(now_held.queued) == 1
    assert now_held.running == {}
    ((claim, _),) = await place.claim()
    assert (claim.attempts, claim.claims) == (0, 0)


class Started:
    """A claimed job that is started without anybody who waits for it."""

    def __init__(self, place: Workplace, claim: Claim, payload: bytes) -> None:
        self.end: asyncio.Future[Settled | Exception] = asyncio.get_running_loop().create_future()
        self.work = Work(claim, jobs.decode(payload), self.end.set_result)
        self.start = partial(place.pipeline.start, self.work)

    async def ended(self) -> Settled | Exception:
        return await asyncio.wait_for(self.end, 10)


async def claimed(place: Workplace) -> Started:
    await place.accept(body())
    ((claim, payload),) = await place.claim()
    return Started(place, claim, payload)


async def test_what_is_cancelled_while_its_mark_is_on_its_way_is_given_back(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    started = await claimed(place)
    started.start()
    started.work.cancel()
    assert await started.ended() is Settled.RELEASED
    assert seen.events == []
    assert len((await account(redis)).queued) == 1


async def test_what_is_cancelled_before_its_handler_begins_is_given_back(
    monkeypatch: pytest.MonkeyPatch, redis: Redis, place: Workplace, seen: Seen
) -> None:
    started, real = await claimed(place), place.batcher.post_mark

    def post_mark(request: MarkRequest, tell: Tell[Marked]) -> None:
        def then(marked: Marked | Exception) -> None:
            tell(marked)  # which makes the handler's task
            started.work.cancel()

        real(request, then)

    monkeypatch.setattr(place.batcher, "post_mark", post_mark)
    started.start()
    assert await started.ended() is Settled.RELEASED
    assert seen.events == []
    assert len((await account(redis)).queued) == 1


async def test_what_is_cancelled_while_its_end_is_on_its_way_has_ended(
    monkeypatch: pytest.MonkeyPatch, redis: Redis, place: Workplace
) -> None:
    started, real = await claimed(place), place.batcher.post_settlement

    def post_settlement(settlement: Settlement, tell: Tell[Settled]) -> None:
        real(settlement, tell)
        started.work.cancel()

    monkeypatch.setattr(place.batcher, "post_settlement", post_settlement)
    started.start()
    assert await started.ended() is Settled.DONE
    assert place.lines.events() == ["event_handled"]
    assert await account(redis) == NOTHING


@pytest.mark.parametrize("step", ["_admit", "_open", "_judge", "_handler", "_organization"])
async def test_an_error_of_our_own_is_a_failed_attempt(
    monkeypatch: pytest.MonkeyPatch, redis: Redis, place: Workplace, step: str
) -> None:
    started = await claimed(place)

    def fails(*_: object) -> Never:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Path, step, fails)
    started.start()
    assert await started.ended() is Settled.RETRIED
    (line,) = place.lines.of("event_retried")
    assert line["error"] == "ZeroDivisionError: ours"
    assert (await account(redis)).running == {}


async def test_an_error_that_not_even_a_failed_attempt_survives_is_told(
    monkeypatch: pytest.MonkeyPatch, redis: Redis, place: Workplace
) -> None:
    started, error = await claimed(place), ZeroDivisionError("ours")

    def fails(*_: object) -> Never:
        raise error

    monkeypatch.setattr(Settlements, "of", fails)
    started.start()
    assert await started.ended() is error
    assert len((await account(redis)).running) == 1


async def test_an_end_that_can_not_be_told_is_no_second_end(
    monkeypatch: pytest.MonkeyPatch, redis: Redis, place: Workplace
) -> None:
    """What Redis has settled stays settled, whatever the log or a metric does."""
    started = await claimed(place)

    def fails(*_: object, **__: object) -> Never:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Report, "settled", fails)
    started.start()
    assert await started.ended() is Settled.DONE
    assert place.lines.events() == ["event_report_failed"]
    assert await account(redis) == NOTHING


async def test_a_conflict_runs_the_handler_again_until_its_reads_hold(redis: Redis) -> None:
    runs = 0

    async def counts(_event: Event[Any], organization: Organization) -> None:
        nonlocal runs
        runs += 1
        n = await organization.state.get("n", 0)
        if runs == 1:  # somebody else is faster
            await redis.set(keys.state("org_a", "n"), b"41")
        await organization.state.put("n", n + 1)

    place = handling(redis, counts)
    assert await place.handle(body()) is Settled.DONE
    assert runs == 2
    assert await redis.get(keys.state("org_a", "n")) == b"42"
    assert (await counters(redis))["state_conflicts"] == 1


async def test_endless_conflicts_spend_no_attempt_and_keep_no_worker(redis: Redis) -> None:
    runs = 0

    async def never(_event: Event[Any], organization: Organization) -> None:
        nonlocal runs
        runs += 1
        await organization.state.get("n")
        await redis.set(keys.state("org_a", "n"), b"%d" % runs)

    place = handling(redis, never)
    assert await place.handle(body()) is Settled.RELEASED
    assert runs == 10


async def test_who_waits_for_a_turn_is_handled_after_whoever_has_it(redis: Redis) -> None:
    handlers, seen = Handlers(), []

    @handlers.on("*", key="order_id")
    async def note(event: Event[Any], _organization: Organization) -> None:
        seen.append(event.id)
        if event.attempt == 1 and event.id == "evt_1":
            raise Retry(after=3600)

    place = Workplace(redis, handlers)
    first, second = body("evt_1"), body("evt_2")
    assert await place.handle(first) is Settled.RETRIED
    assert await place.handle(second) is Settled.IN_LINE
    await redis.zadd(keys.QUEUE, {job_id("org_a", first): keys.DEFERRED_FROM})
    assert await place.handle_next() is Settled.DONE
    assert await place.handle_next() is Settled.DONE
    assert seen == ["evt_1", "evt_1", "evt_2"]
    assert await account(redis) == NOTHING


async def test_the_newest_is_told_for_which_it_stands(redis: Redis) -> None:
    handlers, seen = Handlers(), []

    @handlers.on("*", key="order_id", latest=True)
    async def note(event: Event[Any], _organization: Organization) -> None:
        seen.append((event.id, event.superseded))
        if event.attempt == 1 and event.id == "evt_1":
            raise Retry(after=3600)

    place = Workplace(redis, handlers)
    first = body("evt_1")
    assert await place.handle(first) is Settled.RETRIED
    assert await place.handle(body("evt_2")) is Settled.IN_LINE
    assert await place.handle(body("evt_3")) is Settled.IN_LINE
    await redis.zadd(keys.QUEUE, {job_id("org_a", first): keys.DEFERRED_FROM})
    assert await place.handle_next() is Settled.SUPERSEDED
    assert await place.handle_next() is Settled.DONE
    assert seen == [("evt_1", ()), ("evt_3", ("evt_2", "evt_1"))]
    told = [(line.get("event_id"), line.get("by")) for line in place.lines.of("event_superseded")]
    assert told == [("evt_2", "evt_3"), ("evt_1", None)]
    assert await account(redis) == NOTHING


@pytest.mark.parametrize("key", ["customer.id", lambda event: event.data["none"]])
async def test_an_event_whose_key_can_not_be_read_is_handled_and_counted(
    redis: Redis, key: Any
) -> None:
    handlers = Handlers()

    @handlers.on("*", key=key)
    async def nothing(_event: Event[Any], _organization: Organization) -> None:
        pass

    place = Workplace(redis, handlers)
    before = metrics.REGISTRY.get_sample_value("sellfern_keys_unread_total") or 0
    assert await place.handle(body("evt_1")) is Settled.DONE
    assert metrics.REGISTRY.get_sample_value("sellfern_keys_unread_total") == before + 1
    (line,) = place.lines.of("event_key_unread")
    assert line["event_id"] == "evt_1"


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_put_without_await_is_a_failed_attempt_that_names_it(redis: Redis) -> None:
    async def forgets(_event: Event[Any], organization: Organization) -> None:
        await organization.state.put("a", 1)
        organization.state.put("b", 1)  # type: ignore[unused-coroutine]

    place = handling(redis, forgets)
    assert await place.handle(body()) is Settled.RETRIED
    (line,) = place.lines.of("event_retried")
    assert line["error"] == "StateError: state.put('b') was not awaited before the handler ended"
    assert await redis.keys("sellfern:state:*") == []


async def test_a_put_after_the_handlers_end_is_refused(redis: Redis) -> None:
    ended = asyncio.Event()
    tasks = []

    async def leaves_a_task(_event: Event[Any], organization: Organization) -> None:
        async def late() -> None:
            await ended.wait()
            await organization.state.put("late", 1)

        await organization.state.put("in time", 1)
        tasks.append(asyncio.create_task(late()))

    place = handling(redis, leaves_a_task)
    assert await place.handle(body()) is Settled.DONE
    ended.set()
    with pytest.raises(StateError, match="the handler has ended"):
        await tasks[0]
    assert await redis.keys("sellfern:state:*") == [keys.state("org_a", "in time").encode()]


async def test_a_replayed_event_keeps_its_received_at(redis: Redis) -> None:
    """So it doesn't win over what came after it, however late it runs."""
    broken = True

    async def writes(event: Event[Any], organization: Organization) -> None:
        if broken:
            raise Reject("not yet")
        await organization.state.put_if_newer("order", event.id, version=1)

    place = handling(redis, writes)
    received_at = round(now().timestamp() * 1000)
    first = body("evt_z")
    assert await place.handle(first, received_at=received_at) is Settled.DEAD
    broken = False
    assert await place.handle(body("evt_a"), received_at=received_at + 1) is Settled.DONE
    job = job_id("org_a", first)
    assert await revival.replay_one(Partition.only(redis), job) == "queued"
    assert await place.handle_next() is Settled.DONE
    raw = await redis.get(keys.state("org_a", "order"))
    assert raw == f'"evt_a"\n1\nevt_a {received_at + 1}'.encode()


async def test_a_commit_that_redis_refuses_is_an_attempt(redis: Redis) -> None:
    await redis.set(keys.state("org_a", "text"), b'"five"')

    async def increments(_event: Event[Any], organization: Organization) -> None:
        await organization.state.increment("text")

    place = handling(redis, increments)
    assert await place.handle(body()) is Settled.RETRIED
    (line,) = place.lines.of("event_retried")
    assert line["error"] == "commit: increment: the value is not a number"


async def test_a_foreign_value_under_the_mark_is_an_attempt(redis: Redis, place: Workplace) -> None:
    await redis.hset(keys.event("org_a", "evt_1"), "a", "b")
    assert await place.handle(body("evt_1")) is Settled.RETRIED
    (line,) = place.lines.of("event_retried")
    assert line["error"].startswith("mark: WRONGTYPE")


async def test_a_job_that_somebody_else_has_by_now_is_lost(
    redis: Redis, place: Workplace, seen: Seen
) -> None:

    (job,) = await place.accept(body("evt_1"))
    ((late, payload),) = await place.claim()
    await redis.zadd(keys.QUEUE, {job: keys.DEFERRED_FROM})
    assert await place.handle_next() is Settled.DONE
    assert await place.pipeline.run(late, jobs.decode(payload)) is Settled.LOST
    assert len(seen.events) == 1
    assert place.lines.events() == ["event_handled", "event_lost"]


async def test_a_handler_reads_its_organizations_settings_and_logs_with_its_event(
    redis: Redis,
) -> None:
    shown = []

    async def looks(_event: Event[Any], organization: Organization) -> None:
        shown.append(dict(organization.settings))
        organization.log.info("looked")

    place = handling(redis, looks)
    profile = OrganizationProfile("org_a", 1.0, None, {"erp": "x"})
    place.endpoints.current = Endpoints({}, {"org_a": profile})
    await place.handle(body("evt_1"))
    await place.handle(body("evt_2", "org_b"), organization="org_b")
    assert shown == [{"erp": "x"}, {}]
    first, _ = place.lines.of("looked")
    assert (first["organization"], first["event_id"]) == ("org_a", "evt_1")


async def test_no_line_of_the_log_bears_a_body(redis: Redis, place: Workplace) -> None:
    secret = "4111-1111-1111-1111"
    for signed in (
        body("evt_1", data={"order_id": "1", "card": secret}),
        body("evt_2", data={"order_id": 7, "card": secret}),
        body("evt_3", "org_b", data={"card": secret}),
        secret.encode(),
        b'{"id": "' + secret.encode() + b'"',
    ):
        await place.handle(signed)
    assert place.lines.events()
    assert secret not in place.lines.text()
