"""Facts about what counts as Sellfern's envelope."""

import contextlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import EnvelopeError
from shared.sellfern.envelope import LONGEST, Envelope, decode

FIELDS: dict[str, Any] = {
    "id": "evt_1",
    "type": "order.updated",
    "created_at": "2026-11-01T12:00:00.123Z",
    "organization_id": "org_1",
    "data": {"order_id": "1"},
}


def test_the_published_sample_is_read_and_unknown_fields_are_tolerated() -> None:
    envelope = decode(msgspec.json.encode({**FIELDS, "api_version": 3}))
    assert envelope.id == "evt_1"
    assert envelope.created_at == datetime(2026, 11, 1, 12, 0, 0, 123_000, tzinfo=UTC)
    assert msgspec.json.decode(envelope.data) == {"order_id": "1"}


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_must_be_there(name: str) -> None:
    rest = {key: value for key, value in FIELDS.items() if key != name}
    with pytest.raises(EnvelopeError, match=f"missing required field `{name}`"):
        decode(msgspec.json.encode(rest))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", ""),
        ("id", "x" * (LONGEST + 1)),
        ("id", 7),
        ("type", None),
        ("created_at", "2026-11-01T12:00:00"),
        ("created_at", "yesterday"),
        ("created_at", 1),
        ("organization_id", ["org_1"]),
        ("data", []),
        ("data", None),
        ("data", "{}"),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not_quoted(name: str, value: Any) -> None:
    with pytest.raises(EnvelopeError) as caught:
        decode(msgspec.json.encode({**FIELDS, name: value}))
    assert f"$.{name}" in str(caught.value)
    assert "yesterday" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 100_000,
        b'{"data":' + b"[" * 100_000,
        b"\xff\xfe",
        b'{"id": "\xff"}',
        b'{"id": "\\ud800"}',
        b"1" * 100_000,
        b"NaN",
        b'{"id": NaN}',
        b"null",
        msgspec.json.encode(FIELDS) + b"x",
    ],
)
def test_what_is_no_json_object_is_an_envelope_error(body: bytes) -> None:
    with pytest.raises(EnvelopeError):
        decode(body)


@given(st.one_of(st.binary(max_size=200), st.text().map(lambda text: text.encode())))
def test_any_bytes_are_an_envelope_or_an_envelope_error(body: bytes) -> None:
    with contextlib.suppress(EnvelopeError):
        assert isinstance(decode(body), Envelope)


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(), inner)),
    max_leaves=3,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, _JSON)))
def test_any_values_in_the_fields_are_an_envelope_or_an_envelope_error(
    fields: dict[str, Any],
) -> None:
    try:
        body = msgspec.json.encode({**FIELDS, **fields})
    except (UnicodeEncodeError, OverflowError):
        return
    try:
        envelope = decode(body)
    except EnvelopeError:
        return
    assert isinstance(msgspec.json.decode(envelope.data), dict)
