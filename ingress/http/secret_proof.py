"""Shows that one knows a secret, without telling it."""

import hmac
from hashlib import sha256
from typing import Final

from shared.settings.config import Secret

_PURPOSE: Final = b"sellfern-webhooks: which secrets does this ingress know?\n"


def proof(secret: Secret, endpoint_id: str, nonce: str) -> str:
    """What only somebody who knows the secret can say, in hexadecimal digits.

    Its key is a digest of the secret: so it is no signature that would pass for a delivery's,
    whatever the nonce is.

    Args:
        secret: that of an endpoint.
        endpoint_id: which one; it is no proof for another.
        nonce: chosen by whoever proves, anew each time.
    """
    key = sha256(_PURPOSE + _bytes(secret.reveal())).digest()
    return hmac.digest(key, _bytes(f"{endpoint_id}\n{nonce}"), "sha256").hex()


def proves(said: str, secret: Secret, endpoint_id: str, nonce: str) -> bool:
    """Whether what was said is the `proof`; it takes as long wherever the difference is."""
    return hmac.compare_digest(_bytes(said), proof(secret, endpoint_id, nonce).encode())


def _bytes(text: str) -> bytes:
    # Half of a surrogate pair, which a query may hold, is no error: it is only no proof.
    return text.encode("utf-8", "surrogatepass")
