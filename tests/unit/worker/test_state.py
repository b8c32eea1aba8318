"""Facts about an organization's state during an attempt, without Redis."""

import asyncio
import enum
import gc
import math
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from typing import Any

import msgspec
import pytest

from shared.errors import StateError
from worker.state import MOST_BYTES, State
from worker.value import LARGEST_INTEGER, LONGEST_EXPIRE, Value

HUGE = pytest.param(10**5000, id="huge")  # it has no repr: Python limits the digits


async def absent(_: str) -> bytes | None:
    return None


def state(read: Callable[[str], Awaitable[bytes | None]] = absent) -> State:
    return State(read, event_id="evt_1", received_at=7, tombstone=60)


class Reads:
    """Reads that are answered by hand."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[bytes | None]] = []

    def __call__(self, _: str) -> Awaitable[bytes | None]:
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]


async def under_way(reads: Reads, mine: State, number: int = 1) -> list[asyncio.Task[Any]]:
    """So many gets of one key, each waiting for its answer."""
    gets = [asyncio.create_task(mine.get("n")) for _ in range(number)]
    await asyncio.sleep(0)
    assert len(reads.waiting) == number
    return gets


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_reads_of_a_key_at_once_see_the_value_that_is_checked(order: tuple[int, int]) -> None:
    """A neighbour commits between the two; either answer may come first."""
    reads = Reads()
    mine = state(reads)
    gets = await under_way(reads, mine, 2)
    answers = (b"1", b"11")
    for place in order:
        reads.waiting[place].set_result(answers[place])
        await asyncio.sleep(0)
    first = answers[order[0]]
    assert await asyncio.gather(*gets) == [int(first)] * 2
    assert mine.reads == {"n": sha1(first, usedforsecurity=False).hexdigest()}
    assert await mine.get("n") == int(first)


async def test_a_read_that_is_cancelled_or_fails_is_no_others_trouble() -> None:
    reads = Reads()
    mine = state(reads)
    cancelled, failed, other = await under_way(reads, mine, 3)
    cancelled.cancel()
    reads.waiting[1].set_exception(OSError("reset"))
    reads.waiting[2].set_result(b"5")
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    with pytest.raises(OSError, match="reset"):
        await failed
    assert await other == 5


async def test_a_read_that_failed_is_asked_again() -> None:
    reads = Reads()
    mine = state(reads)
    (failed,) = await under_way(reads, mine)
    reads.waiting[0].set_exception(OSError("reset"))
    with pytest.raises(OSError, match="reset"):
        await failed
    assert mine.reads == {}
    again = asyncio.create_task(mine.get("n"))
    await asyncio.sleep(0)
    reads.waiting[1].set_result(b"5")
    assert await again == 5


ALL: list[Callable[[State], Awaitable[Any]]] = [
    lambda mine: mine.get("k"),
    lambda mine: mine.put("k", 1),
    lambda mine: mine.put_if_newer("k", 1, 1),
    lambda mine: mine.delete("k"),
    lambda mine: mine.increment("k"),
]


@pytest.mark.parametrize("call", ALL)
async def test_nothing_is_read_or_written_once_it_is_closed(
    call: Callable[[State], Awaitable[Any]],
) -> None:
    mine = state()
    await mine.put("before", 1)
    mine.close("the handler has ended")
    mine.close("again")
    with pytest.raises(StateError, match="closed: the handler has ended"):
        await call(mine)
    assert [operation[1] for operation in mine.operations] == ["before"]
    assert mine.reads == {}


async def test_a_read_under_way_when_it_is_closed_raises_and_is_not_checked() -> None:
    reads = Reads()
    mine = state(reads)
    (late,) = await under_way(reads, mine)
    mine.close("the handler has ended")
    reads.waiting[0].set_result(b"5")
    with pytest.raises(StateError, match="closed"):
        await late
    assert mine.reads == {}


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_the_first_call_that_nobody_awaited_is_named() -> None:
    mine = state()
    await mine.put("a", 1)
    mine.put("b", 1)  # type: ignore[unused-coroutine]
    mine.get("c")  # type: ignore[unused-coroutine]
    mine.close("the handler has ended")
    assert mine.unawaited == "state.put('b')"
    assert [operation[1] for operation in mine.operations] == ["a"]
    gc.collect()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_task_that_has_not_begun_is_named_and_raises_when_it_begins() -> None:
    mine = state()
    late = asyncio.create_task(mine.increment("n"))
    mine.close("the handler has ended")
    assert mine.unawaited == "state.increment('n')"
    with pytest.raises(StateError, match="closed"):
        await late


async def test_what_is_awaited_in_any_way_is_not_named() -> None:
    mine = state()
    await asyncio.gather(*(mine.put(f"k{number}", number) for number in range(500)))
    await asyncio.wait_for(mine.get("k"), 5)
    cancelled = asyncio.create_task(mine.get("k"))
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    with pytest.raises(StateError):
        await mine.put("", 1)
    mine.close("the handler has ended")
    assert mine.unawaited == ""
    assert len(mine.operations) == 500


async def test_calls_that_have_ended_are_not_remembered() -> None:
    mine = state()
    for _ in range(1000):
        await mine.get("k")
    assert len(mine._calls) <= 65


class Order(msgspec.Struct):
    amount: float
    raw: Any = None


@dataclass
class Plain:
    inner: Any


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "around",
    [
        lambda number: number,
        lambda number: [None, {"a": number}],
        lambda number: (1, (number,)),
        Order,
        lambda number: Plain({"a": Order(number)}),
    ],
)
async def test_a_number_that_is_not_finite_is_no_json(
    around: Callable[[float], Any], number: float
) -> None:
    with pytest.raises(StateError, match=r"state value of 'k': expected JSON, got: .*not finite"):
        await state().put("k", around(number))


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (None, None),
        ([None, (1.5, None)], [None, [1.5, None]]),
        (Order(1.5), {"amount": 1.5, "raw": None}),
        (Plain({"a": Order(2)}), {"inner": {"a": {"amount": 2, "raw": None}}}),
        ({1: datetime(2026, 1, 1, tzinfo=UTC)}, {"1": "2026-01-01T00:00:00Z"}),
        (10**300, 10**300),
    ],
)
async def test_what_is_put_is_what_a_get_reads(value: Any, read: Any) -> None:
    mine = state()
    await mine.put("k", value)
    assert await mine.get("k", "nothing") == read


SENT = b'{\n  "a": [1,\r\n 2.50],\n  "b": "x  y\\n"\n}\n'
COMPACT = r'{"a":[1,2.50],"b":"x  y\n"}'


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (msgspec.Raw(SENT), COMPACT),
        ({"body": msgspec.Raw(SENT), "n": 1}, f'{{"body":{COMPACT},"n":1}}'),
        ([(msgspec.Raw(SENT),)], f"[[{COMPACT}]]"),
        (Order(1, msgspec.Raw(SENT)), f'{{"amount":1,"raw":{COMPACT}}}'),
        (msgspec.Raw(b' {"a": 1}'), ' {"a": 1}'),
        (msgspec.Raw(b"\n5\n"), "5"),
        (msgspec.Raw(b"null"), "null"),
    ],
)
async def test_json_as_it_was_sent_is_stored_without_its_line_breaks(value: Any, json: str) -> None:
    mine = state()
    await mine.put("k", value)
    assert mine.operations[0][3] == json


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b" ", b"nope", b"1 2", b'{"a":1', b'"\xff"', b'"\\ud83d"', b'"a\nb"', b"1e999"),
        *(b"1,2", b"[1]\n,2", b'1,"b":2'),
        pytest.param(b"9" * 5000, id="huge"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="deep"),
    ],
)
@pytest.mark.parametrize("around", [lambda raw: raw, lambda raw: {"a": [raw]}, lambda raw: [raw]])
async def test_what_could_not_be_read_back_is_not_put(
    around: Callable[[msgspec.Raw], Any], raw: bytes
) -> None:
    mine = state()
    with pytest.raises(StateError, match="state value of 'k': expected JSON"):
        await mine.put("k", around(msgspec.Raw(raw)))
    assert mine.operations == []


async def test_a_whole_number_of_any_size_is_json_or_a_state_error() -> None:
    await state().put("k", 10**400)
    with pytest.raises(StateError, match="expected JSON"):
        await state().put("k", 10**5000)


@pytest.mark.parametrize(
    "expire",
    [
        *(0, -1, math.inf, -math.inf, math.nan, 1e300, 2**53, LONGEST_EXPIRE + 1, True, "30"),
        *(timedelta(0), timedelta.max, timedelta.min, [30]),
        HUGE,
    ],
)
async def test_an_expiry_that_redis_would_not_take_is_refused(expire: Any) -> None:
    mine = state()
    expected = f"expire: expected seconds, more than 0 and at most {LONGEST_EXPIRE}, got"
    for call in (
        mine.put("k", 1, expire=expire),
        mine.put_if_newer("k", 1, 1, expire=expire),
        mine.increment("k", expire=expire),
    ):
        with pytest.raises(StateError, match=expected):
            await call
    assert mine.operations == []


@pytest.mark.parametrize(
    ("expire", "milliseconds"),
    [
        (1e-9, 1),
        (0.5, 500),
        (LONGEST_EXPIRE, LONGEST_EXPIRE * 1000),
        (timedelta(days=1), 86_400_000),
    ],
)
async def test_an_expiry_is_whole_milliseconds(expire: Any, milliseconds: int) -> None:
    mine = state()
    await mine.put("k", 1, expire=expire)
    assert mine.operations[0][2] == milliseconds <= LARGEST_INTEGER


class Kind(str, enum.Enum):  # noqa: UP042  # the older way, whose format is not its value
    PAID = "paid"


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize("key", [Kind.PAID, Name("paid")])
async def test_a_key_that_is_more_than_a_text_is_read_and_written_under_one_name(key: str) -> None:
    asked = []

    async def read(name: str) -> bytes | None:
        asked.append(f"{name}")
        return None

    mine = state(read)
    await mine.get(key)
    await mine.increment(key)
    await mine.put_if_newer(key, 1, 1)
    assert asked == list(mine.reads) == ["paid"]
    assert {operation[1] for operation in mine.operations} == {"paid"}
    assert all(type(operation[1]) is str for operation in mine.operations)
    msgspec.msgpack.encode(mine.operations)


class Mute:
    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize("odd", [Mute(), HUGE, b"k", [None]])
async def test_any_odd_argument_is_a_state_error(odd: Any) -> None:
    mine = state()
    for call in (
        mine.get(odd),
        mine.put(odd, 1),
        mine.delete(odd),
        mine.increment("k", odd),
        mine.put_if_newer("k", 1, odd),
        mine.put("k", 1, expire=odd),
    ):
        with pytest.raises(StateError, match="expected"):
            await call


async def test_bytes_are_counted_rather_than_characters() -> None:
    mine = state()
    for number in range(4):
        await mine.put(f"k{number}", "ö" * (MOST_BYTES // 8 - 100))
    with pytest.raises(StateError, match=f"{MOST_BYTES} bytes at the most"):
        await mine.put("one more", "ö" * 1000)
    await mine.put("small", 1)  # what was refused doesn't count
    assert len(mine.operations) == 5


@pytest.mark.parametrize("year", [1, 1600, 2026, 9999])
async def test_any_aware_time_is_a_version_that_lua_counts_as_python_does(year: int) -> None:
    mine = state()
    await mine.put_if_newer("k", 1, datetime(year, 2, 3, 4, 5, 6, 7, tzinfo=UTC))
    version = mine.operations[0][4]
    assert version == int(float(version))


def test_a_received_at_beyond_what_lua_counts_is_none() -> None:
    for received_at, known in ((5, 5), (-1, 0), (2**53, 0), (LARGEST_INTEGER, LARGEST_INTEGER)):
        assert (
            State(absent, event_id="e", received_at=received_at, tombstone=1).received_at == known
        )
    assert State(absent, event_id="e", tombstone=1).received_at == 0


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (None, Value()),
        (b"", Value()),
        (b"5", Value("5")),
        (b"5\n3\nevt_1 1795000000000", Value("5", 3, "evt_1", 1_795_000_000_000)),
        (b"\n-3\nevt_1 0", Value("", -3, "evt_1", 0)),
        (b"5\n3\nan id 12 with blanks 7", Value("5", 3, "an id 12 with blanks", 7)),
        (b"5\n3\nlines\nin it 7", Value("5", 3, "lines\nin it", 7)),
        (b"5\n1e+17\ne 7", Value("5", 10**17, "e", 7)),
        # as older workers wrote them
        (b"5\n3\nevt_1", Value("5", 3, "evt_1")),
        (b"5\n3\nevt 12345678901234567", Value("5", 3, "evt 12345678901234567")),
        (b'{\n"a": 1\n}', Value('{\n"a": 1\n}')),
        (b"[\n1\n,2]", Value("[\n1\n,2]")),
        (b'{"a": \n1\n}', Value('{"a": \n1\n}')),
        (b"\n5\n", Value("\n5\n")),
        (b"[1,\n2\n]\n3\nevt_1", Value("[1,\n2\n]", 3, "evt_1")),
        (b"[1,\n2\n]\n3\nevt_1 9", Value("[1,\n2\n]", 3, "evt_1", 9)),
        # as nobody did
        (b"5\n1e999\nx", Value("5\n1e999\nx")),
        (b"5\n1e+\nx", Value("5\n1e+\nx")),
        (b"5\nx", Value("5\nx")),
    ],
)
def test_what_stands_in_redis_is_read_in_its_old_forms_too(raw: bytes | None, value: Value) -> None:
    assert Value.parse(raw) == value


async def test_what_is_no_json_is_a_state_error_that_names_the_key() -> None:
    async def read(_: str) -> bytes | None:
        return b"{rubbish"

    with pytest.raises(StateError, match="state value of 'k': expected JSON in Redis"):
        await state(read).get("k")


async def test_an_empty_text_in_redis_is_another_value_than_none() -> None:
    async def read(_: str) -> bytes | None:
        return b""

    mine = state(read)
    assert await mine.get("k", "nothing") == "nothing"
    assert mine.reads == {"k": sha1(b"", usedforsecurity=False).hexdigest()}


@pytest.mark.parametrize("number", [b"9" * 400, b"1e300", b"-18014398509481990"])
async def test_an_increment_of_any_number_is_a_number_or_a_state_error(number: bytes) -> None:
    async def read(_: str) -> bytes | None:
        return number

    mine = state(read)
    await mine.increment("n", 1)
    with pytest.raises(StateError, match="beyond 2"):
        await mine.get("n")


async def test_a_call_that_nobody_awaits_is_pythons_own_coroutine() -> None:
    """So tasks take it, type checkers flag it, and Python warns of it as well."""
    call = state().put("k", 1)
    assert asyncio.iscoroutine(call)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del call
        gc.collect()
    assert "was never awaited" in str(caught[0].message)


async def test_what_was_read_is_not_checked_once_a_database_has_the_commit() -> None:
    async def one(_: str) -> bytes:
        return b"1"

    mine = state(one)
    assert await mine.get("before") == 1
    assert mine.reads
    mine.commit_elsewhere()
    assert mine.reads == {}
    assert await mine.get("before") == await mine.get("after") == 1
    assert mine.reads == {}


async def test_a_database_and_the_state_can_not_both_be_written() -> None:
    mine = state()
    await mine.put("k", 1)
    with pytest.raises(StateError, match="written to already"):
        mine.commit_elsewhere()
    assert len(mine.operations) == 1
    other = state()
    other.commit_elsewhere()
    other.commit_elsewhere()
    with pytest.raises(StateError, match=r"put\('k'\): a database has this attempt's commit"):
        await other.put("k", 1)
    assert other.operations == []


async def test_a_database_gets_no_commit_of_an_attempt_that_is_over() -> None:
    mine = state()
    mine.close("the handler has ended")
    with pytest.raises(StateError, match="the handler has ended"):
        mine.commit_elsewhere()
