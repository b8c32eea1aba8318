"""Facts about the types to which an event's data is decoded."""

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from worker import Id
from worker.decoding import DataDecoder

Part = TypeVar("Part")


class Item(pydantic.BaseModel):
    sku: str
    quantity: int = pydantic.Field(gt=0)


class Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    order_id: Id
    at: datetime | None = None
    items: list[Item] = []


class Ticket(pydantic.BaseModel):
    ticket_id: Id


@pydantic.dataclasses.dataclass
class Positive:
    number: int = pydantic.Field(gt=0)


class Struct(msgspec.Struct):
    order_id: Id
    item: Item


@dataclasses.dataclass
class Plain:
    order_id: Id
    status: str | None = None


class Typed(TypedDict):
    order_id: Id


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


class Page(msgspec.Struct, Generic[Part]):
    part: Part


class Aliased(pydantic.BaseModel):
    order_id: str = pydantic.Field(validation_alias="orderId")


class AliasedTwice(pydantic.BaseModel):
    order_id: str = pydantic.Field(validation_alias=pydantic.AliasChoices("orderId", "id"))


class Client:
    """No type that JSON has."""


class WithDefault(msgspec.Struct):
    client: Client | None = None


class Tree(msgspec.Struct):
    children: "list[Tree]"


class Holds(msgspec.Struct):
    client: Client


class Deep(msgspec.Struct):
    holds: dict[str, list[Holds]]


class Array(msgspec.Struct, array_like=True):
    number: int


class Pair(NamedTuple):
    one: int


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        (Order, b'{"order_id": 12, "at": "2026-01-01T00:00:00Z"}', ("12", 2026)),
        (Order | Ticket, b'{"ticket_id": "t"}', Ticket(ticket_id="t")),
        (dict[str, Item], b'{"a": {"sku": "s", "quantity": 1}}', {"a": Item(sku="s", quantity=1)}),
        (Positive, b'{"number": 3}', Positive(3)),
        (
            Struct,
            b'{"order_id": 1, "item": {"sku": "s", "quantity": 2}}',
            Struct("1", Item(sku="s", quantity=2)),
        ),
        (Plain, b'{"order_id": 1}', Plain("1")),
        (Typed, b'{"order_id": 1}', {"order_id": "1"}),
        (WithDefault, b"{}", WithDefault()),
        (Tree, b'{"children": [{"children": []}]}', Tree([Tree([])])),
        (object, b"{}", {}),
        (Mapping[str, Any], b"{}", {}),
        (Plain | None, b'{"order_id": 1}', Plain("1")),
        (msgspec.Raw, b"{}", msgspec.Raw(b"{}")),
    ],
)
def test_data_is_decoded_to(kind: Any, raw: bytes, expected: object) -> None:
    found = DataDecoder(kind).decode(msgspec.Raw(raw))
    if isinstance(found, Order):
        assert found.at is not None
        assert (found.order_id, found.at.year) == expected
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("kind", "raw", "message"),
    [
        (Order, b"{}", "Field required - at `$.order_id`"),
        (
            Order,
            b'{"order_id": 1, "items": [{"sku": "s", "quantity": "hunter2"}]}',
            "unable to parse string as an integer - at `$.items[0].quantity`",
        ),
        (Order, b'{"order_id": true}', "Expected `str | int`, got `bool` - at `$.order_id`"),
        (
            Struct,
            b'{"order_id": 1, "item": {"sku": "s", "quantity": 0}}',
            "Input should be greater than 0 - at `$.quantity` of it - at `$.item`",
        ),
        (Positive, b'{"number": 0}', "Input should be greater than 0 - at `$.number`"),
        (Plain, b"{}", "missing required field `order_id`"),
        (Plain, b'{"order_id": [7]}', "Expected `str | int`, got `array` - at `$.order_id`"),
    ],
)
def test_an_error_names_the_field_and_nothing_of_what_is_there(
    kind: Any, raw: bytes, message: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        DataDecoder(kind).decode(msgspec.Raw(raw))
    assert message in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_only_some_of_many_errors_are_told() -> None:
    raw = msgspec.json.encode({"order_id": 1, "items": [{}] * 10})
    with pytest.raises(msgspec.ValidationError, match=r"and 17 more$") as raised:
        DataDecoder(Order).decode(raw)
    assert str(raised.value).count("Field required") == 3


def test_broken_text_is_mended_for_pydantic_as_well() -> None:
    assert DataDecoder(Ticket).decode(b'{"ticket_id": "Ren\\ud83d"}') == Ticket(ticket_id="Ren�")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Client, "Client is no type that JSON has|always an object"),
        (Holds, "Client is no type"),
        (Deep, "Client is no type"),
        (Client | None, "Client is no type|always an object"),
        (Callable[[], int], "is no type|always an object"),
        (str, "always an object"),
        (Id, "always an object"),
        (list[Plain], "always an object"),
        (Literal["a"], "always an object"),
        (Array, "always an object"),
        (Pair, "always an object"),
        (None, "always an object"),
        (int | str, "always an object"),
    ],
)
def test_what_no_event_can_be_is_refused_at_once(kind: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        DataDecoder(kind)


def test_so_is_a_model_that_names_what_nobody_has_defined() -> None:
    class Undefined(pydantic.BaseModel):
        other: "Nowhere"  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match="Nowhere"):
        DataDecoder(Undefined)


@pytest.mark.parametrize(
    ("data_type", "names"),
    [
        (Order, {"order_id", "at", "items"}),
        (Aliased, {"orderId"}),
        (AliasedTwice, None),
        (pydantic.RootModel[dict[str, int]], None),
        (Positive, None),
        (Cat | Dog, None),
        (Pet, None),
        (Annotated[Cat, "a pet"], None),
        (Page[Cat], {"part"}),
    ],
)
def test_the_names_of_the_data_are_known_or_not(data_type: Any, names: set[str] | None) -> None:
    assert DataDecoder(data_type).fields() == names


def test_a_struct_of_a_strict_model_takes_what_the_model_itself_takes() -> None:
    raw = b'{"order_id":1,"at":"2026-01-02T03:04:05Z"}'
    order = DataDecoder(Order).decode(raw)
    assert DataDecoder(Page[Order]).decode(b'{"part":' + raw + b"}").part == order
