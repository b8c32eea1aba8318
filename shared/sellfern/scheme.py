"""How deliveries may be signed: schemes, described as data, by us or in the endpoints file."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from shared.settings.durations import parse_duration

Encoding = Literal["hex", "base64"]
Algorithm = Literal["sha256", "sha512"]
KeyEncoding = Literal["raw", "base64", "hex"]
TimestampFormat = Literal["seconds", "milliseconds", "rfc3339"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a delivery is signed.

    Attributes:
        name: for people.
        header: the header with the signature.
        prefix: what stands before a signature, such as ``sha256=``.
        encoding: lower-case hex, or base64 with padding.
        either_case: whether hex may be in upper case as well.
        algorithm: the hash under the HMAC.
        signed: what is signed: ``{body}``, or with ``{timestamp}``, ``{id}`` and plain text around
            it.
        separator: between several signatures in the header; empty where there is one.
        id_header: where ``{id}`` is from.
        timestamp_header: where ``{timestamp}`` is from, unless it is in the header itself.
        timestamp_field: in a header such as ``t=…,v1=…`` the field with the timestamp.
        timestamp_format: how it is written: since the epoch, or as RFC 3339 says.
        tolerance: seconds that a timestamp may be off; ``None`` where none is signed.
        secret_encoding: whether the key is the secret itself or what its base64 or hex stands for.
        secret_prefix: taken off before that is decoded.
        public_secret_prefix: of a secret that is a public key for Ed25519 instead, in base64; empty
            where there is none.
        public_prefix: what stands before a signature that such a key verifies.
    """

    name: str
    header: str
    prefix: str = ""
    encoding: Encoding = "hex"
    either_case: bool = False
    algorithm: Algorithm = "sha256"
    signed: str = "{body}"
    separator: str = ""
    id_header: str = ""
    timestamp_header: str = ""
    timestamp_field: str = ""
    timestamp_format: TimestampFormat = "seconds"
    tolerance: float | None = None
    secret_encoding: KeyEncoding = "raw"
    secret_prefix: str = ""
    public_secret_prefix: str = ""
    public_prefix: str = ""


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
    public_secret_prefix="whpk_",
    public_prefix="v1a,",
)
"""The Standard Webhooks specification: symmetric signatures, and those of a public key."""

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

TIMESTAMP_NAMES: Final[Mapping[TimestampFormat, str]] = {
    "seconds": "a number of seconds",
    "milliseconds": "a number of milliseconds",
    "rfc3339": "a time as RFC 3339 writes it",
}
"""What each way to write a time is called, for people."""

_SECONDS: Final = re.compile(r"[0-9]{1,12}")
_MILLISECONDS: Final = re.compile(r"[0-9]{1,15}")
# fromisoformat takes more than that, such as a date alone.
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})"
)


def read_timestamp(text: str, form: TimestampFormat) -> float | None:
    """The time in seconds since the epoch; None where the text is none."""
    match form:
        case "seconds":
            return int(text) if _SECONDS.fullmatch(text) else None
        case "milliseconds":
            return int(text) / 1000 if _MILLISECONDS.fullmatch(text) else None
        case "rfc3339":
            return _of_rfc_3339(text)


def write_timestamp(now: float, form: TimestampFormat) -> str:
    """A time, in seconds since the epoch, as a delivery's header writes it."""
    match form:
        case "seconds":
            return str(int(now))
        case "milliseconds":
            return str(int(now * 1000))
        case "rfc3339":
            moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
            return moment.replace("+00:00", "Z")


def _of_rfc_3339(text: str) -> float | None:
    if not _RFC_3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):  # a 31st of February
        return None


_PLACES: Final = ("{id}", "{timestamp}", "{body}")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


def read_scheme(table: Mapping[str, Any]) -> Scheme:
    """The scheme that a table describes, each key checked by itself and against the others.

    Raises:
        ValueError: what is wrong with it: the key, what was expected, what was got.
    """
    for key in table:
        if key not in _READERS:
            raise ValueError(f"{key!r}: expected one of {', '.join(_READERS)}")
    if "header" not in table:
        raise ValueError("no 'header', which every scheme needs")
    fields = {key: _READERS[key](key, value) for key, value in table.items()}
    # A sender's documents rarely say which case its hex is in.
    either_case = fields.get("encoding", "hex") == "hex"
    return _consistent(Scheme("described", either_case=either_case, **fields))


def _consistent(scheme: Scheme) -> Scheme:
    """Check what one key says against the others."""
    with_time = "{timestamp}" in scheme.signed
    if "{body}" not in scheme.signed:
        raise ValueError(f"'signed': expected {{body}} in it, got {scheme.signed!r}")
    # A time that isn't signed could be written anew by anybody, and would protect from nothing.
    if with_time != bool(scheme.timestamp_header or scheme.timestamp_field):
        raise ValueError(
            "'signed': expected {timestamp} exactly where timestamp_header or timestamp_field "
            "says where it is"
        )
    if ("{id}" in scheme.signed) != bool(scheme.id_header):
        raise ValueError("'signed': expected {id} exactly where id_header says where it is")
    if with_time != (scheme.tolerance is not None):
        raise ValueError("'tolerance': expected exactly where {timestamp} is signed")
    if scheme.timestamp_format != "seconds" and not with_time:
        raise ValueError("'timestamp_format': expected only where {timestamp} is signed")
    if scheme.timestamp_field and not scheme.separator:
        raise ValueError("'separator': expected one between the fields, such as ','")
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
    # A bare number is seconds here as in every setting, though TOML has a type for it.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return parse_duration(_text(key, str(value) if is_number else value))
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
    "timestamp_format": _one_of("seconds", "milliseconds", "rfc3339"),
    "tolerance": _seconds,
    "secret_encoding": _one_of("raw", "base64", "hex"),
    "secret_prefix": _text,
}
