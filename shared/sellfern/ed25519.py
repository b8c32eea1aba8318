"""Verifies signatures of public keys: Ed25519."""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_KEYS = 256
"""Keys that are kept read: as many as one process may meet again and again."""


@lru_cache(maxsize=_KEYS)
def public_key(raw: bytes) -> Ed25519PublicKey | None:
    """The key in 32 bytes; None where there is none."""
    try:
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        return None


def verifies(raw: bytes, content: bytes, signature: bytes) -> bool:
    """Whether a signature of this content is this key's; false for any bytes that are none."""
    key = public_key(raw)
    if key is None:
        return False
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
