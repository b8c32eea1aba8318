"""Facts about ids that are text or whole numbers."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.sellfern.identifier import MOST_DIGITS, Id, decoded, text

MOST = 10**MOST_DIGITS - 1


class Order(msgspec.Struct):
    order_id: Id
    items: list[Id] = []
    parent: Id | None = None


def read(written: str) -> Order:
    return msgspec.json.decode(written, type=Order, dec_hook=decoded)


@given(st.integers(-MOST, MOST))
def test_every_digit_of_a_whole_number_counts(number: int) -> None:
    order = read(f'{{"order_id":{number},"items":[{number}],"parent":"{number}"}}')
    assert order == Order(str(number), [str(number)], str(number))
    assert {type(order.order_id), type(order.parent)} == {str}


@given(st.text())
def test_text_stays_as_it_is(value: str) -> None:
    assert text(value) == value
    assert read(msgspec.json.encode({"order_id": value}).decode()).order_id == value


def test_minus_nothing_is_nothing() -> None:
    assert read('{"order_id":-0}').order_id == "0"


@pytest.mark.parametrize(
    "written", ["1.0", "1e2", "-1E2", "-0.0", "true", "false", "null", "[1]", "{}", "1" * 257]
)
def test_nothing_else_is_an_id_and_its_place_is_told(written: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"Expected .* - at `\$\.order_id`"):
        read(f'{{"order_id":{written}}}')


_TOO_LONG = [MOST + 1, -MOST - 1, 1 << 99999]


@pytest.mark.parametrize("value", [True, False, 1.0, None, b"1", [1], *_TOO_LONG], ids=type)
def test_a_value_that_is_no_id_is_refused_without_showing_it(value: object) -> None:
    with pytest.raises(ValueError, match="Expected") as caught:
        text(value)
    assert len(str(caught.value)) < 60


def test_an_id_is_made_of_a_number_by_hand_as_well() -> None:
    assert Id(123) == Id("123") == "123"
    assert isinstance("123", Id)
    assert not isinstance(123, Id)
