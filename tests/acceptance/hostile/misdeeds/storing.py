"""Handlers that misuse the state: what can't be committed is a failed attempt and no change."""

import asyncio
import gc
import os
import warnings
from typing import Any

import msgspec
import redis as synchronous_redis

from shared.queue import keys
from tests.acceptance.hostile.notes import is_first, note
from tests.acceptance.hostile.row import HANDLED, Ending, Family, Order, failed
from worker import Event, Organization

family = Family("storing")

_REFUSED = failed("StateError")
_BAD_TIME = failed("StateError: expire")
_LONE = "a\udcffb"


def _itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


_PUTS: tuple[tuple[str, Any, dict[str, Any], tuple[Ending, ...]], ...] = (
    ("nan", float("nan"), {}, (_REFUSED,)),
    ("nan_deep_inside", {"a": [{"b": float("nan")}]}, {}, (_REFUSED,)),
    ("infinity", float("inf"), {}, (_REFUSED,)),
    ("what_is_no_json", object(), {}, (_REFUSED,)),
    ("a_list_that_holds_itself", _itself(), {}, (_REFUSED,)),
    ("a_lone_surrogate", _LONE, {}, (_REFUSED, HANDLED)),
    ("a_value_that_is_too_large", "x" * 300_000, {}, (_REFUSED,)),
    ("raw_that_is_no_json", msgspec.Raw(b"{nonsense"), {}, (_REFUSED,)),
    ("raw_nothing", msgspec.Raw(b""), {}, (_REFUSED,)),
    ("raw_that_is_no_utf_8", msgspec.Raw(b'"\xff\xfe"'), {}, (_REFUSED,)),
    ("raw_nan", msgspec.Raw(b"[NaN]"), {}, (_REFUSED,)),
    ("an_expiry_of_1e300", 1, {"expire": 1e300}, (_BAD_TIME, HANDLED)),
    ("an_expiry_of_2_to_the_53", 1, {"expire": 2**53}, (_BAD_TIME, HANDLED)),
    ("an_expiry_of_a_googol", 1, {"expire": 10**100}, (_BAD_TIME, HANDLED)),
    ("an_expiry_of_nan", 1, {"expire": float("nan")}, (_BAD_TIME,)),
    ("an_expiry_of_infinity", 1, {"expire": float("inf")}, (_BAD_TIME,)),
    ("an_expiry_in_the_past", 1, {"expire": -1}, (_BAD_TIME,)),
    ("an_expiry_that_is_a_text", 1, {"expire": "soon"}, (failed("StateError|TypeError"),)),
)


def _putting(value: Any, options: dict[str, Any]) -> Any:
    async def act(event: Event[Order], organization: Organization) -> None:
        await organization.state.put(f"put/{event.id}", value, **options)

    return act


for _name, _value, _options, _ends in _PUTS:
    family.add(f"puts_{_name}", _putting(_value, _options), *_ends)


@family.row(failed("StateError"))
async def puts_under_no_key(event: Event[Order], organization: Organization) -> None:
    await organization.state.put("", 1)


@family.row(failed("StateError"))
async def puts_under_a_lone_surrogate(event: Event[Order], organization: Organization) -> None:
    await organization.state.put(_LONE, 1)


@family.row(failed("StateError"))
async def puts_under_a_number(event: Event[Order], organization: Organization) -> None:
    await organization.state.put(7, 1)  # type: ignore[arg-type]


@family.row(failed("StateError"))
async def puts_too_often(event: Event[Order], organization: Organization) -> None:
    for number in range(1001):
        await organization.state.put(f"often/{number}", 1)


@family.row(failed("StateError"))
async def puts_a_version_that_is_no_time(event: Event[Order], organization: Organization) -> None:
    await organization.state.put_if_newer("k", 1, version=1e300)  # type: ignore[arg-type]


@family.row(failed("StateError"))
async def increments_by_nan(event: Event[Order], organization: Organization) -> None:
    await organization.state.increment("n", float("nan"))


@family.row(failed(r"StateError|2\^53|commit"))
async def increments_beyond_what_can_be_counted(
    event: Event[Order], organization: Organization
) -> None:
    await organization.state.increment(f"much/{event.id}", 2**53 - 1)
    await organization.state.increment(f"much/{event.id}", 1)


@family.row(failed("StateError|number|commit"))
async def increments_a_text(event: Event[Order], organization: Organization) -> None:
    await organization.state.put(f"text/{event.id}", "a")
    await organization.state.increment(f"text/{event.id}")


@family.row(failed(""), HANDLED, values={"all/n": None, "all/flag": None})
async def increments_then_puts_what_fails(event: Event[Order], organization: Organization) -> None:
    """All or nothing: the account of `applied/` tells whether the first write came alone."""
    await organization.state.increment(f"first/{event.id}")
    await organization.state.put(f"flag/{event.id}", 1, expire=2**53)
    await organization.state.increment(f"last/{event.id}")


@family.row(
    Ending(("^event_handled",), starts=2),
    values={"concurrent/n": 11},
)
async def reads_a_value_twice_at_once(event: Event[Order], organization: Organization) -> None:
    """Between its two reads somebody else writes 10; the first read is the one that counts."""
    state, key = organization.state, "concurrent/n"
    first = asyncio.create_task(state.get(key, 0))
    if is_first(event):
        await asyncio.sleep(0.02)  # it is on its way, or here: the other must come from Redis
        name = keys.state(organization.id, key)
        with synchronous_redis.Redis.from_url(os.environ["REDIS_URL"]) as redis:
            redis.set(name, 10)
    second = asyncio.create_task(state.get(key, 0))
    before, _ = await asyncio.gather(first, second)
    await state.put(key, before + 1)


_PRETTY = b'{\n  "order": {\r\n    "lines": [\n 1,\n 2 ]\n  }\n}'


@family.row(
    HANDLED, then="reads_what_had_line_breaks", values={"raw/plain": {"order": {"lines": [1, 2]}}}
)
async def puts_raw_with_line_breaks(event: Event[Order], organization: Organization) -> None:
    await organization.state.put("raw/plain", msgspec.Raw(_PRETTY))


@family.row(HANDLED)
async def reads_what_had_line_breaks(event: Event[Order], organization: Organization) -> None:
    value = await organization.state.get("raw/plain", {"order": {"lines": [1, 2]}})
    assert value == {"order": {"lines": [1, 2]}}


@family.row(HANDLED, then="puts_a_newer_version", values={"raw/versioned": "newer"})
async def puts_raw_with_line_breaks_and_a_version(
    event: Event[Order], organization: Organization
) -> None:
    await organization.state.put_if_newer("raw/versioned", msgspec.Raw(_PRETTY), version=1)


@family.row(HANDLED)
async def puts_a_newer_version(event: Event[Order], organization: Organization) -> None:
    await organization.state.put_if_newer("raw/versioned", "newer", version=2)


@family.row(HANDLED, values={"raw/text": "a\nb"})
async def puts_a_text_with_line_breaks(event: Event[Order], organization: Organization) -> None:
    await organization.state.put("raw/text", "a\nb")


@family.row(HANDLED, failed("await"))
async def puts_without_await(event: Event[Order], organization: Organization) -> None:
    with warnings.catch_warnings():
        organization.state.put("forgotten", 1)  # type: ignore[unused-coroutine]
        gc.collect(0)


# These reach into what isn't theirs. Whatever comes of it, a batch of settlements is shared.

_GARBAGE: tuple[tuple[str, Any], ...] = (
    ("an_unknown_operation", ("nonsense", "k", 0, 1)),
    ("an_operation_without_parts", ()),
    ("an_operation_of_objects", ("put", "k", 0, object())),
    ("an_operation_of_a_million_parts", ("put",) * 1_000_000),
    ("what_is_no_operation", object()),
)


def _writing(operation: Any) -> Any:
    async def act(event: Event[Order], organization: Organization) -> None:
        organization.state.operations.append(operation)

    return act


for _name, _operation in _GARBAGE:
    family.add(f"writes_{_name}", _writing(_operation), failed(""), HANDLED)


@family.row(failed(""), HANDLED)
async def claims_to_have_read_an_object(event: Event[Order], organization: Organization) -> None:
    organization.state.reads["k"] = object()  # type: ignore[assignment]


@family.row(failed("Attribute|TypeError|immutable"))
async def replaces_its_state(event: Event[Order], organization: Organization) -> None:
    organization.state = None  # type: ignore[assignment]


@family.row(failed("Attribute|TypeError|immutable"))
async def changes_its_event(event: Event[Order], organization: Organization) -> None:
    event.id = "evt_other"


@family.row(HANDLED)
async def reads_and_fails_in_a_child(event: Event[Order], organization: Organization) -> None:
    tasks = [asyncio.create_task(organization.state.get(f"k/{n}")) for n in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    note("read", event)
