"""Facts about registering handlers and finding the one for an event."""

from functools import partial
from typing import Annotated, Any

import msgspec
import pytest

from shared.observe import metrics
from worker import Event, HandlerError, Handlers, Id, Organization
from worker.decoding import DataDecoder


class Data(msgspec.Struct):
    order_id: str


class Numbered(msgspec.Struct):
    order_id: Id
    name: str = ""


async def one(event: Event[Data], organization: Organization) -> None: ...
async def two(event: Event, organization: Organization) -> None: ...  # type: ignore[type-arg]
async def three(event, organization) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
async def four(event: Event[Any], organization: Organization, extra: int = 1) -> None: ...


def mended() -> float:
    return metrics.REGISTRY.get_sample_value("sellfern_events_mended_total", {"part": "data"}) or 0


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
    assert len(handlers.found) <= 10_001


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


async def five(event: Event[Numbered], organization: Organization) -> None: ...


def decoder_of(function: Any) -> DataDecoder:
    """What decodes the data of a handler's events."""
    handlers = Handlers()
    handlers.on("*")(function)
    registration = handlers.find("order.updated", "org_a")
    assert registration is not None
    return registration.data


def test_an_id_is_text_or_a_whole_number_where_the_annotation_says_so_and_nowhere_else() -> None:
    for written in (b'{"order_id":12}', b'{"order_id":"12"}'):
        assert decoder_of(five).decode(written) == Numbered("12")
    with pytest.raises(msgspec.ValidationError):
        decoder_of(one).decode(b'{"order_id":12}')


@pytest.mark.parametrize("broken", [rb"Ren\ud83d", b"Ren\xff", rb"Ren\ude00"])
def test_broken_text_in_data_is_read_as_lost_and_counted(broken: bytes) -> None:
    before = mended()
    data = decoder_of(five).decode(msgspec.Raw(b'{"order_id":1,"name":"%b"}' % broken))
    assert data == Numbered("1", "Ren\ufffd")
    assert mended() == before + 1


@pytest.mark.parametrize("raw", [b'{"order_id":1.5}', b"{", b'{"order_id":1.5,"x":"\xff"}'])
def test_what_mending_does_not_help_is_told_and_not_counted(raw: bytes) -> None:
    before = mended()
    with pytest.raises(msgspec.DecodeError):
        decoder_of(five).decode(raw)
    assert mended() == before


def test_an_organization_may_be_given_as_a_whole_number() -> None:
    handlers = Handlers()
    handlers.on("order.*", organization=123)(one)
    handlers.ignore("ticket.*", organization=123)
    assert found(handlers, "order.updated", "123") is one
    assert handlers.find("ticket.created", "123") is not None
    assert found(handlers, "order.updated", "124") is None
    with pytest.raises(HandlerError, match="'order\\.\\*' of 123 is registered already"):
        handlers.on("order.*", organization="123")(two)


@pytest.mark.parametrize("organization", [True, 1.0, ["org_1"]])
def test_nothing_else_is_an_organization(organization: Any) -> None:
    with pytest.raises(HandlerError, match="organization: Expected"):
        Handlers().on("order.*", organization=organization)


def plain_function(event: Event[Any], organization: Organization) -> None: ...
async def too_few(event: Event[Any]) -> None: ...
async def unknown_name(event: "Nowhere", organization: Organization) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def not_an_event(event: int, organization: Organization) -> None: ...
async def not_json(event: Event[Handlers | Data], organization: Organization) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (plain_function, "plain_function: expected an async def function"),
        (partial(four, extra=2), "expected an async def function, got partial"),
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


def test_what_an_annotation_says_besides_a_type_counts() -> None:
    handlers = Handlers()

    @handlers.on("order.updated")
    async def bounded(
        event: Annotated[Event[dict[str, Annotated[int, msgspec.Meta(gt=0)]]], "an event"],
        organization: Organization,
    ) -> None: ...

    (registration,) = handlers
    assert registration.data.decode(b'{"number":1}') == {"number": 1}
    with pytest.raises(msgspec.ValidationError):
        registration.data.decode(b'{"number":0}')


def test_a_pattern_is_taken_once() -> None:
    handlers = Handlers()
    handlers.on("order.*", organization="org_a")(one)
    handlers.on("order.*")(one)
    with pytest.raises(HandlerError, match=r"'order\.\*' of org_a is registered already"):
        handlers.on("order.*", organization="org_a")(two)
    with pytest.raises(HandlerError, match="is registered already"):
        handlers.ignore("order.*")
