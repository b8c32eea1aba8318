"""Facts about an organization's state: what a handler sees, and what a commit makes of it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared import keys
from shared.errors import StateError
from tests.integration.jobs import delivery, enqueued, mark_of
from worker.projection import stored_values
from worker.state import (
    LARGEST_INTEGER,
    MOST_BYTES,
    MOST_OPERATIONS,
    MOST_VALUE_BYTES,
    State,
    Value,
    apply,
)
from worker.transitions import Claim, MarkRequest, Refused, Settled, Settlement, Transitions

_numbers = count()


class Attempt:
    """One handler's attempt: a claimed job with a state to work on."""

    def __init__(self, redis: Redis, claim: Claim, event_id: str) -> None:
        self.redis = redis
        self.claim = claim
        self.event_id = event_id
        self.state = State(self._read, event_id=event_id, tombstone=60)

    async def _read(self, key: str) -> bytes | None:
        raw: bytes | None = await self.redis.get(keys.state("org_a", key))
        return raw

    async def commit(self) -> Settled | Exception:
        details = (60_000, tuple(self.state.reads.items()), tuple(self.state.operations))
        (result,) = await Transitions(self.redis).settle([Settlement(self.claim, "done", details)])
        return result


async def attempt(redis: Redis, event_id: str = "") -> Attempt:
    """A freshly claimed and marked job."""
    number = next(_numbers)
    event_id = event_id or f"evt_{number}"
    (job,) = await enqueued(redis, delivery(b"%d" % number))
    transitions = Transitions(redis)
    claim = await transitions.adopt(job, lease=30)
    assert claim is not None
    await transitions.mark([MarkRequest(claim, event_id)])
    return Attempt(redis, claim, event_id)


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


async def test_equal_versions_are_decided_by_the_event_id(redis: Redis) -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    for event_id in ("evt_a", "evt_c", "evt_b"):
        mine = await attempt(redis, event_id)
        await mine.state.put_if_newer("order", event_id, at)
        await mine.commit()
    assert await stored(redis, "order") == "evt_c"


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
    assert [value async for value in stored_values(redis, "org_a")] == []


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
_EVENTS = st.lists(st.tuples(st.text(min_size=1, max_size=3), st.lists(_STEPS)), max_size=6)


class Model:
    """A plain dictionary that obeys the same rules."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}

    def commit(self, operations: list[tuple[Any, ...]], writer: str) -> bool:
        after = dict(self.values)
        try:
            for operation in operations:
                key = operation[1]
                after[key] = apply(after.get(key, Value()), operation, writer)
        except StateError:
            return False
        self.values = after
        return True

    def shown(self, key: str) -> Any:
        value = self.values.get(key, Value())
        return msgspec.json.decode(value.json) if value.json else None


@pytest.fixture
async def client(redis_server: EmbeddedRedis) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url) as redis:
        yield redis


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=_EVENTS)
async def test_commits_do_what_a_plain_dictionary_does(
    client: Redis, events: list[tuple[str, list[tuple[Any, ...]]]]
) -> None:
    await client.flushall()
    model = Model()
    for number, (text, steps) in enumerate(events):
        event_id = f"{text}{number}"
        mine = await attempt(client, event_id)
        await play(mine, steps, model)
        committed = await mine.commit()
        assert (committed is Settled.DONE) == model.commit(mine.state.operations, event_id)
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
            )
        else:
            own = [operation for operation in mine.state.operations if operation[1] == key]
            if preview.commit(own, mine.event_id):
                assert shown == preview.shown(key)
