"""How deliveries may be signed: schemes, described as data."""

from dataclasses import dataclass
from typing import Final, Literal

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
