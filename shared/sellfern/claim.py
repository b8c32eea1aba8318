"""What a delivery's headers claim about its signature, before anybody has its body."""

import re
from typing import Final, NamedTuple, Protocol

from shared.errors import SignatureError
from shared.sellfern import timestamps
from shared.sellfern.scheme import Scheme

MISSING: Final = "signature_missing"
INVALID: Final = "signature_invalid"

MOST_SIGNATURES: Final = 16
"""In one header; a sender in the middle of a rotation sends two."""

_MOST_HEADER: Final = 4096
_MOST_PUBLIC: Final = 4  # signatures of public keys: one is as dear as a hundred others

# What can be a signature at all: any other text costs no hash of the body.
_FORMS: Final = {
    ("hex", "sha256"): re.compile(rb"[0-9a-f]{64}"),
    ("hex", "sha512"): re.compile(rb"[0-9a-f]{128}"),
    ("base64", "sha256"): re.compile(rb"[A-Za-z0-9+/]{43}="),
    ("base64", "sha512"): re.compile(rb"[A-Za-z0-9+/]{86}=="),
}
_PUBLIC_FORM: Final = re.compile(rb"[A-Za-z0-9+/]{86}(?:==)?")


class Headers(Protocol):
    """A request's headers, as aiohttp has them: names in any case, perhaps more than once."""

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """Every value of a header."""
        ...


class Claim(NamedTuple):
    """What the headers say of a delivery whose body need not be there yet.

    Attributes:
        candidates: what may be the signature of a shared secret.
        public: what may be that of a public key.
        timestamp: as it was written; empty where none is signed.
        message_id: the same.
        signed_at: the timestamp in seconds since the epoch.
    """

    candidates: list[bytes]
    public: list[bytes]
    timestamp: str = ""
    message_id: str = ""
    signed_at: float = 0.0


def read_claim(scheme: Scheme, headers: Headers) -> Claim:
    """What the headers claim, before anybody reads the body.

    Raises:
        SignatureError: no secret at all could verify it, whatever the body is.
    """
    value = _header(headers, scheme.header)
    parts = value.split(scheme.separator) if scheme.separator else [value]
    candidates = _candidates(scheme, parts, scheme.prefix, MOST_SIGNATURES)
    if scheme.either_case:
        candidates = [each.lower() for each in candidates]
    is_formed = _FORMS[scheme.encoding, scheme.algorithm].fullmatch
    candidates = [each for each in candidates if is_formed(each)]
    public = []
    if scheme.public_prefix:
        public = _candidates(scheme, parts, scheme.public_prefix, _MOST_PUBLIC)
        public = [each for each in public if _PUBLIC_FORM.fullmatch(each)]
    if not candidates and not public:
        raise SignatureError(INVALID, f"{scheme.header}: nothing there has a signature's form")
    timestamp = _timestamp(scheme, headers, parts)
    signed_at = _signed_at(scheme, timestamp)
    message_id = _header(headers, scheme.id_header) if scheme.id_header else ""
    return Claim(candidates, public, timestamp, message_id, signed_at)


def _candidates(scheme: Scheme, parts: list[str], prefix: str, most: int) -> list[bytes]:
    found = [
        part.removeprefix(prefix).encode("utf-8", "surrogatepass")
        for part in map(str.strip, parts)
        if part.startswith(prefix)
    ]
    if len(found) > most:
        raise SignatureError(INVALID, f"{scheme.header}: more than {most} signatures")
    return found


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


def _signed_at(scheme: Scheme, timestamp: str) -> float:
    if scheme.tolerance is None:
        return 0.0
    signed_at = timestamps.seconds(timestamp, scheme.timestamp_format)
    if signed_at is None:
        expected = timestamps.NAMES[scheme.timestamp_format]
        raise SignatureError(INVALID, f"the timestamp is not {expected}")
    return signed_at
