"""What a handler may say of its events' turns, and how a key is read."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.errors import HandlerError
from worker import Event, Handlers, Organization
from worker.turns import Turn, TurnRule, UnreadableKeyError


def rule(key: Any, **options: Any) -> TurnRule:
    found = TurnRule.of(key, **{"handler": "h", "latest": False, "quiet": None, **options})
    assert found is not None
    return found


def event(data: object) -> Event[Any]:
    moment = datetime.now(UTC)
    return Event("evt", "order.updated", moment, "org_a", data, b"", 1, moment)


@pytest.mark.parametrize(
    ("field", "data", "key"),
    [
        ("order_id", b'{"order_id":"5"}', "order_id:5"),
        ("order_id", b'{"order_id":5,"rest":[{"order_id":6}]}', "order_id:5"),
        ("order_id", b'{"order_id":-0}', "order_id:0"),
        ("order_id", b'{"order_id":""}', "order_id:"),
        ("customer.id", b'{"customer":{"id":"a b"}}', "customer.id:a b"),
        ("a-b.c d", '{"a-b":{"c d":"é"}}'.encode(), "a-b.c d:é"),
        ("order_id", b'{"order_id":"5","name":"Ren\\ud83d"}', "order_id:5"),
    ],
)
def test_a_field_of_the_data_is_the_key_with_its_name(field: str, data: bytes, key: str) -> None:
    assert rule(field).of_data(data) == Turn(key)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b"null",
        b'{"order_id":null}',
        b'{"order_id":true}',
        b'{"order_id":1.5}',
        b'{"order_id":{"id":1}}',
        b'{"order_id":' + b"9" * 257 + b"}",
        b'{"order_id":' + b"[" * 100_000,
    ],
)
def test_a_field_that_is_neither_text_nor_a_whole_number_is_no_key(data: bytes) -> None:
    with pytest.raises(UnreadableKeyError):
        rule("order_id").of_data(data)


def test_a_function_makes_the_key() -> None:
    by_order = rule(lambda each: each.data["order"])
    assert by_order.function is not None
    assert by_order.of_event(by_order.function, event({"order": 5})) == Turn("5")
    assert by_order.of_event(by_order.function, event({"order": "a"})) == Turn("a")
    assert by_order.of_event(by_order.function, event({"order": None})) is None


@pytest.mark.parametrize("data", [{}, {"order": 1.5}, {"order": True}, {"order": b"5"}])
def test_a_function_that_fails_or_makes_something_else_makes_no_key(data: object) -> None:
    by_order = rule(lambda each: each.data["order"])
    assert by_order.function is not None
    with pytest.raises(UnreadableKeyError):
        by_order.of_event(by_order.function, event(data))


@pytest.mark.parametrize(
    ("quiet", "milliseconds"),
    [("2s", 2000), (0.5, 500), (timedelta(minutes=1), 60_000), ("1", 1000), ("1h", 3_600_000)],
)
def test_the_latest_may_be_gathered_first(quiet: Any, milliseconds: int) -> None:
    turn = rule("order_id", latest=True, quiet=quiet).of_data(b'{"order_id":1}')
    assert turn == Turn("order_id:1", "h", milliseconds)


async def anything(event: Event[Any], organization: Organization) -> None:
    pass


async def asks(event: Event[Any]) -> str:
    return event.id


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ""}, "expected a field of the data such as 'order_id', or a function"),
        ({"key": "a..b"}, "or a function of the event, got 'a..b'"),
        ({"key": 5}, "or a function of the event, got 5"),
        ({"key": str}, "or a function of the event, got <class 'str'>"),
        ({"key": asks}, "or a function of the event, got an async one"),
        ({"key": lambda: "k"}, r"expected a function of the event, got \(\)"),
        ({"latest": True}, "latest=True needs a key="),
        ({"key": "id", "quiet": "2s"}, "quiet= gathers events of latest=True"),
        *(
            ({"key": "id", "latest": True, "quiet": quiet}, f"quiet: .*got {got}")
            for quiet, got in {
                0: "0",
                -1: "-1",
                "2h": "'2h'",
                "soon": "'soon'",
                True: "True",
            }.items()
        ),
    ],
)
def test_what_can_not_be_is_said_where_the_handler_is_registered(
    options: dict[str, Any], message: str
) -> None:
    handlers = Handlers()
    with pytest.raises(HandlerError, match=message) as caught:
        handlers.on("*", **options)(anything)
    assert "test_turns.anything" in str(caught.value)
    assert not handlers.has_turns
    assert len(handlers) == 0
