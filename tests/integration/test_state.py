"""Facts about an organization's state: what a handler sees, and what a commit makes of it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count, permutations
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.errors import StateError
from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.jobs import RECEIVED_AT, delivery, enqueued, mark_of, record_of
from worker.operate.organizations import stored_values
from worker.pipeline.transitions import (
    Claim,
    MarkRequest,
    Refused,
    Settled,
    Settlement,
    Transitions,
)
from worker.state import MOST_BYTES, MOST_OPERATIONS, State
from worker.value import LARGEST_INTEGER, MOST_VALUE_BYTES, Value, apply

_numbers = count()


class Attempt:
    """One handler's attempt: a claimed job with a state to work on."""

    def __init__(self, redis: Redis, claim: Claim, event_id: str, received_at: int) -> None:
        self.redis = redis
        self.claim = claim
        self.event_id = event_id
        self.state = State(self.raw, event_id=event_id, received_at=received_at, tombstone=60)

    async def raw(self, key: str) -> bytes | None:
        raw: bytes | None = await self.redis.get(keys.state("org_a", key))
        return raw

    async def commit(self, retention: float = 60_000) -> Settled | Exception:
        reads, operations = tuple(self.state.reads.items()), tuple(self.state.operations)
        details = (retention, reads, operations, True, self.state.received_at)
        (result,) = await Transitions(Partition.only(self.redis)).settle(
            [Settlement(self.claim, "done", details)]
        )
        return result


async def attempt(redis: Redis, event_id: str = "", received_at: int = RECEIVED_AT) -> Attempt:
    """A freshly claimed and marked job."""
    number = next(_numbers)
    event_id = event_id or f"evt_{number}"
    (job,) = await enqueued(redis, delivery(b"%d" % number))
    transitions = Transitions(Partition.only(redis))
    claim = await transitions.adopt(job, lease=30)
    assert claim is not None
    await transitions.mark([MarkRequest(claim, event_id)])
    return Attempt(redis, claim, event_id, received_at)


async def stored(redis: Redis, key: str) -> Any:
    value = Value.parse(await redis.get(keys.state("org_a", key)))
    return msgspec.json.decode(value.json) if value.json else None


async def test_nothing_is_visible_before_the_commit_and_all_of_it_after(redis: Redis) -> None:
    mine = await attempt(redis)
    await mine.state.put("a", {"x": 1})
    await mine.state.increment("n", 2)
    assert await redis.keys("sellfern:state:*") == []
    assert await mine.state.get("a") == {"x": 1}
    assert await mine.state.get("n") == 2

    assert await mine.commit() is Settled.DONE
    assert await stored(redis, "a") == {"x": 1}
    assert await stored(redis, "n") == 2


async def test_a_value_that_changed_after_it_was_read_is_a_conflict(redis: Redis) -> None:
    mine, other = await attempt(redis), await attempt(redis)
    assert await mine.state.get("a", "nothing") == "nothing"
    await mine.state.put("b", 1)
    await other.state.put("a", 2)
    assert await other.commit() is Settled.DONE

    assert await mine.commit() is Settled.CONFLICT
    assert await stored(redis, "b") is None
    assert await mark_of(redis, mine.event_id) == f"pending:{mine.claim.job}"


async def test_a_neighbours_commit_between_two_reads_at_once_is_a_conflict(redis: Redis) -> None:
    mine, other = await attempt(redis), await attempt(redis)
    await other.state.put("n", 10)
    committed = asyncio.Event()
    reads = count(1)

    async def read(key: str) -> bytes | None:
        if next(reads) > 1:
            await committed.wait()
        raw = await mine.raw(key)
        if not committed.is_set():
            assert await other.commit() is Settled.DONE
            committed.set()
        return raw

    mine.state = State(read, event_id=mine.event_id, tombstone=60)
    assert set(await asyncio.gather(mine.state.get("n", 0), mine.state.get("n", 0))) == {0}
    await mine.state.put("n", 1)
    assert await mine.commit() is Settled.CONFLICT
    assert await stored(redis, "n") == 10


async def test_increments_of_concurrent_events_all_count(redis: Redis) -> None:
    attempts = [await attempt(redis) for _ in range(20)]
    for each in attempts:
        await each.state.increment("total", 5)
    assert set(await asyncio.gather(*(each.commit() for each in attempts))) == {Settled.DONE}
    assert await stored(redis, "total") == 100


async def test_an_increment_of_a_text_refuses_the_whole_commit(redis: Redis) -> None:
    first = await attempt(redis)
    await first.state.put("text", "five")
    await first.commit()

    mine = await attempt(redis)
    await mine.state.put("other", 1)
    await mine.state.increment("text")
    refused = await mine.commit()
    assert isinstance(refused, Refused)
    assert "not a number" in str(refused)
    assert await stored(redis, "other") is None
    with pytest.raises(StateError, match="expected a number, got str"):
        await mine.state.get("text")


async def test_the_newest_version_wins_in_any_order(redis: Redis) -> None:
    for version in (2, 3, 1):
        mine = await attempt(redis)
        await mine.state.put_if_newer("order", version, version)
        assert await mine.commit() is Settled.DONE
    assert await stored(redis, "order") == 3


@pytest.mark.parametrize("order", list(permutations([("evt_c", 1), ("evt_a", 2), ("evt_b", 2)])))
async def test_equal_versions_are_decided_by_received_at_then_by_the_event_id(
    redis: Redis, order: tuple[tuple[str, int], ...]
) -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    for event_id, later in order:
        mine = await attempt(redis, event_id, RECEIVED_AT + later)
        await mine.state.put_if_newer("order", event_id, at)
        await mine.commit()
    assert await stored(redis, "order") == "evt_b"
    raw = await redis.get(keys.state("org_a", "order"))
    assert raw.endswith(f"\nevt_b {RECEIVED_AT + 2}".encode())


async def test_a_worker_that_knows_no_received_at_writes_the_oldest_of_a_version(
    redis: Redis,
) -> None:
    """Its details end before it, and its values gave none: any event that has one replaces it."""
    name = keys.state("org_a", "order")
    await redis.set(name, b'"old"\n5\nevt_z')
    older = await attempt(redis, "evt_zz")
    details = (60_000, (), (("put_if_newer", "order", 0, '"zz"', 5),))
    settled = await Transitions(Partition.only(redis)).settle(
        [Settlement(older.claim, "done", details)]
    )
    assert settled == [Settled.DONE]
    assert await redis.get(name) == b'"zz"\n5\nevt_zz 0'

    mine = await attempt(redis, "evt_a")
    await mine.state.put_if_newer("order", "a", 5)
    assert await mine.commit() is Settled.DONE
    assert await stored(redis, "order") == "a"


async def test_an_increment_keeps_who_wrote_the_version_and_when(redis: Redis) -> None:
    mine = await attempt(redis, "evt_1")
    await mine.state.put_if_newer("n", 1, 5)
    await mine.commit()
    other = await attempt(redis, "evt_2", RECEIVED_AT + 9)
    await other.state.increment("n")
    await other.commit()
    raw = await redis.get(keys.state("org_a", "n"))
    assert raw == f"2\n5\nevt_1 {RECEIVED_AT}".encode()


TOO_LONG = ("put", "flag", 2**53, "1")
"""An operation that no worker sends: Python refuses such an expiry where it is given."""


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (TOO_LONG, "expiry: expected 1 to 2"),
        (("put", "flag", 1e300, "1"), "expiry: expected 1 to 2"),
        (("put", "flag", 0.5, "1"), "expiry: expected 1 to 2"),
        (("put", "flag", float("nan"), "1"), "expiry: expected 1 to 2"),
        (("put", "flag", None, "1"), "expiry: expected 1 to 2"),
        (("put", "flag", 0, None), "expected JSON"),
        (("increment", "hash", -1, 1), "sellfern:state:org_a:hash: WRONGTYPE"),
        (("increment", "text", -1, 1), "not a number"),
        (("increment", "n", -1, 2**53 - 1), "beyond 2"),
        (("unheard-of", "n", 0), "call"),
    ],
)
async def test_a_commit_is_all_or_nothing(redis: Redis, last: tuple[Any, ...], why: str) -> None:
    await redis.hset(keys.state("org_a", "hash"), "a", "b")
    await redis.set(keys.state("org_a", "text"), b'"five"')
    mine = await attempt(redis)
    await mine.state.increment("n")
    await mine.state.put("soon", 1, expire=60)
    mine.state.operations += [last, ("put", "after", 0, "1")]
    refused = await mine.commit()
    assert isinstance(refused, Refused)
    assert why in str(refused)
    assert sorted(await redis.keys("sellfern:state:*")) == [
        b"sellfern:state:org_a:hash",
        b"sellfern:state:org_a:text",
    ]
    assert await mark_of(redis, mine.event_id) == f"pending:{mine.claim.job}"

    mine.state.operations.remove(last)
    assert await mine.commit() is Settled.DONE
    assert await stored(redis, "n") == 1


async def test_a_value_of_another_type_that_was_read_is_named(redis: Redis) -> None:
    mine = await attempt(redis)
    mine.state.reads["hash"] = ""
    await redis.hset(keys.state("org_a", "hash"), "a", "b")
    refused = await mine.commit()
    assert isinstance(refused, Refused)
    assert str(refused).startswith("sellfern:state:org_a:hash: WRONGTYPE")


@pytest.mark.parametrize("retention", [0, -1, 2**53, 0.5, float("inf")])
async def test_a_mark_that_redis_would_not_take_refuses_the_commit(
    redis: Redis, retention: float
) -> None:
    mine = await attempt(redis)
    await mine.state.increment("n")
    assert isinstance(await mine.commit(retention), Refused)
    assert await redis.keys("sellfern:state:*") == []
    assert await mark_of(redis, mine.event_id) == f"pending:{mine.claim.job}"


@pytest.mark.parametrize("delay", [float("nan"), float("inf"), 1e300])
async def test_a_delay_that_is_none_is_refused_and_its_neighbour_settles(
    redis: Redis, delay: float
) -> None:
    mine, other = await attempt(redis), await attempt(redis)
    refused, done = await Transitions(Partition.only(redis)).settle(
        [
            Settlement(mine.claim, "retry", (delay, (1, 0, 20, 30_000))),
            Settlement(other.claim, "done", (60_000, (), ())),
        ]
    )
    assert isinstance(refused, Refused)
    assert "expected a delay" in str(refused)
    assert done is Settled.DONE
    assert await redis.hkeys(keys.ORGANIZATIONS) == []  # nor is the breaker opened
    assert await redis.zcard(keys.QUEUE) == 1


async def test_a_burial_that_redis_refuses_leaves_everything(redis: Redis) -> None:
    mine = await attempt(redis)
    record = keys.dead_letter(mine.claim.job)
    details = ("exhausted", "error", "order.updated", "acme", RECEIVED_AT, True, (1, 0, 20, 30_000))
    burial = Settlement(mine.claim, "dead", details)
    await redis.set(record, "foreign")
    (refused,) = await Transitions(Partition.only(redis)).settle([burial])
    assert isinstance(refused, Refused)
    assert await mark_of(redis, mine.event_id) == f"pending:{mine.claim.job}"
    assert await redis.hkeys(keys.ORGANIZATIONS) == []

    await redis.delete(record)
    assert await Transitions(Partition.only(redis)).settle([burial]) == [Settled.DEAD]
    assert (await record_of(redis, mine.claim.job))["attempts"] == "1"


SENT = b'{\n  "a": 1,\n  "b": [\n    2\n  ]\n}\n'


async def test_json_as_it_was_sent_is_put_and_read_and_gives_way_to_a_newer_one(
    redis: Redis,
) -> None:
    mine = await attempt(redis)
    await mine.state.put("body", msgspec.Raw(SENT))
    await mine.state.put_if_newer("order", {"sent": msgspec.Raw(SENT)}, 1)
    assert await mine.commit() is Settled.DONE
    assert await redis.get(keys.state("org_a", "body")) == b'{"a":1,"b":[2]}'

    other = await attempt(redis)
    assert await other.state.get("body") == {"a": 1, "b": [2]}
    assert await other.state.get("order") == {"sent": {"a": 1, "b": [2]}}
    await other.state.put_if_newer("order", "newer", 2)
    assert await other.commit() is Settled.DONE
    assert await stored(redis, "order") == "newer"


@pytest.mark.parametrize(
    ("raw", "version"),
    [(SENT, None), (SENT + b"\n3\nevt_0", 3), (b"[\n1\n,2]", None), (b"[1,\n2\n]\n3\nevt_0", 3)],
)
async def test_what_an_older_worker_left_with_its_line_breaks_is_read_and_replaced(
    redis: Redis, raw: bytes, version: int | None
) -> None:
    await redis.set(keys.state("org_a", "k"), raw)
    (shown,) = [value async for value in stored_values(Partition.only(redis), "org_a")]
    assert shown["version"] == version
    mine = await attempt(redis)
    assert await mine.state.get("k") == shown["value"] != None  # noqa: E711  # both, not none
    await mine.state.put_if_newer("k", "new", 4)
    assert await mine.commit() is Settled.DONE
    assert await stored(redis, "k") == "new"


async def test_what_is_no_json_is_shown_with_an_error_and_can_be_replaced(redis: Redis) -> None:
    for name, raw in (("a", b"{rubbish"), ("b", b""), ("c", b"1"), ("d", b"x\n5\nevt")):
        await redis.set(keys.state("org_a", name), raw)
    shown = [value async for value in stored_values(Partition.only(redis), "org_a")]
    assert [(value["key"], "error" in value, value["version"]) for value in shown] == [
        ("a", True, None),
        ("c", False, None),
        ("d", True, 5),
    ]
    mine = await attempt(redis)
    assert await mine.state.get("b", 7) == 7  # the empty text is read as no value, and checked
    for name in "abd":
        await mine.state.put(name, 2)
    assert await mine.commit() is Settled.DONE
    assert [await stored(redis, name) for name in "abcd"] == [2, 2, 1, 2]


async def test_a_deleted_version_does_not_come_back_with_an_older_write(redis: Redis) -> None:
    steps: list[tuple[str, int]] = [("put", 5), ("delete", 7), ("put", 6)]
    for name, version in steps:
        mine = await attempt(redis)
        if name == "put":
            await mine.state.put_if_newer("order", version, version)
        else:
            await mine.state.delete("order", version=version)
        await mine.commit()
    assert await stored(redis, "order") is None
    assert [value async for value in stored_values(Partition.only(redis), "org_a")] == []


async def test_a_value_expires_when_it_is_told_to(redis: Redis) -> None:
    mine = await attempt(redis)
    await mine.state.put("soon", 1, expire=30)
    await mine.state.put("never", 1)
    await mine.commit()
    assert 29_000 < await redis.pttl(keys.state("org_a", "soon")) <= 30_000
    assert await redis.pttl(keys.state("org_a", "never")) == -1

    other = await attempt(redis)
    await other.state.increment("soon")
    await other.commit()
    assert await redis.pttl(keys.state("org_a", "soon")) > 0


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_number_that_begins_anew_stays(
    redis: Redis,
    at_once: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    """The expiry of what was deleted is its tombstone's, and none of the number's."""
    mine = await attempt(redis)
    await mine.state.put_if_newer("n", 5, 1)
    await mine.state.delete("n", version=2)
    if not at_once:
        assert await mine.commit() is Settled.DONE
        assert await redis.pttl(keys.state("org_a", "n")) > 0
        mine = await attempt(redis)
    await mine.state.increment("n", 3)
    assert await mine.commit() is Settled.DONE
    assert await stored(redis, "n") == 3
    assert await redis.pttl(keys.state("org_a", "n")) == -1


async def test_an_events_own_later_write_of_the_same_version_wins(redis: Redis) -> None:
    mine = await attempt(redis)
    for key in ("put", "deleted"):
        await mine.state.put_if_newer(key, "first", 1)
    await mine.state.put_if_newer("put", "second", 1)
    await mine.state.delete("deleted", version=1)
    assert await mine.state.get("put") == "second"
    assert await mine.state.get("deleted") is None
    assert await mine.commit() is Settled.DONE
    assert await stored(redis, "put") == "second"
    assert await stored(redis, "deleted") is None


@pytest.mark.parametrize("key", ["", "x" * 513, "\ud800", 7])
async def test_a_key_that_cannot_be_is_refused_with_what_was_expected(key: Any) -> None:
    state = State(_absent, event_id="evt", tombstone=60)
    with pytest.raises(StateError, match="state key: expected"):
        await state.get(key)
    with pytest.raises(StateError, match="state key: expected"):
        await state.put(key, 1)


async def test_limits_of_a_value_and_of_an_event_are_told(redis: Redis) -> None:
    state = State(_absent, event_id="evt", tombstone=60)
    with pytest.raises(StateError, match=f"expected at most {MOST_VALUE_BYTES} bytes"):
        await state.put("big", "x" * MOST_VALUE_BYTES)
    with pytest.raises(StateError, match="expected JSON"):
        await state.put("odd", object())
    for number in range(3):
        await state.put(f"k{number}", "x" * (MOST_VALUE_BYTES - 2))
    with pytest.raises(StateError, match=f"{MOST_BYTES} bytes at the most"):
        await state.put("k4", "x" * (MOST_VALUE_BYTES - 2))
    many = State(_absent, event_id="evt", tombstone=60)
    for _ in range(MOST_OPERATIONS):
        await many.increment("n")
    with pytest.raises(StateError, match=f"{MOST_OPERATIONS} times"):
        await many.increment("n")


@pytest.mark.parametrize("by", [float("nan"), float("inf"), 2**53, True, "1"])
async def test_an_increment_is_a_finite_number(by: Any) -> None:
    with pytest.raises(StateError, match="increment"):
        await State(_absent, event_id="evt", tombstone=60).increment("n", by)


@pytest.mark.parametrize("version", [datetime(2026, 1, 1), 2**53, True, "1"])  # noqa: DTZ001
async def test_a_version_is_an_aware_time_or_a_whole_number(version: Any) -> None:
    with pytest.raises(StateError, match="version: expected"):
        await State(_absent, event_id="evt", tombstone=60).put_if_newer("k", 1, version)


@pytest.mark.parametrize("expire", [0, -1, float("inf"), float("nan")])
async def test_an_expiry_is_in_the_future(expire: float) -> None:
    with pytest.raises(StateError, match="expire: expected"):
        await State(_absent, event_id="evt", tombstone=60).put("k", 1, expire=expire)


async def _absent(_: str) -> bytes | None:
    return None


@pytest.fixture
async def client(redis_server: EmbeddedRedis) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url) as redis:
        yield redis


_RAW = st.one_of(
    st.none(),
    st.sampled_from(
        [b"", b"5", b"-0.5", b'"x"', b"null", SENT, b"[\n1\n,2]", b"\n5\n", b"5\nx", b"5\n1e999\nx"]
    ),
    st.builds(
        lambda json, version, writer: b"\n".join((json, version, writer)),
        st.sampled_from([b"", b"5", b'"x"', b"1.5", b"[1,\n2\n]", SENT]),
        st.sampled_from([b"-1", b"0", b"1", b"2", b"1e+17"]),
        st.sampled_from(
            [b"evt", b"evt 5", b"evt 6", b"evt 7", b"a 6", b"b 6", b"evt 1 6", b"a\nb 6", b"evt 0"]
        ),
    ),
)
_HALF = st.one_of(
    st.tuples(st.just("put"), st.just("k"), st.just(0), st.just('"new"')),
    st.tuples(
        st.just("put_if_newer"), st.just("k"), st.just(0), st.just('"new"'), st.integers(-1, 2)
    ),
    st.tuples(st.just("delete"), st.just("k"), st.just(60_000), st.none() | st.integers(-1, 2)),
    st.tuples(st.just("increment"), st.just("k"), st.just(-1), st.sampled_from([1.0, -0.5])),
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    raw=_RAW,
    operations=st.lists(_HALF, min_size=1, max_size=3),
    event_id=st.sampled_from(["evt", "a", "b", "evt 1", "evt 5"]),
    received_at=st.sampled_from([0, 5, 6, 7]),
)
async def test_the_script_makes_of_a_value_what_python_makes_of_it(
    client: Redis, raw: bytes | None, operations: list[Any], event_id: str, received_at: int
) -> None:
    await client.flushall()
    name = keys.state("org_a", "k")
    if raw is not None:
        await client.set(name, raw)
    mine = await attempt(client, event_id, received_at)
    mine.state.operations += operations
    committed = await mine.commit()
    value = Value.parse(raw)
    try:
        for operation in operations:
            value = apply(value, operation, event_id, received_at)
    except StateError:
        assert isinstance(committed, Refused)
        assert await client.get(name) == raw
    else:
        assert committed is Settled.DONE
        assert as_read(Value.parse(await client.get(name))) == as_read(value)


def as_read(value: Value) -> tuple[Any, ...]:
    """Without how a number is written: Lua and Python print 1.5 in their own ways."""
    json = value.decoded("k") if value.json else None
    return (json, value.version, value.writer, value.received_at)


_KEYS = st.sampled_from(["a", "b"])
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-LARGEST_INTEGER, LARGEST_INTEGER),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=2),
)
_VERSIONS = st.integers(-3, 3)
_STEPS = st.one_of(
    st.tuples(st.just("get"), _KEYS),
    st.tuples(st.just("put"), _KEYS, _VALUES),
    st.tuples(st.just("put_if_newer"), _KEYS, _VALUES, _VERSIONS),
    st.tuples(st.just("delete"), _KEYS, st.one_of(st.none(), _VERSIONS)),
    st.tuples(
        st.just("increment"),
        _KEYS,
        st.one_of(st.integers(-5, 5), st.sampled_from([0.5, -2.25, float(2**52)])),
    ),
)
_EVENTS = st.lists(
    st.tuples(st.text(min_size=1, max_size=3), st.integers(0, 2), st.lists(_STEPS)), max_size=6
)


class Model:
    """A plain dictionary that obeys the same rules."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}

    def commit(self, operations: list[tuple[Any, ...]], writer: str, received_at: int) -> bool:
        after = dict(self.values)
        try:
            for operation in operations:
                key = operation[1]
                after[key] = apply(after.get(key, Value()), operation, writer, received_at)
        except StateError:
            return False
        self.values = after
        return True

    def shown(self, key: str) -> Any:
        value = self.values.get(key, Value())
        return msgspec.json.decode(value.json) if value.json else None


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=_EVENTS)
async def test_commits_do_what_a_plain_dictionary_does(
    client: Redis, events: list[tuple[str, int, list[tuple[Any, ...]]]]
) -> None:
    await client.flushall()
    model = Model()
    for number, (text, received_at, steps) in enumerate(events):
        event_id = f"{text}{number}"
        mine = await attempt(client, event_id, received_at)
        await play(mine, steps, model)
        committed = await mine.commit()
        held = model.commit(mine.state.operations, event_id, received_at)
        assert (committed is Settled.DONE) == held
        for key in ("a", "b"):
            assert await stored(client, key) == model.shown(key)


async def play(mine: Attempt, steps: list[tuple[Any, ...]], model: Model) -> None:
    """Take the steps; what is read must be what the model would show after a commit."""
    for name, key, *rest in steps:
        if name != "get":
            options = {"version": rest[0]} if name == "delete" else {}
            await getattr(mine.state, name)(key, *([] if options else rest), **options)
            continue
        preview = Model()
        preview.values = dict(model.values)
        try:
            shown = await mine.state.get(key)
        except StateError:
            assert not preview.commit(
                [operation for operation in mine.state.operations if operation[1] == key],
                mine.event_id,
                mine.state.received_at,
            )
        else:
            own = [operation for operation in mine.state.operations if operation[1] == key]
            if preview.commit(own, mine.event_id, mine.state.received_at):
                assert shown == preview.shown(key)
