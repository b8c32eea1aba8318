"""Facts about what counts as Sellfern's envelope."""

import contextlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import EnvelopeError
from shared.observe import metrics
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
        ("id", 7.0),
        ("id", True),
        ("id", 10**LONGEST),
        ("type", None),
        ("created_at", "2026-11-01T12:00:00"),
        ("created_at", "yesterday"),
        ("created_at", 1),
        ("organization_id", ["org_1"]),
        ("organization_id", False),
        ("organization_id", ""),
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


def envelope_json(**changes: str) -> bytes:
    """The sample, with some values written as JSON by hand."""
    written = {name: msgspec.json.encode(value).decode() for name, value in FIELDS.items()}
    return ("{" + ",".join(f'"{k}":{v}' for k, v in (written | changes).items()) + "}").encode()


def mended() -> float:
    return (
        metrics.REGISTRY.get_sample_value("sellfern_events_mended_total", {"part": "envelope"}) or 0
    )


@pytest.mark.parametrize("digits", ["0", "123", "-5", "9" * 20, "7" * LONGEST])
@pytest.mark.parametrize("name", ["id", "organization_id"])
def test_an_id_that_is_a_whole_number_is_the_same_as_its_text(name: str, digits: str) -> None:
    number, text = envelope_json(**{name: digits}), envelope_json(**{name: f'"{digits}"'})
    assert getattr(decode(number), name) == getattr(decode(text), name) == digits


@pytest.mark.parametrize("number", ["1e2", "1.0", "1E+2", "true", "null", "1" * 257, "9" * 5000])
def test_what_is_no_whole_number_is_no_id(number: str) -> None:
    with pytest.raises(EnvelopeError, match=r"\$\.id"):
        decode(envelope_json(id=number))


def test_minus_nothing_is_nothing() -> None:
    assert decode(envelope_json(id="-0", organization_id="-0")).organization_id == "0"


def test_a_type_is_text_only() -> None:
    with pytest.raises(EnvelopeError, match=r"\$\.type"):
        decode(envelope_json(type="7"))


def test_a_byte_order_mark_is_passed_over() -> None:
    body = envelope_json()
    assert decode(b"\xef\xbb\xbf" + body).id == "evt_1"
    with pytest.raises(EnvelopeError):
        decode(b"\xef\xbb\xbf" * 2 + body)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"\ud83d", "\ufffd"),
        (r"\uD83D", "\ufffd"),
        (r"\ude00", "\ufffd"),
        (r"\ud83d\ud83d\n", "\ufffd\ufffd\n"),
        (r"\ud83d\u0041", "\ufffdA"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\\\ud83d", "\\\ufffd"),
    ],
)
def test_half_a_pair_is_read_as_lost_wherever_it_stands(written: str, read: str) -> None:
    before = mended()
    broken = {"data": f'{{"name":"Ren{written}","{written}":1}}', "unread": f'"{written}"'}
    assert msgspec.json.decode(decode(envelope_json(**broken)).data) == {
        "name": f"Ren{read}",
        read: 1,
    }
    assert decode(envelope_json(unread=broken["unread"])).id == "evt_1"
    assert mended() == before + 2


@pytest.mark.parametrize("whole", [r"\ud83d\ude00", r"\\ud83d", r"\\\\ud83d", "\ufffd"])
def test_what_looks_like_half_a_pair_and_is_none_stays(whole: str) -> None:
    data = f'{{"a":"{whole}"}}'
    kept = msgspec.json.decode(data)
    read = decode(envelope_json(data=data[:-1] + r',"b":"\udc00"}'))
    assert msgspec.json.decode(read.data) == {**kept, "b": "\ufffd"}


def test_a_body_with_bytes_that_are_no_utf_8_keeps_them_for_whoever_reads_them() -> None:
    """The envelope is readable as it is, so its data comes as it was signed."""
    read = decode(envelope_json(data='{"a":"@"}', note='"@"').replace(b"@", b"\xe9"))
    assert bytes(read.data) == b'{"a":"\xe9"}'


@pytest.mark.parametrize("broken", [rb"\ud83d", rb"\udc00", b"\xff", b"\xed\xa0\x80"])
@pytest.mark.parametrize("name", ["id", "type", "organization_id"])
def test_an_id_that_lost_something_is_refused_since_two_would_become_one(
    name: str, broken: bytes
) -> None:
    body = envelope_json(**{name: '"evt_@"'}).replace(b"@", broken)
    with pytest.raises(EnvelopeError, match=rf"half a surrogate pair .* - at `\$\.{name}`"):
        decode(body)


@pytest.mark.parametrize("name", ["id", "type", "organization_id"])
def test_an_id_may_hold_the_character_of_what_is_lost_while_another_field_is_broken(
    name: str,
) -> None:
    body = envelope_json(**{name: '"evt_\ufffd"'}, note=r'"\ud83d"')
    assert getattr(decode(body), name) == "evt_\ufffd"


def test_what_is_whole_is_never_counted_as_mended() -> None:
    before = mended()
    decode(envelope_json())
    decode(envelope_json(id="7"))
    with pytest.raises(EnvelopeError):
        decode(b'{"id":')
    assert mended() == before
