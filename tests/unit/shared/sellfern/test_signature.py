"""Facts about signing and verifying."""

import base64
import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime
from time import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from shared.errors import SignatureError
from shared.sellfern import signature
from shared.sellfern.scheme import SELLFERN, STANDARD_WEBHOOKS, TIMESTAMPED, Scheme
from shared.sellfern.signature import (
    INVALID,
    has_key,
    read_claim,
    scheme_from_table,
    sign,
    verify,
)

NOW = 1_795_000_000.0
BODY = b'{"id":"evt_1"}'
SECRET = b"whsec_c2VjcmV0IGtleSBvZiB0aGUgZW5kcG9pbnQ="
GITHUB = scheme_from_table({"header": "X-Hub-Signature-256", "prefix": "sha256="})
SHA512 = scheme_from_table({"header": "x-sig", "algorithm": "sha512", "encoding": "base64"})
SCHEMES = [SELLFERN, STANDARD_WEBHOOKS, TIMESTAMPED, GITHUB, SHA512]


def refused(scheme: Scheme, headers: Any, *, body: bytes = BODY, now: float = NOW) -> str:
    """The code with which these headers are refused."""
    with pytest.raises(SignatureError) as caught:
        verify(scheme, body, CIMultiDict(headers), [SECRET], now)
    return caught.value.code


def test_githubs_published_example_verifies() -> None:
    headers = CIMultiDict(
        {
            "X-Hub-Signature-256": "sha256="
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        }
    )
    verify(GITHUB, b"Hello, World!", headers, [b"It's a Secret to Everybody"], NOW)
    with pytest.raises(SignatureError):
        verify(GITHUB, b"Hello, World?", headers, [b"It's a Secret to Everybody"], NOW)


def test_the_vector_of_the_standard_webhooks_specification_verifies() -> None:
    headers = CIMultiDict(
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        }
    )
    secret = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    verify(STANDARD_WEBHOOKS, b'{"test": 2432232314}', headers, [secret], 1614265330)


def test_sellferns_scheme_is_the_lower_case_hex_hmac_of_the_raw_body() -> None:
    good = hmac.new(SECRET, BODY, hashlib.sha256).hexdigest()
    verify(SELLFERN, BODY, CIMultiDict({"x-sellfern-signature": good}), [SECRET], NOW)
    assert refused(SELLFERN, {"x-sellfern-signature": good.upper()}) == "signature_invalid"
    assert refused(SELLFERN, {"x-sellfern-signature": f"sha256={good}"}) == "signature_invalid"
    assert refused(SELLFERN, {}) == "signature_missing"


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.header)
def test_what_is_signed_verifies_and_nothing_else_does(scheme: Scheme) -> None:
    headers = sign(scheme, BODY, SECRET, now=NOW, message_id="msg_1")
    verify(scheme, BODY, CIMultiDict(headers), [b"other", SECRET], NOW)
    assert refused(scheme, headers, body=BODY + b" ") == "signature_invalid"
    for secrets in ([], [b""], [b"other"]):
        with pytest.raises(SignatureError) as caught:
            verify(scheme, BODY, CIMultiDict(headers), secrets, NOW)
        assert caught.value.code == "signature_invalid"
    for name in headers:
        rest = {key: value for key, value in headers.items() if key != name}
        assert refused(scheme, rest) == "signature_missing"


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.header)
def test_a_header_that_is_there_twice_is_refused(scheme: Scheme) -> None:
    for name, value in sign(scheme, BODY, SECRET, now=NOW, message_id="msg_1").items():
        headers = [*sign(scheme, BODY, SECRET, now=NOW, message_id="msg_1").items(), (name, value)]
        assert refused(scheme, headers) == "signature_invalid"


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.header)
def test_a_header_of_over_4_kib_is_refused(scheme: Scheme) -> None:
    headers = sign(scheme, BODY, SECRET, now=NOW, message_id="msg_1")
    for name in headers:
        with pytest.raises(SignatureError, match=f"the header {name} is too long"):
            verify(scheme, BODY, CIMultiDict(headers | {name: "x" * 4097}), [SECRET], NOW)


@pytest.mark.parametrize("tolerance", [300, 300.0, "300", "300s", "5m"])
def test_a_bare_number_of_a_tolerance_is_seconds(tolerance: object) -> None:
    table = {"header": "h", "timestamp_header": "t", "signed": "{timestamp}{body}"}
    assert scheme_from_table({**table, "tolerance": tolerance}).tolerance == 300.0


@pytest.mark.parametrize("tolerance", [True, -300, float("inf"), 1e20])
def test_what_is_no_time_is_no_tolerance(tolerance: object) -> None:
    table = {"header": "h", "timestamp_header": "t", "signed": "{timestamp}{body}"}
    with pytest.raises(ValueError, match="'tolerance': expected a duration"):
        scheme_from_table({**table, "tolerance": tolerance})


@pytest.mark.parametrize("scheme", [STANDARD_WEBHOOKS, TIMESTAMPED])
def test_a_timestamp_may_be_as_far_off_as_the_tolerance(scheme: Scheme) -> None:
    headers = sign(scheme, BODY, SECRET, now=NOW, message_id="msg_1")
    for off in (-300, 300):
        verify(scheme, BODY, CIMultiDict(headers), [SECRET], NOW + off)
    for off in (-301, 301):
        assert refused(scheme, headers, now=NOW + off) == "signature_invalid"


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        "soon",
        "-1",
        "+1795000000",
        "1795000000.0",
        "1_795_000_000",
        "1" * 13,
        "\u0661795000000",  # a digit, but an Arabic one
        "1795000000\ud800",
    ],
)
def test_a_timestamp_that_is_no_number_of_seconds_is_refused(timestamp: str) -> None:
    standard = sign(STANDARD_WEBHOOKS, BODY, SECRET, now=NOW, message_id="msg_1")
    standard["webhook-timestamp"] = timestamp
    assert refused(STANDARD_WEBHOOKS, standard) == "signature_invalid"
    header = f"t={timestamp},v1=00"
    assert refused(TIMESTAMPED, {TIMESTAMPED.header: header}) == "signature_invalid"


@pytest.mark.parametrize(
    ("scheme", "join"), [(STANDARD_WEBHOOKS, " "), (TIMESTAMPED, ",")], ids=["standard", "stamped"]
)
def test_one_good_signature_among_several_suffices(scheme: Scheme, join: str) -> None:
    headers = sign(scheme, BODY, SECRET, now=NOW, message_id="msg_1")
    several = headers[scheme.header] + join + scheme.prefix + "AAAA" + join + "v9,other"
    verify(scheme, BODY, CIMultiDict({**headers, scheme.header: several}), [SECRET], NOW)


def test_a_header_full_of_signatures_is_refused_before_any_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = 0

    def counted(one: bytes, other: bytes) -> bool:
        nonlocal compared
        compared += 1
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", counted)
    headers = sign(STANDARD_WEBHOOKS, BODY, SECRET, now=NOW, message_id="msg_1")
    headers[STANDARD_WEBHOOKS.header] = " ".join(["v1,a"] * 17)
    assert refused(STANDARD_WEBHOOKS, headers) == "signature_invalid"
    assert compared == 0


def test_every_secret_is_compared_in_constant_time_with_every_candidate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The comparison goes through hmac.compare_digest, and a match ends nothing early."""
    compared = []
    real = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    headers = sign(TIMESTAMPED, BODY, SECRET, now=NOW, message_id="m")
    headers[TIMESTAMPED.header] += ",v1=" + "00" * 32
    verify(TIMESTAMPED, BODY, CIMultiDict(headers), [SECRET, b"other"], NOW)
    assert len(compared) == 4
    assert {type(each) for pair in compared for each in pair} == {bytes}


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("text", ["", "x", "0" * 63, "g" * 64, "0" * 65, "\u0660" * 64, "A" * 44])
def test_what_no_secret_could_have_made_is_refused_without_a_hash(
    scheme: Scheme, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = sign(scheme, BODY, SECRET, now=NOW, message_id="msg_1")
    made = headers[scheme.header]
    start = made.index(scheme.prefix) + len(scheme.prefix) if scheme.prefix else 0
    headers[scheme.header] = made[:start] + text
    monkeypatch.setattr(hmac, "digest", None)
    with pytest.raises(SignatureError) as caught:
        read_claim(scheme, CIMultiDict(headers))
    assert caught.value.code == INVALID


def test_a_signature_of_another_kind_costs_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = sign(STANDARD_WEBHOOKS, BODY, SECRET, now=NOW, message_id="msg_1")
    headers[STANDARD_WEBHOOKS.header] = "v1a," + "A" * 86 + "=="
    monkeypatch.setattr(hmac, "digest", None)
    with pytest.raises(SignatureError):
        verify(STANDARD_WEBHOOKS, BODY, CIMultiDict(headers), [SECRET], NOW)


def test_without_a_secret_nothing_verifies_not_even_an_empty_signature() -> None:
    for scheme in SCHEMES:
        empty = sign(scheme, BODY, SECRET, now=NOW, message_id="msg_1") | {scheme.header: ""}
        unkeyed = hmac.new(b"", BODY, hashlib.sha256).hexdigest()
        for value in ("", scheme.prefix, unkeyed, scheme.prefix + unkeyed):
            headers = CIMultiDict(empty | {scheme.header: value})
            for secrets in ([], [b""], [b"", b""]):
                with pytest.raises(SignatureError):
                    verify(scheme, BODY, headers, secrets, NOW)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.header)
@pytest.mark.parametrize("odd", ["\udcff", "é", "\0", "", " "])
def test_a_header_of_odd_characters_is_refused(scheme: Scheme, odd: str) -> None:
    """The HTTP parser gives bytes that are no UTF-8 as lone surrogates."""
    headers = sign(scheme, BODY, SECRET, now=NOW, message_id="msg_1")
    for value in (odd, scheme.prefix + odd, headers[scheme.header][:-2] + odd):
        assert refused(scheme, headers | {scheme.header: value}) == "signature_invalid"
    if scheme.id_header:
        assert refused(scheme, headers | {scheme.id_header: odd}) == "signature_invalid"


def test_a_secret_without_a_key_in_it_neither_signs_nor_verifies() -> None:
    headers = sign(STANDARD_WEBHOOKS, BODY, SECRET, now=NOW, message_id="m")
    for secret in (b"whsec_", b"whsec_not base64!", b"whsec_\xff"):
        with pytest.raises(ValueError, match="expected a base64 secret"):
            sign(STANDARD_WEBHOOKS, BODY, secret, now=NOW, message_id="m")
        with pytest.raises(SignatureError):
            verify(STANDARD_WEBHOOKS, BODY, CIMultiDict(headers), [secret], NOW)


_TEXTS = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="0123456789abcdef", min_size=64, max_size=64),
    st.text(alphabet="v1,= t0129+/\ud800é", max_size=60),
    st.just("t=1795000000,v1=00"),
    st.just("x" * 5000),
)
_HEADERS = st.lists(
    st.tuples(
        st.sampled_from([h for s in SCHEMES for h in (s.header, s.timestamp_header, s.id_header)]),
        _TEXTS,
    ),
    max_size=6,
)
_DESCRIBED = st.builds(
    lambda prefix, separator, field: replace(
        TIMESTAMPED, prefix=prefix, separator=separator, timestamp_field=field
    ),
    st.text(max_size=3),
    st.text(min_size=1, max_size=2),
    st.text(min_size=1, max_size=2),
)


@given(
    scheme=st.one_of(st.sampled_from(SCHEMES), _DESCRIBED),
    body=st.binary(max_size=100),
    headers=_HEADERS,
    secrets=st.lists(st.binary(max_size=20), max_size=3),
    now=st.floats(0, 4e9),
)
def test_any_bytes_with_any_headers_verify_or_raise_a_signature_error(
    scheme: Scheme, body: bytes, headers: Any, secrets: list[bytes], now: float
) -> None:
    with pytest.raises(SignatureError) as caught:  # to verify, it would have to guess an HMAC
        verify(scheme, body, CIMultiDict(headers), secrets, now)
    assert caught.value.code in {"signature_missing", "signature_invalid"}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_verifying_says_which_secret_it_was(place: int) -> None:
    secrets = [b"one", b"two", b"three"]
    headers = sign(SELLFERN, BODY, secrets[place], now=NOW, message_id="m")
    assert verify(SELLFERN, BODY, CIMultiDict(headers), secrets, NOW) == place


@given(body=st.binary(max_size=200), secret=st.binary(min_size=1, max_size=40))
def test_any_body_and_any_secret_sign_and_verify(body: bytes, secret: bytes) -> None:
    for scheme in (SELLFERN, TIMESTAMPED, GITHUB):
        headers = sign(scheme, body, secret, now=NOW, message_id="m")
        verify(scheme, body, CIMultiDict(headers), [secret], NOW)


def test_a_described_scheme_says_everything_about_an_hmac() -> None:
    scheme = scheme_from_table(
        {
            "header": "X-Signature",
            "prefix": "v1,",
            "encoding": "base64",
            "algorithm": "sha512",
            "signed": "{id}:{timestamp}:{body}",
            "separator": " ",
            "id_header": "X-Id",
            "timestamp_header": "X-Time",
            "tolerance": "1m",
            "secret_encoding": "base64",
            "secret_prefix": "k_",
        }
    )
    secret = b"k_" + base64.b64encode(b"key")
    headers = sign(scheme, BODY, secret, now=NOW, message_id="m1")
    expected = hmac.digest(b"key", b"m1:1795000000:" + BODY, "sha512")
    assert headers["X-Signature"] == "v1," + base64.b64encode(expected).decode()
    verify(scheme, BODY, CIMultiDict(headers), [secret], NOW + 60)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "no 'header'"),
        ({"header": "a b"}, "'header': expected the name of a header, got 'a b'"),
        ({"header": "h", "heeder": 1}, "'heeder': expected one of header, prefix"),
        ({"header": "h", "encoding": "HEX"}, "'encoding': expected one of hex, base64, got 'HEX'"),
        ({"header": "h", "prefix": 1}, "'prefix': expected a short text, got 1"),
        ({"header": "h", "signed": "{bdy}"}, "'signed': expected {id}, {timestamp}, {body} once"),
        ({"header": "h", "signed": "."}, "'signed': expected {body} in it, got '.'"),
        ({"header": "h", "signed": "{body}{body}"}, "'signed': expected {id}, {timestamp}, {body}"),
        (
            {"header": "h", "timestamp_format": "rfc3339"},
            "'timestamp_format': expected only where {timestamp} is signed",
        ),
        (
            {"header": "h", "timestamp_format": "unix"},
            "'timestamp_format': expected one of seconds, milliseconds, rfc3339, got 'unix'",
        ),
        ({"header": "h", "secret_encoding": "hexadecimal"}, "expected one of raw, base64, hex"),
        ({"header": "h", "signed": "{timestamp}{body}"}, "expected {timestamp} exactly where"),
        ({"header": "h", "signed": "{id}{body}"}, "expected {id} exactly where id_header"),
        (
            {"header": "h", "signed": "{timestamp}{body}", "timestamp_header": "t"},
            "'tolerance': expected exactly where {timestamp} is signed",
        ),
        (
            {
                "header": "h",
                "signed": "{timestamp}{body}",
                "timestamp_field": "t",
                "tolerance": "5m",
            },
            "'separator': expected one between the fields",
        ),
        ({"header": "h", "tolerance": "soon"}, "'tolerance': expected a duration such as '5m'"),
        ({"header": "h", "prefix": "x" * 65}, "'prefix': expected a short text, got 'xxx"),
        ({"header": "h", "prefix": "a\n"}, "'prefix': expected a short text, got 'a\\n'"),
        ({"header": "h", "separator": "f"}, "got a scheme whose own signatures fail"),
        ({"header": "h", "encoding": "base64", "separator": "+"}, "own signatures fail"),
        ({"header": "h", "prefix": " v1="}, "own signatures fail"),
        ({"header": "h", "prefix": "a,b=", "separator": ","}, "own signatures fail"),
        ({"header": "h", "signed": "{id}{body}", "id_header": "H"}, "own signatures fail"),
        (
            {
                "header": "h",
                "signed": "{timestamp}{body}",
                "timestamp_field": "t",
                "prefix": "t=",
                "separator": ",",
                "tolerance": "5m",
            },
            "own signatures fail",
        ),
    ],
)
def test_a_scheme_that_cannot_be_is_told_what_was_expected(
    table: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the text is compared below
        scheme_from_table(table)
    assert message in str(caught.value)


HEX_KEYS = scheme_from_table(
    {
        "header": "X-Sig",
        "signed": "{body}{timestamp}",
        "timestamp_header": "X-Time",
        "timestamp_format": "milliseconds",
        "tolerance": "5m",
        "secret_encoding": "hex",
    }
)


def test_the_time_may_come_behind_the_body_and_the_key_be_written_in_hex() -> None:
    stamp = str(int(NOW * 1000) + 123)
    good = hmac.new(b"\x01\xab", BODY + stamp.encode(), hashlib.sha256).hexdigest()
    headers = {"X-Sig": good, "X-Time": stamp}
    for secret in (b"01ab", b"01AB"):
        assert verify(HEX_KEYS, BODY, CIMultiDict(headers), [secret], NOW) == 0
    for secret in (b"01a", b"01 ab", b"zz", b"", b"\xff"):
        assert not has_key(HEX_KEYS, secret)
        with pytest.raises(SignatureError):
            verify(HEX_KEYS, BODY, CIMultiDict(headers), [secret], NOW)


def test_a_described_scheme_takes_hex_in_either_case_and_sellferns_own_does_not() -> None:
    headers = sign(GITHUB, BODY, SECRET, now=NOW, message_id="m")
    upper = headers[GITHUB.header].upper().replace("SHA256=", "sha256=")
    assert verify(GITHUB, BODY, CIMultiDict({GITHUB.header: upper}), [SECRET], NOW) == 0
    in_base64 = sign(SHA512, BODY, SECRET, now=NOW, message_id="m")
    assert refused(SHA512, {name: value.upper() for name, value in in_base64.items()})


@pytest.mark.parametrize(
    ("form", "written", "off"),
    [
        ("milliseconds", "1795000000999", 0.999),
        ("milliseconds", "1795000301000", None),
        ("milliseconds", "1795000000", None),  # seconds, where milliseconds are meant
        ("milliseconds", "1795000000.5", None),
        ("rfc3339", "2026-11-18T11:06:40Z", 0),
        ("rfc3339", "2026-11-18T12:06:40.123456789+01:00", 0.123),
        ("rfc3339", "2026-11-18T11:06:40", None),
        ("rfc3339", "2026-02-31T11:06:40Z", None),
        ("rfc3339", "9999-12-31T23:59:59-23:59", None),
        ("rfc3339", "2026-11-18T11:12:00Z", None),
        ("rfc3339", "1795000000", None),
    ],
)
def test_a_time_is_written_as_the_scheme_says(form: Any, written: str, off: float | None) -> None:
    scheme = scheme_from_table(
        {
            "header": "X-Sig",
            "signed": "{timestamp}.{body}",
            "timestamp_header": "X-Time",
            "timestamp_format": form,
            "tolerance": "5m",
        }
    )
    good = hmac.new(SECRET, written.encode() + b"." + BODY, hashlib.sha256).hexdigest()
    headers = {"X-Sig": good, "X-Time": written}
    if off is None:
        assert refused(scheme, headers) == "signature_invalid"
    else:
        for now in (NOW - 299, NOW + off, NOW + 299):
            assert verify(scheme, BODY, CIMultiDict(headers), [SECRET], now) == 0


PRIVATE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = b"whpk_" + base64.b64encode(PRIVATE_KEY.public_key().public_bytes_raw())


def asymmetric(body: bytes = BODY, key: Ed25519PrivateKey = PRIVATE_KEY) -> dict[str, str]:
    """The headers of a delivery that is signed by a private key."""
    signature = base64.b64encode(key.sign(b"msg_1.1795000000." + body)).decode()
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1795000000",
        "webhook-signature": f"v1a,{signature}",
    }


def test_a_public_key_verifies_what_its_private_key_signed() -> None:
    headers = asymmetric()
    assert verify(STANDARD_WEBHOOKS, BODY, CIMultiDict(headers), [SECRET, PUBLIC], NOW) == 1
    other = asymmetric(key=Ed25519PrivateKey.generate())["webhook-signature"]
    both = {**headers, "webhook-signature": f"{other} v1,AAAA {headers['webhook-signature']}"}
    assert verify(STANDARD_WEBHOOKS, BODY, CIMultiDict(both), [PUBLIC], NOW) == 0
    symmetric = sign(STANDARD_WEBHOOKS, BODY, SECRET, now=NOW, message_id="msg_1")
    as_other = symmetric["webhook-signature"].replace("v1,", "v1a,")
    for value in (other, as_other, "v1a,", "v1a,é", "v1a,AAAA", f"{headers['webhook-signature']}x"):
        odd = CIMultiDict({**headers, "webhook-signature": value})
        with pytest.raises(SignatureError) as caught:
            verify(STANDARD_WEBHOOKS, BODY, odd, [PUBLIC, SECRET], NOW)
        assert caught.value.code == "signature_invalid"
    with pytest.raises(SignatureError):
        verify(STANDARD_WEBHOOKS, BODY + b" ", CIMultiDict(headers), [PUBLIC], NOW)
    with pytest.raises(SignatureError):  # as a symmetric key, everybody would know it
        verify(STANDARD_WEBHOOKS, BODY, CIMultiDict(symmetric), [PUBLIC], NOW)


def test_a_public_key_does_not_sign_and_half_a_one_is_none() -> None:
    with pytest.raises(ValueError, match="verifies, but can't sign"):
        sign(STANDARD_WEBHOOKS, BODY, PUBLIC, now=NOW, message_id="m")
    assert has_key(STANDARD_WEBHOOKS, PUBLIC)
    for secret in (b"whpk_", PUBLIC[:-4], PUBLIC + b"AAAA", b"whpk_!", b"whsk_" + PUBLIC[5:]):
        assert not has_key(STANDARD_WEBHOOKS, secret)


def test_a_header_full_of_a_private_keys_signatures_is_refused_before_one_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signature, "_verifies", None)
    headers = asymmetric()
    headers["webhook-signature"] = " ".join([headers["webhook-signature"]] * 5)
    with pytest.raises(SignatureError, match="more than 4 signatures"):
        verify(STANDARD_WEBHOOKS, BODY, CIMultiDict(headers), [PUBLIC], NOW)


@given(
    key=st.binary(min_size=1, max_size=80),
    text=st.text(max_size=80),
    padding=st.sampled_from(["=", ""]),
)
def test_the_reference_library_and_this_verify_what_the_other_signed(
    key: bytes, text: str, padding: str
) -> None:
    secret = "whsec_" + base64.b64encode(key).decode().replace("=", padding)
    body, now = text.encode(), time()
    reference = Webhook(secret)
    ours = sign(STANDARD_WEBHOOKS, body, secret.encode(), now=now, message_id="msg_1")
    reference.verify(body, ours, json_parse=False)
    moment = datetime.fromtimestamp(int(now), UTC)
    theirs = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now)),
        "webhook-signature": reference.sign("msg_1", moment, text),
    }
    assert ours == theirs
    verify(STANDARD_WEBHOOKS, body, CIMultiDict(theirs), [secret.encode()], now)
    with pytest.raises(WebhookVerificationError):
        reference.verify(body + b" ", ours, json_parse=False)


_SHORT = st.sampled_from(["", "v1=", "v1,", "t=", "t", " v", "x ", ",", " ", "a", "=", ";", ", "])
_NAMES = st.sampled_from(["X-Signature", "x-signature", "X-Id", "X-Time"])
_TABLES = st.fixed_dictionaries(
    {"header": _NAMES},
    optional={
        "prefix": _SHORT,
        "encoding": st.sampled_from(["hex", "base64"]),
        "algorithm": st.sampled_from(["sha256", "sha512"]),
        "signed": st.sampled_from(
            [
                "{body}",
                "{timestamp}.{body}",
                "{id}.{body}",
                "{id}{timestamp}{body}",
                "{body}{timestamp}",
                "v0:{body}.{id}",
            ]
        ),
        "separator": _SHORT,
        "id_header": _NAMES,
        "timestamp_header": _NAMES,
        "timestamp_field": _SHORT,
        "tolerance": st.sampled_from(["0", "5m"]),
        "timestamp_format": st.sampled_from(["seconds", "milliseconds", "rfc3339"]),
        "secret_encoding": st.sampled_from(["raw", "base64", "hex"]),
        "secret_prefix": _SHORT,
    },
)


@given(table=_TABLES, body=st.binary(max_size=40), key=st.binary(min_size=1, max_size=20))
def test_a_scheme_that_is_taken_verifies_what_it_signs(
    table: dict[str, Any], body: bytes, key: bytes
) -> None:
    try:
        scheme = scheme_from_table(table)
    except ValueError:
        return
    encoded = key.hex().encode() if scheme.secret_encoding == "hex" else base64.b64encode(key)
    secret = scheme.secret_prefix.encode() + encoded
    headers = sign(scheme, body, secret, now=NOW, message_id="msg_1")
    verify(scheme, body, CIMultiDict(headers), [secret], NOW)
    for name in headers:
        assert refused(scheme, {k: v for k, v in headers.items() if k != name}, body=body)
