"""Signs deliveries and verifies them, by schemes that are described as data."""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from multidict import CIMultiDict

from shared.errors import SignatureError
from shared.sellfern.scheme import (
    TIMESTAMP_NAMES,
    Scheme,
    read_scheme,
    read_timestamp,
    write_timestamp,
)

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

_PROOFS: Final = 32  # signatures tried: among so many each letter of either encoding occurs
_PUBLIC_KEYS = 256
"""Keys that are kept read: as many as one process may meet again and again."""


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
        # A header's bytes that are no UTF-8 come as halves of pairs: no error, but no signature.
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
    signed_at = read_timestamp(timestamp, scheme.timestamp_format)
    if signed_at is None:
        expected = TIMESTAMP_NAMES[scheme.timestamp_format]
        raise SignatureError(INVALID, f"the timestamp is not {expected}")
    return signed_at


def verify(
    scheme: Scheme, body: bytes, headers: Headers, secrets: Sequence[bytes], now: float
) -> int:
    """Return if one of the secrets signed this body, and say which.

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
    return verify_claim(scheme, read_claim(scheme, headers), body, secrets, now)


def verify_claim(
    scheme: Scheme, claim: Claim, body: bytes, secrets: Sequence[bytes], now: float
) -> int:
    """Return if one of the secrets signed this body as the headers claim, and say which.

    Every secret is tried against every candidate, and each comparison takes the same time
    wherever two signatures differ.

    Args:
        scheme: how it has to be signed.
        claim: of the same scheme.
        body: the raw bytes.
        secrets: those that are active; none of them verifies nothing.
        now: seconds since the epoch.

    Returns:
        The place of the secret among those given.

    Raises:
        SignatureError: nothing else, for any bytes.
    """
    # Before the hash, which an old delivery isn't worth. Off to either side: clocks differ.
    if scheme.tolerance is not None and abs(now - claim.signed_at) > scheme.tolerance:
        raise SignatureError(INVALID, f"the timestamp is more than {scheme.tolerance:g} s off")
    content = _content(scheme, claim.message_id, claim.timestamp, body)
    verified = _shared_signer(scheme, secrets, content, claim) if claim.candidates else -1
    if verified < 0 and claim.public:
        verified = _public_signer(scheme, secrets, content, claim)
    if verified < 0:
        raise SignatureError(INVALID, "the signature was made with none of the endpoint's secrets")
    return verified


def _shared_signer(scheme: Scheme, secrets: Sequence[bytes], content: bytes, claim: Claim) -> int:
    """The place of the secret that made one of the candidates; -1 where none did."""
    verified = -1
    for number, secret in enumerate(secrets):
        key = _key(scheme, secret)
        if not key:
            continue
        # Never with an empty key, which HMAC takes and everybody has.
        expected = _encoded(scheme, hmac.digest(key, content, scheme.algorithm))
        for candidate in claim.candidates:
            # Without an end at the first that fits: the time must not tell which one that was.
            if hmac.compare_digest(expected, candidate):
                verified = number
    return verified


def has_key(scheme: Scheme, secret: bytes) -> bool:
    """Whether there is a key in a secret; one without would silently verify nothing."""
    if _is_public(scheme, secret):
        return read_public_key(_public_key(scheme, secret)) is not None
    return bool(_key(scheme, secret))


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
        ValueError: the secret has no key in it, as the scheme reads it, or only a public one.
    """
    if _is_public(scheme, secret):
        raise ValueError(f"a public key ({scheme.public_secret_prefix}…) verifies, but can't sign")
    key = _key(scheme, secret)
    if not key:
        raise ValueError(f"expected a {scheme.secret_encoding} secret for {scheme.name}")
    timestamp = write_timestamp(now, scheme.timestamp_format)
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


def _public_signer(scheme: Scheme, secrets: Sequence[bytes], content: bytes, claim: Claim) -> int:
    """The place of the public key that verifies one of the candidates; -1 where none does."""
    for number, secret in enumerate(secrets):
        if not _is_public(scheme, secret):
            continue
        key = _public_key(scheme, secret)
        # A public key is no secret: here the time may tell.
        if any(_verifies(key, content, _decoded(each)) for each in claim.public):
            return number
    return -1


@lru_cache(maxsize=_PUBLIC_KEYS)
def read_public_key(raw: bytes) -> Ed25519PublicKey | None:
    """The Ed25519 key in 32 bytes; None where there is none."""
    try:
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        return None


def _verifies(raw: bytes, content: bytes, signature: bytes) -> bool:
    """Whether a signature of this content is this key's; false for any bytes that are none."""
    key = read_public_key(raw)
    if key is None:
        return False
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _content(scheme: Scheme, message_id: str, timestamp: str, body: bytes) -> bytes:
    if scheme.signed == "{body}":  # nothing to copy
        return body
    head, _, tail = (
        text.replace("{timestamp}", timestamp)
        .replace("{id}", message_id)
        .encode("utf-8", "surrogatepass")
        for text in scheme.signed.partition("{body}")
    )
    return head + body + tail


def _key(scheme: Scheme, secret: bytes) -> bytes:
    """The HMAC key in a secret; empty where there is none, which nobody may sign with."""
    match scheme.secret_encoding:
        case "raw":
            return secret
        case "base64":
            return _decoded(secret.removeprefix(scheme.secret_prefix.encode()))
        case "hex":
            return _unhexed(secret.removeprefix(scheme.secret_prefix.encode()))


def _unhexed(text: bytes) -> bytes:
    """What hex stands for, in either case; empty where it is none."""
    try:
        return binascii.unhexlify(text)
    except binascii.Error:
        return b""


def _is_public(scheme: Scheme, secret: bytes) -> bool:
    prefix = scheme.public_secret_prefix
    return bool(prefix) and secret.startswith(prefix.encode())


def _public_key(scheme: Scheme, secret: bytes) -> bytes:
    return _decoded(secret.removeprefix(scheme.public_secret_prefix.encode()))


def _decoded(text: bytes) -> bytes:
    """What base64 stands for, padded or not; empty where it is none."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return b""


def _encoded(scheme: Scheme, digest: bytes) -> bytes:
    return digest.hex().encode() if scheme.encoding == "hex" else base64.b64encode(digest)


def scheme_from_table(table: Mapping[str, Any]) -> Scheme:
    """The scheme that a table of the endpoints file describes, once it has proven to work.

    Raises:
        ValueError: what is wrong with it: the key, what was expected, what was got.
    """
    return _proven(read_scheme(table))


def _proven(scheme: Scheme) -> Scheme:
    """Refuse what would silently verify nothing, such as a separator that may be in a signature."""
    # In hex and in base64 alike.
    secret = scheme.secret_prefix.encode() + b"abcdef0123456789"
    for number in range(_PROOFS):
        body = b"%d" % number
        headers = CIMultiDict(sign(scheme, body, secret, now=0.0, message_id="a message"))
        try:
            verify(scheme, body, headers, [secret], now=0.0)
        except SignatureError as exc:
            raise ValueError(
                "expected headers, prefix and separator that can be told apart, "
                f"got a scheme whose own signatures fail: {exc}"
            ) from exc
    return scheme
