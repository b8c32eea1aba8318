"""Facts about what several partitions say as one."""

from collections.abc import AsyncIterator, Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shared.queue.held_bytes import RedisMemory
from shared.queue.marker import Incident
from shared.queue.reach import Missing
from tests.unit.worker.operate.test_status_command import organization
from worker.operate import merged, workers
from worker.operate.overview import Overview
from worker.operate.workers import WorkerOverview

MEMORY = RedisMemory(5, 10)


def part(at: float = 100, **changes: object) -> Overview:
    fields: dict[str, object] = {
        **dict.fromkeys(("waiting", "ready", "running", "deferred", "parked", "dead"), 1),
        "at": at,
        "oldest_seconds": None,
        "counters": {},
        "dead_by_reason": {},
        "organizations": [],
        "workers": [],
    }
    return Overview(**{**fields, **changes})  # type: ignore[arg-type]  # by name


def test_what_can_be_counted_is_added_up() -> None:
    found = merged.merged(
        [
            part(counters={"handled": 3, "accepted": 4}, unhandled=2, in_turn=1),
            part(counters={"accepted": 1}, dead_by_reason={"rejected": 1}, in_turn=1),
        ],
        [MEMORY],
        [],
        at=7,
    )
    assert (found.waiting, found.ready, found.dead) == (2, 2, 2)
    assert (found.unhandled, found.in_turn) == (2, 2)
    assert list(found.counters.items()) == [("accepted", 5), ("handled", 3)]
    assert found.dead_by_reason == {"rejected": 1}


def test_the_oldest_is_so_by_its_own_partitions_clock() -> None:
    parts = [part(at=1000, oldest_seconds=3.0), part(at=100), part(at=500, oldest_seconds=7.0)]
    found = merged.merged(parts, [MEMORY], [], at=7)
    assert (found.at, found.oldest_seconds) == (7, 7)
    assert merged.merged([part(), part()], [MEMORY], [], at=7).oldest_seconds is None


def test_the_missing_are_told_and_a_single_queue_says_nothing_of_it() -> None:
    missing = [Missing(1, 4, "redis_timeout", "why")]
    found = merged.merged([part()], [MEMORY], missing, at=7)
    assert found.left_out == missing
    assert b'"missing":[{"partition":1,' in msgspec.json.encode(found)
    assert part().left_out == []
    assert b"missing" not in msgspec.json.encode(part())
    assert b"fullest" not in msgspec.json.encode(part())
    assert b"incidents" not in msgspec.json.encode(part()) + msgspec.json.encode(found)
    lost = Incident("emptied", "ab", 100.0, 95.0, 7)
    told = merged.merged([part(), part(incidents=[lost])], [MEMORY], [], at=7)
    assert told.incidents == [lost]


def test_a_worker_is_one_however_many_partitions_it_tells() -> None:
    def sign(name: str, handled: int, silent_after: float) -> WorkerOverview:
        return WorkerOverview(
            worker=name, slots=10, handled=handled, silent_after=silent_after, running=3
        )

    found = workers.together([sign("b", 5, 9), sign("a", 1, 9), sign("b", 7, 2), sign("b", 7, 8)])
    assert found == [sign("a", 1, 9), sign("b", 7, 8)]
    assert sum(each.slots for each in found) == 20


def test_jobs_of_no_organization_are_added_up_over_partitions() -> None:
    found = merged.organizations(
        [
            organization("org_b", 1),
            organization("?", 1, dead=2, held={"dead": 5}),
            organization("org_a", 3, paused="why"),
            organization("?", 4, failures=3, dead=1, held={"dead": 2, "waiting": 1}),
        ]
    )
    assert found == [
        organization("?", 5, dead=3, failures=3, held={"dead": 7, "waiting": 1}),
        organization("org_a", 3, paused="why"),
        organization("org_b", 1),
    ]


def test_memory_is_of_all_servers_and_of_the_fullest() -> None:
    servers = [RedisMemory(5, 100), RedisMemory(90, 100), RedisMemory(30, 1000)]
    found = merged.merged([part()], servers, [], at=7)
    assert found.memory == RedisMemory(125, 1200)
    assert found.fullest == servers[1]
    assert merged.all_memory([*servers, RedisMemory(1)]) == RedisMemory(126)


async def _given(items: Sequence[int]) -> AsyncIterator[int]:
    for each in items:
        yield each


@given(lists=st.lists(st.lists(st.integers(0, 20)), max_size=5), newest_first=st.booleans())
async def test_lists_in_order_are_one_in_order(
    *, lists: list[list[int]], newest_first: bool
) -> None:
    ordered = [sorted(each, reverse=newest_first) for each in lists]
    found = [
        each
        async for each in merged.in_one_order(
            list(map(_given, ordered)), key=lambda item: item, newest_first=newest_first
        )
    ]
    assert found == sorted((item for each in lists for item in each), reverse=newest_first)


async def test_no_more_is_read_of_a_list_than_its_next_one() -> None:
    read: list[int] = []

    async def noted(items: Sequence[int]) -> AsyncIterator[int]:
        for each in items:
            read.append(each)
            yield each

    lists = [noted(range(0, 100, 2)), noted(range(1, 100, 2))]
    found = merged.in_one_order(lists, key=lambda item: item, newest_first=False)
    assert await anext(found) == 0
    assert sorted(read) == [0, 1]
