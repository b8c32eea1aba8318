"""Signs deliveries and verifies them, by HMAC schemes that are described as data."""

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from shared.durations import parse_duration
from shared.errors import SignatureError

MISSING: Final = "signature_missing"
INVALID: Final = "signature_invalid"

MOST_SIGNATURES: Final = 16
"""In one header; a sender in the middle of a rotation sends two."""

_MOST_HEADER: Final = 4096
_PROOFS: Final = 32  # signatures tried: among so many each letter of either encoding occurs
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_PLACES: Final = ("{id}", "{timestamp}", "{body}")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")

Encoding = Literal["hex", "base64"]
Algorithm = Literal["sha256", "sha512"]


class Headers(Protocol):
    """A request's headers, as aiohttp has them: names in any case, perhaps more than once."""

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """Every value of a header."""
        ...


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a delivery is signed.

    Attributes:
        name: for people.
        header: the header with the signature.
        prefix: what stands before a signature, such as ``sha256=``.
        encoding: lower-case hex, or base64 with padding.
        algorithm: the hash under the HMAC.
        signed: what is signed: ``{body}``, or with ``{timestamp}`` and ``{id}`` before it.
        separator: between several signatures in the header; empty where there is one.
        id_header: where ``{id}`` is from.
        timestamp_header: where ``{timestamp}`` is from, unless it is in the header itself.
        timestamp_field: in a header such as ``t=…,v1=…`` the field with the timestamp.
        tolerance: seconds that a timestamp may be off; ``None`` where none is signed.
        secret_encoding: whether the key is the secret itself or what its base64 stands for.
        secret_prefix: taken off before the base64 is decoded.
    """

    name: str
    header: str
    prefix: str = ""
    encoding: Encoding = "hex"
    algorithm: Algorithm = "sha256"
    signed: str = "{body}"
    separator: str = ""
    id_header: str = ""
    timestamp_header: str = ""
    timestamp_field: str = ""
    tolerance: float | None = None
    secret_encoding: Literal["raw", "base64"] = "raw"
    secret_prefix: str = ""


SELLFERN: Final = Scheme("sellfern", "X-Sellfern-Signature")
"""As published: lower-case hex HMAC-SHA256 of the raw body (source: legacy integration pages)."""

STANDARD_WEBHOOKS: Final = Scheme(
    "standard-webhooks",
    "webhook-signature",
    prefix="v1,",
    encoding="base64",
    signed="{id}.{timestamp}.{body}",
    separator=" ",
    id_header="webhook-id",
    timestamp_header="webhook-timestamp",
    tolerance=300.0,
    secret_encoding="base64",
    secret_prefix="whsec_",
)
"""The Standard Webhooks specification, symmetric signatures."""

TIMESTAMPED: Final = Scheme(
    "timestamped",
    "X-Sellfern-Signature",
    prefix="v1=",
    signed="{timestamp}.{body}",
    separator=",",
    timestamp_field="t",
    tolerance=300.0,
)
"""One header in the style ``t=…,v1=…``, should the vendor come to sign a time as well."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """What the headers say: the candidates, and what is signed beside the body."""

    candidates: list[bytes]
    timestamp: str = ""
    message_id: str = ""


def verify(
    scheme: Scheme, body: bytes, headers: Headers, secrets: Sequence[bytes], now: float
) -> int:
    """Return if one of the secrets signed this body, and say which.

    Every secret is tried against every candidate, and each comparison takes the same time
    wherever two signatures differ.

    Args:
        scheme: how it has to be signed.
        body: the raw bytes.
        headers: of the request.
        secrets: those that are active; none of them verifies nothing.
        now: seconds since the epoch.

    Returns:
        The place of the secret among those given.

    Raises:
        SignatureError: nothing else, for any bytes and any headers.
    """
    claim = _read(scheme, headers)
    _check_time(scheme, claim.timestamp, now)
    content = _content(scheme, claim.message_id, claim.timestamp, body)
    verified = -1
    for number, secret in enumerate(secrets):
        key = _key(scheme, secret)
        if not key:
            continue
        expected = _encoded(scheme, hmac.digest(key, content, scheme.algorithm))
        for candidate in claim.candidates:
            if hmac.compare_digest(expected, candidate):
                verified = number
    if verified < 0:
        raise SignatureError(INVALID, "the signature was made with none of the endpoint's secrets")
    return verified


def sign(
    scheme: Scheme, body: bytes, secret: bytes, *, now: float, message_id: str
) -> dict[str, str]:
    """The headers of a signed delivery.

    Args:
        scheme: how to sign.
        body: the raw bytes.
        secret: the endpoint's.
        now: seconds since the epoch.
        message_id: of this delivery, for the schemes that sign one.

    Raises:
        ValueError: the secret has no key in it, as the scheme reads it.
    """
    key = _key(scheme, secret)
    if not key:
        raise ValueError(f"expected a {scheme.secret_encoding} secret for {scheme.name}")
    timestamp = str(int(now))
    content = _content(scheme, message_id, timestamp, body)
    signature = _encoded(scheme, hmac.digest(key, content, scheme.algorithm)).decode()
    value = scheme.prefix + signature
    if scheme.timestamp_field:
        value = f"{scheme.timestamp_field}={timestamp}{scheme.separator}{value}"
    headers = {scheme.header: value}
    if scheme.timestamp_header:
        headers[scheme.timestamp_header] = timestamp
    if scheme.id_header:
        headers[scheme.id_header] = message_id
    return headers


def _read(scheme: Scheme, headers: Headers) -> _Claim:
    value = _header(headers, scheme.header)
    parts = value.split(scheme.separator) if scheme.separator else [value]
    candidates = [
        part.removeprefix(scheme.prefix).encode("utf-8", "surrogatepass")
        for part in map(str.strip, parts)
        if part.startswith(scheme.prefix)
    ]
    if len(candidates) > MOST_SIGNATURES:
        raise SignatureError(INVALID, f"{scheme.header}: more than {MOST_SIGNATURES} signatures")
    return _Claim(
        candidates,
        _timestamp(scheme, headers, parts),
        _header(headers, scheme.id_header) if scheme.id_header else "",
    )


def _header(headers: Headers, name: str) -> str:
    """The one value of a header: of two, nobody could say which one was meant."""
    values = headers.getall(name, [])
    if not values:
        raise SignatureError(MISSING, f"the header {name} is missing")
    if len(values) > 1:
        raise SignatureError(INVALID, f"the header {name} is there more than once")
    if len(values[0]) > _MOST_HEADER:
        raise SignatureError(INVALID, f"the header {name} is too long")
    return values[0]


def _timestamp(scheme: Scheme, headers: Headers, parts: list[str]) -> str:
    if scheme.timestamp_header:
        return _header(headers, scheme.timestamp_header)
    if not scheme.timestamp_field:
        return ""
    field = scheme.timestamp_field + "="
    found = [part.strip().removeprefix(field) for part in parts if part.strip().startswith(field)]
    if len(found) != 1:
        raise SignatureError(INVALID, f"{scheme.header}: expected one {field}…")
    return found[0]


def _check_time(scheme: Scheme, timestamp: str, now: float) -> None:
    if scheme.tolerance is None:
        return
    if not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureError(INVALID, "the timestamp is not a number of seconds")
    if abs(now - int(timestamp)) > scheme.tolerance:
        raise SignatureError(INVALID, f"the timestamp is more than {scheme.tolerance:g} s off")


def _content(scheme: Scheme, message_id: str, timestamp: str, body: bytes) -> bytes:
    if scheme.signed == "{body}":  # nothing to copy
        return body
    head = scheme.signed.removesuffix("{body}")
    head = head.replace("{timestamp}", timestamp).replace("{id}", message_id)
    return head.encode("utf-8", "surrogatepass") + body


def _key(scheme: Scheme, secret: bytes) -> bytes:
    """The HMAC key in a secret; empty where there is none, which nobody may sign with."""
    if scheme.secret_encoding == "raw":
        return secret
    try:
        return base64.b64decode(secret.removeprefix(scheme.secret_prefix.encode()), validate=True)
    except binascii.Error:
        return b""


def _encoded(scheme: Scheme, digest: bytes) -> bytes:
    return digest.hex().encode() if scheme.encoding == "hex" else base64.b64encode(digest)


def scheme_from_table(table: Mapping[str, Any]) -> Scheme:
    """The scheme that a table of the endpoints file describes.

    Raises:
        ValueError: what is wrong with it: the key, what was expected, what was got.
    """
    for key in table:
        if key not in _READERS:
            raise ValueError(f"{key!r}: expected one of {', '.join(_READERS)}")
    if "header" not in table:
        raise ValueError("no 'header', which every scheme needs")
    fields = {key: _READERS[key](key, value) for key, value in table.items()}
    return _proven(_consistent(Scheme("described", **fields)))


def _consistent(scheme: Scheme) -> Scheme:
    """Check what one key says against the others."""
    with_time = "{timestamp}" in scheme.signed
    if not scheme.signed.endswith("{body}"):
        raise ValueError(f"'signed': expected it to end in {{body}}, got {scheme.signed!r}")
    if with_time != bool(scheme.timestamp_header or scheme.timestamp_field):
        raise ValueError(
            "'signed': expected {timestamp} exactly where timestamp_header or timestamp_field "
            "says where it is"
        )
    if ("{id}" in scheme.signed) != bool(scheme.id_header):
        raise ValueError("'signed': expected {id} exactly where id_header says where it is")
    if with_time != (scheme.tolerance is not None):
        raise ValueError("'tolerance': expected exactly where {timestamp} is signed")
    if scheme.timestamp_field and not scheme.separator:
        raise ValueError("'separator': expected one between the fields, such as ','")
    return scheme


class _SignedHeaders:
    """The headers that `sign` gives, as a request has them."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def getall(self, key: str, default: list[str], /) -> list[str]:
        found = [value for name, value in self._headers.items() if name.lower() == key.lower()]
        return found or default


def _proven(scheme: Scheme) -> Scheme:
    """Refuse what would silently verify nothing, such as a separator that may be in a signature."""
    secret = scheme.secret_prefix.encode() + base64.b64encode(b"a key")
    for number in range(_PROOFS):
        body = b"%d" % number
        headers = _SignedHeaders(sign(scheme, body, secret, now=0.0, message_id="a message"))
        try:
            verify(scheme, body, headers, [secret], now=0.0)
        except SignatureError as exc:
            raise ValueError(
                "expected headers, prefix and separator that can be told apart, "
                f"got a scheme whose own signatures fail: {exc}"
            ) from exc
    return scheme


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > 64 or not value.isprintable():  # noqa: PLR2004
        raise ValueError(f"{key!r}: expected a short text, got {value!r:.40}")
    return value


def _header_name(key: str, value: object) -> str:
    if not isinstance(value, str) or not _HEADER_NAME.fullmatch(value):
        raise ValueError(f"{key!r}: expected the name of a header, got {value!r:.40}")
    return value


def _one_of(*options: str) -> Callable[[str, object], str]:
    def read(key: str, value: object) -> str:
        if value not in options:
            raise ValueError(f"{key!r}: expected one of {', '.join(options)}, got {value!r:.40}")
        return str(value)

    return read


def _template(key: str, value: object) -> str:
    text = _text(key, value)
    rest = text
    for place in _PLACES:
        rest = rest.replace(place, "", 1)
    if "{" in rest or "}" in rest:
        raise ValueError(f"{key!r}: expected {', '.join(_PLACES)} once each, got {value!r:.40}")
    return text


def _seconds(key: str, value: object) -> float:
    try:
        return parse_duration(_text(key, value))
    except ValueError as exc:
        raise ValueError(f"{key!r}: expected a duration such as '5m', got {value!r:.40}") from exc


_READERS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "header": _header_name,
    "prefix": _text,
    "encoding": _one_of("hex", "base64"),
    "algorithm": _one_of("sha256", "sha512"),
    "signed": _template,
    "separator": _text,
    "id_header": _header_name,
    "timestamp_header": _header_name,
    "timestamp_field": _text,
    "tolerance": _seconds,
    "secret_encoding": _one_of("raw", "base64"),
    "secret_prefix": _text,
}
