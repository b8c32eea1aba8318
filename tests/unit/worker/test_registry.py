"""Facts about registering handlers and finding the one for an event."""

from typing import Any

import msgspec
import pytest

from worker import Event, HandlerError, Handlers, Organization


class Data(msgspec.Struct):
    order_id: str


async def one(event: Event[Data], organization: Organization) -> None: ...
async def two(event: Event, organization: Organization) -> None: ...  # type: ignore[type-arg]
async def three(event, organization) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
async def four(event: Event[Any], organization: Organization, extra: int = 1) -> None: ...


def found(handlers: Handlers, event_type: str, organization: str = "org_a") -> Any:
    registration = handlers.find(event_type, organization)
    return registration.function if registration else None


def test_the_most_specific_match_wins() -> None:
    handlers = Handlers()
    handlers.on("*")(two)
    handlers.on("order.*")(one)
    handlers.on("order.updated")(three)
    handlers.on("order.*", organization="org_b")(four)

    assert found(handlers, "order.updated") is three
    assert found(handlers, "order.created") is one
    assert found(handlers, "order.fulfillment.shipped") is one
    assert found(handlers, "orders") is two
    assert found(handlers, "order") is two
    assert found(handlers, "order.updated", "org_b") is four


def test_without_a_match_there_is_no_handler() -> None:
    handlers = Handlers()
    handlers.on("order.*", organization="org_b")(one)
    assert handlers.find("order.updated", "org_a") is None


def test_an_ignored_type_is_found_without_a_function() -> None:
    handlers = Handlers()
    handlers.ignore("ticket.*")
    registration = handlers.find("ticket.created", "org_a")
    assert registration is not None
    assert registration.function is None


def test_a_handler_registered_later_is_found_at_once() -> None:
    handlers = Handlers()
    assert handlers.find("order.updated", "org_a") is None
    handlers.on("order.updated")(one)
    assert found(handlers, "order.updated") is one


def test_look_ups_of_made_up_types_do_not_pile_up() -> None:
    handlers = Handlers()
    handlers.on("*")(two)
    for number in range(10_010):
        handlers.find(f"type{number}", "org_a")
    assert len(handlers._found) <= 10_001


def test_data_is_decoded_to_the_annotated_type() -> None:
    handlers = Handlers()
    handlers.on("a")(one)
    handlers.on("b")(two)
    handlers.on("c")(three)
    typed, plain, bare = (handlers.find(name, "org_a") for name in "abc")
    assert typed is not None
    assert plain is not None
    assert bare is not None
    assert typed.data.decode(b'{"order_id": "1"}') == Data("1")
    assert plain.data.decode(b'{"order_id": "1"}') == {"order_id": "1"}
    assert bare.data.decode(b"[1]") == [1]


def plain_function(event: Event[Any], organization: Organization) -> None: ...
async def too_few(event: Event[Any]) -> None: ...
async def unknown_name(event: "Nowhere", organization: Organization) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def not_an_event(event: int, organization: Organization) -> None: ...
async def not_json(event: Event[Handlers | Data], organization: Organization) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (plain_function, "plain_function: expected an async def function"),
        (too_few, r"too_few: expected the parameters \(event, organization\)"),
        (unknown_name, "unknown_name: the annotation of 'event' names an unknown type"),
        (not_an_event, "not_an_event: expected 'event' to be an Event"),
        (not_json, "can't be decoded from JSON"),
    ],
)
def test_a_function_that_cannot_be_a_handler_is_refused_where_it_is_registered(
    function: Any, message: str
) -> None:
    with pytest.raises(HandlerError, match=message):
        Handlers().on("order.updated")(function)


@pytest.mark.parametrize("pattern", ["", "order*", "*.updated", "order.*.x", ".*", "**"])
def test_a_pattern_that_matches_nothing_sensible_is_refused(pattern: str) -> None:
    with pytest.raises(HandlerError, match="expected an event type"):
        Handlers().on(pattern)(one)


def test_a_pattern_is_taken_once() -> None:
    handlers = Handlers()
    handlers.on("order.*", organization="org_a")(one)
    handlers.on("order.*")(one)
    with pytest.raises(HandlerError, match=r"'order\.\*' of org_a is registered already"):
        handlers.on("order.*", organization="org_a")(two)
    with pytest.raises(HandlerError, match="is registered already"):
        handlers.ignore("order.*")
